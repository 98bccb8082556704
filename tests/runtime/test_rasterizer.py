"""The mesh overlay against what geometry says it must be."""

import cv2
import numpy as np
import pytest
import trimesh

from glnet_infer.errors import InputError
from glnet_infer.results.drawing import DEFAULT_COLORS, draw_meshes, vertex_normals

WIDTH, HEIGHT = 640, 480
CAMERA = np.array([[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]])
SPHERE = trimesh.creation.icosphere(subdivisions=5)
RED, BLUE = (0.0, 0.0, 255.0), (255.0, 0.0, 0.0)


def sphere(center, radius=0.5):
    return SPHERE.vertices * radius + np.asarray(center)


def coverage(vertices, camera=CAMERA, faces=SPHERE.faces):
    """How much of each pixel is covered, 0 to 1: what black and white backgrounds leave of their difference."""
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = [draw_meshes(image, vertices, faces, camera, opacity=1.0).astype(float) for image in (black, 255 - black)]
    return 1.0 - (drawn[1] - drawn[0]).mean(axis=2) / 255.0


def exact_silhouette(center, radius, camera=CAMERA, samples=4):
    """The share of each pixel whose rays meet the sphere: the discriminant of ray against sphere."""
    x, y = np.meshgrid(
        (np.arange(WIDTH * samples) + 0.5) / samples, (np.arange(HEIGHT * samples) + 0.5) / samples, indexing="xy"
    )
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera).T
    along = rays @ np.asarray(center)
    hit = along**2 >= (rays**2).sum(-1) * (np.dot(center, center) - radius**2)
    return (hit & (along > 0)).reshape(HEIGHT, samples, WIDTH, samples).mean(axis=(1, 3))


def centroid(weights):
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    return np.array([(weights.sum(axis=0) * x).sum(), (weights.sum(axis=1) * y).sum()]) / weights.sum()


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("center", [(0.0, 0.0, 3.0), (0.013, 0.027, 2.0), (0.7, -0.3, 2.5), (-0.9, 0.5, 3.0)])
def test_silhouette_of_a_sphere_is_the_analytic_one(center):
    drawn, exact = coverage(sphere(center)[None]), exact_silhouette(center, 0.5)
    a, b = drawn >= 0.5, exact >= 0.5
    assert (a & b).sum() / (a | b).sum() > 0.99
    assert np.abs(centroid(drawn) - centroid(exact)).max() < 0.1
    radius_error = np.sqrt(drawn.sum() / np.pi) - np.sqrt(exact.sum() / np.pi)
    assert -0.05 < radius_error < 0.05  # pixels; the polyhedron in the sphere is smaller by 0.015 at most


def test_skewed_camera_with_two_focal_lengths():
    camera = np.array([[600.0, 25.0, 300.2], [0.0, 450.0, 260.7], [0.0, 0.0, 1.0]])
    drawn, exact = coverage(sphere((0.2, -0.1, 3.0))[None], camera), exact_silhouette((0.2, -0.1, 3.0), 0.5, camera)
    a, b = drawn >= 0.5, exact >= 0.5
    assert (a & b).sum() / (a | b).sum() > 0.99
    assert np.abs(centroid(drawn) - centroid(exact)).max() < 0.1


@pytest.mark.parametrize("subdivisions", [1, 3, 5])
def test_no_cracks_inside(subdivisions):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    drawn = coverage((mesh.vertices * 0.5 + (0.1, 0.0, 2.0))[None], faces=mesh.faces)
    inside = cv2.morphologyEx((drawn >= 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9)))
    inside = cv2.erode(inside, np.ones((5, 5)))
    assert inside.sum() > 10_000
    assert drawn[inside > 0].min() == 1.0


@pytest.mark.parametrize("swap", [False, True])
def test_nearer_person_covers_the_farther_one(swap):
    near, far = sphere((0.15, 0.0, 2.0), 0.3), sphere((-0.15, 0.0, 3.0), 0.6)
    vertices, colors = np.stack([near, far]), np.array([RED, BLUE])
    if swap:
        vertices, colors = vertices[::-1], colors[::-1]
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = draw_meshes(black, vertices, SPHERE.faces, CAMERA, colors=colors, opacity=1.0)
    red, blue = (exact_silhouette(c, r) for c, r in (((0.15, 0.0, 2.0), 0.3), ((-0.15, 0.0, 3.0), 0.6)))
    only_red = cv2.erode((red == 1).astype(np.uint8), np.ones((5, 5))) > 0
    only_blue = cv2.erode(((blue == 1) & (red == 0)).astype(np.uint8), np.ones((5, 5))) > 0
    assert (only_red & (blue == 1)).sum() > 1000  # they do overlap
    assert (drawn[only_red][:, 0] == 0).all() and (drawn[only_red][:, 2] > 0).all()
    assert (drawn[only_blue][:, 2] == 0).all() and (drawn[only_blue][:, 0] > 0).all()


def test_back_faces_are_not_drawn():
    # Seen by the camera (y down): up, then lower left, then lower right is counter-clockwise.
    triangle = np.array([[[0.0, -0.5, 2.0], [-0.5, 0.5, 2.0], [0.5, 0.5, 2.0]]])
    image = noise()
    front = draw_meshes(image, triangle, np.array([[0, 1, 2]]), CAMERA)
    back = draw_meshes(image, triangle, np.array([[0, 2, 1]]), CAMERA)
    assert (front != image).any()
    assert np.array_equal(back, image)


def test_inside_out_sphere_shows_only_its_far_half():
    # Reversed faces: the near half is culled. The far half is seen from inside, so its rim lies at the same silhouette.
    assert coverage(sphere((0, 0, 3.0))[None], faces=SPHERE.faces[:, ::-1])[240, 320] == 1.0
    half = SPHERE.faces[(SPHERE.triangles_center[:, 2] < 0)]
    assert coverage(sphere((0, 0, 3.0))[None], faces=half)[240, 320] == 1.0
    assert coverage(sphere((0, 0, 3.0))[None], faces=half[:, ::-1])[240, 320] == 0.0


def test_edges_are_subpixel_and_not_biased():
    # A square of 200 x 160 pixels, moved by fractions of a pixel: each time near its true place, on average at it.
    errors = []
    for shift in np.random.default_rng(0).uniform(0, 1, (40, 2)):
        corners = np.array([[100.0, 80.0], [100.0, 240.0], [300.0, 240.0], [300.0, 80.0]]) + shift
        points = np.concatenate([(corners - (320.0, 240.0)) / 500.0 * 2.0, np.full((4, 1), 2.0)], axis=1)
        drawn = coverage(points[None], faces=np.array([[0, 1, 2], [0, 2, 3]]))
        errors.append(centroid(drawn) - (200.0, 160.0) - shift)
        assert drawn.sum() == pytest.approx(200.0 * 160.0, rel=0.01)
    assert np.abs(errors).max() < 0.3
    assert np.abs(np.mean(errors, axis=0)).max() < 0.05


def test_mesh_behind_or_around_the_camera():
    image = noise()
    behind = draw_meshes(image, sphere((0.0, 0.0, -3.0))[None], SPHERE.faces, CAMERA)
    assert np.array_equal(behind, image)
    around = draw_meshes(image, sphere((0.0, 0.0, 0.4))[None], SPHERE.faces, CAMERA)
    assert around.shape == image.shape
    partly = draw_meshes(image, sphere((0.45, 0.0, 0.3))[None], SPHERE.faces[:, ::-1], CAMERA)
    assert partly.shape == image.shape


def test_vertices_that_are_not_finite_are_left_out():
    vertices = sphere((0.0, 0.0, 3.0))[None].copy()
    vertices[0, 0] = np.nan
    drawn = coverage(vertices)
    assert drawn.sum() > 0.98 * coverage(sphere((0.0, 0.0, 3.0))[None]).sum()


def test_image_is_untouched_outside_and_input_is_not_modified():
    image = noise()
    before = image.copy()
    image.setflags(write=False)
    drawn = draw_meshes(image, sphere((0.3, 0.1, 3.0))[None], SPHERE.faces, CAMERA)
    assert np.array_equal(image, before)
    far_outside = cv2.dilate((exact_silhouette((0.3, 0.1, 3.0), 0.5) > 0).astype(np.uint8), np.ones((5, 5))) == 0
    assert np.array_equal(drawn[far_outside], before[far_outside])
    assert (drawn != before).any()


@pytest.mark.parametrize("center", [(-1.8, 0.0, 3.0), (1.9, 1.4, 3.0), (0.0, 0.0, 0.8), (0.0, -1.5, 3.0)])
def test_partly_outside_the_image(center):
    drawn, exact = coverage(sphere(center)[None]), exact_silhouette(center, 0.5)
    assert exact.sum() > 0
    assert drawn.sum() == pytest.approx(exact.sum(), rel=0.02)


def test_wholly_outside_and_no_person_give_a_copy():
    image = noise()
    outside = draw_meshes(image, sphere((50.0, 0.0, 3.0))[None], SPHERE.faces, CAMERA)
    none = draw_meshes(image, np.zeros((0, len(SPHERE.vertices), 3)), SPHERE.faces, CAMERA)
    for result in (outside, none):
        assert np.array_equal(result, image) and result is not image and not np.shares_memory(result, image)


def test_same_input_same_pixels():
    vertices = np.stack([sphere((0.1 * i, 0.0, 3.0), 0.4) for i in range(3)])
    first = draw_meshes(noise(), vertices, SPHERE.faces, CAMERA)
    assert np.array_equal(first, draw_meshes(noise(), vertices, SPHERE.faces, CAMERA))


def test_shading_is_brightest_where_the_surface_faces_the_camera():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = draw_meshes(black, sphere((0, 0, 3.0))[None], SPHERE.faces, CAMERA, colors=[(200, 200, 200)], opacity=1.0)
    row = drawn[240, 320:400, 0].astype(int)
    assert row[0] == pytest.approx(200, abs=2)
    assert (np.diff(row) <= 2).all() and 60 <= row[-1] < 120


def test_a_person_who_fills_a_large_frame_is_drawn_where_it_is():
    """On a canvas that is coarser than the image."""
    camera = np.array([[1500.0, 0, 960], [0, 1500, 540], [0, 0, 1]])
    black = np.zeros((1080, 1920, 3), np.uint8)
    drawn = draw_meshes(black, sphere((0.1, 0.02, 1.6))[None], SPHERE.faces, camera, opacity=1.0)
    x, y = np.meshgrid(np.arange(1920) + 0.5, np.arange(1080) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera).T
    center = np.array([0.1, 0.02, 1.6])
    exact = (rays @ center) ** 2 >= (rays**2).sum(-1) * (center @ center - 0.25)
    found = drawn.any(axis=2)
    assert exact.sum() > 700_000
    assert (found & exact).sum() / (found | exact).sum() > 0.99  # half a canvas pixel all around is 0.3 %


@pytest.mark.parametrize("depths", [(3.0, 2.0, 5.0), (11.3, 10.7, 10.1), (2.9, 3.7, 4.3), (7.7, 6.1, 5.3)])
def test_persons_who_overlap_leave_the_rest_of_the_image_alone(depths):
    image = noise()
    centers = [(0.1 * index * depth, 0.05 * depth, depth) for index, depth in enumerate(depths)]
    drawn = draw_meshes(image, np.stack([sphere(center) for center in centers]), SPHERE.faces, CAMERA)
    reached = np.max([exact_silhouette(center, 0.5) for center in centers], axis=0) > 0
    outside = cv2.dilate(reached.astype(np.uint8), np.ones((5, 5))) == 0
    assert np.array_equal(drawn[outside], image[outside])


def test_bodies_that_cut_through_each_other_show_the_nearer_part():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pair = np.stack([sphere((-0.2, 0, 3.0)), sphere((0.2, 0, 3.0))])
    drawn = draw_meshes(black, pair, SPHERE.faces, CAMERA, colors=[RED, BLUE], opacity=1.0)
    # By symmetry, the seam is the plane x = 0: column 320.
    row = drawn[200:280]
    assert (row[:, 260:318, 2] > 0).all() and not row[:, 260:318, 0].any()
    assert (row[:, 322:380, 0] > 0).all() and not row[:, 322:380, 2].any()


def test_persons_far_apart_are_drawn_as_if_alone():
    image = noise()
    pair = np.stack([sphere((-1.0, 0, 3.0), 0.3), sphere((1.0, 0.2, 4.0), 0.3)])
    both = draw_meshes(image, pair, SPHERE.faces, CAMERA, colors=[RED, BLUE])
    one = draw_meshes(image, pair[:1], SPHERE.faces, CAMERA, colors=[RED])
    assert np.array_equal(both, draw_meshes(one, pair[1:], SPHERE.faces, CAMERA, colors=[BLUE]))


def test_opacity_mixes_with_the_image():
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    vertices, faces = sphere((0.0, 0.0, 3.0))[None], SPHERE.faces
    drawn = draw_meshes(image, vertices, faces, CAMERA, colors=[(200, 200, 200)], opacity=0.25)
    assert drawn[240, 320, 0] == pytest.approx(125, abs=2)
    assert np.array_equal(draw_meshes(image, vertices, faces, CAMERA, opacity=0.0), image)


def test_more_persons_than_default_colours():
    vertices = np.stack([sphere((0.1 * i, 0.0, 3.0), 0.1) for i in range(len(DEFAULT_COLORS) + 2)])
    assert draw_meshes(noise(), vertices, SPHERE.faces, CAMERA).shape == (HEIGHT, WIDTH, 3)
    assert len(set(DEFAULT_COLORS)) == len(DEFAULT_COLORS)


def test_vertex_normals_point_outwards():
    normals = vertex_normals(SPHERE.vertices, SPHERE.faces)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1.0)
    assert (normals * SPHERE.vertices).sum(axis=1).min() > 0.999
    lonely = vertex_normals(np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [5, 5, 5]]), np.array([[0, 1, 2]]))
    assert lonely[3].tolist() == [0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((4, 4), np.uint8)},
        {"image": np.zeros((4, 4, 3), np.float32)},
        {"vertices": np.zeros((3, 3))},
        {"faces": np.array([[0, 1, 99]])},
        {"faces": np.array([[0.0, 1.0, 2.0]])},
        {"intrinsics_matrix": np.eye(4)},
        {"intrinsics_matrix": np.full((3, 3), np.nan)},
        {"colors": [(1, 2, 3), (4, 5, 6)]},
        {"colors": [(1, 2, 300)]},
        {"opacity": 1.5},
        {"opacity": float("nan")},
    ],
)
def test_bad_arguments_are_named(change):
    arguments = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "vertices": np.zeros((1, 3, 3)),
        "faces": np.array([[0, 1, 2]]),
        "intrinsics_matrix": CAMERA,
    }
    with pytest.raises(InputError):
        draw_meshes(**(arguments | change))
