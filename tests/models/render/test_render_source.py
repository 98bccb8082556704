"""Samples: reproducible, with labels that say exactly what the crops show."""

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from glnet.decoding import Decoder
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares
from glnet_infer.errors import InputError
from glnet_infer.skeleton import SKELETON_JOINTS
from glnet_render import Spread, SyntheticSource, source
from glnet_render.backgrounds import TILE, Photographs
from glnet_render.corruptions import Occluders, in_crop
from glnet_render.placement import NEAREST, project
from glnet_render.randomness import Draw
from glnet_render.targets import BACKGROUND, UNKNOWN

SIZE = 96


@pytest.fixture
def make(demo_body):
    def source_of(seed: int = 0, size: int = SIZE, **options) -> SyntheticSource:
        return SyntheticSource(demo_body, CropSpec(size), seed=seed, **options)

    return source_of


@pytest.fixture(scope="module")
def sample(demo_body):
    return SyntheticSource(demo_body, CropSpec(SIZE), seed=4).sample(48)


def joints_of(sample, body) -> torch.Tensor:
    return body.pose(sample.rotations, sample.betas).joints + sample.translation.unsqueeze(1)


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("tilted", [0.5, 1.0])
def test_the_less_upright_of_two_are_taken(make, tilted):
    """If one in five leans far, both of two do not in 64 %: then 36 % lean far."""
    sources = [make(3, spread=Spread(tilted=share)) for share in (0.0, tilted)]
    natural, taken = (source._postures(source.draw, 4000)[:, 0] for source in sources)
    # y is up for the body and down for the camera.
    rare, found = ((-rotations[:, 1, 1] < 0.8).double().mean() for rotations in (natural, taken))
    assert 0.1 < rare < 0.3
    expected = (1 - tilted) * rare + tilted * (1 - (1 - rare) ** 2)
    assert found - rare > 0.06
    assert abs(found - expected) < 0.04  # three standard deviations: 4,000 draws each


def test_shapes_and_types(sample):
    n = 48
    assert sample.crops.shape == (n, SIZE, SIZE, 3)
    assert sample.crops.dtype == torch.uint8
    assert sample.cameras.shape == (n, 4)
    assert sample.rotations.shape == (n, 24, 3, 3)
    assert sample.betas.shape == (n, 10)
    assert sample.translation.shape == (n, 3)
    assert sample.visibility.shape == (n, SKELETON_JOINTS)
    assert sample.visibility.dtype == torch.bool
    assert sample.segments.shape == (n, SIZE // 4, SIZE // 4)
    assert sample.segments.dtype == torch.uint8
    assert sample.places.shape == (n, SIZE // 4, SIZE // 4, 4)
    for labels in sample[1:5]:
        assert labels.dtype == torch.float32
        assert labels.isfinite().all()
        assert not labels.requires_grad and not labels.is_inference()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_gpu_samples_are_whole_and_reproducible(make, demo_body):
    first, second = make(seed=3, device="cuda"), make(seed=3, device="cuda")
    found = first.sample(20)
    assert same(found, second.sample(20))
    first.begin(4, Spread(0.5, tilted=0.5, bystanders=1.0))
    second.begin(4, Spread(0.5, tilted=0.5, bystanders=1.0))
    assert same(first.sample(3), second.sample(3))
    assert all(tensor.is_cuda for tensor in found)
    assert next(demo_body.buffers()).device.type == "cpu"  # the caller's body stays where it was
    assert found.crops.float().flatten(1).std(1).median() > 25


def test_any_count(make):
    for count in (1, 3, 17):
        assert len(make().sample(count).crops) == count


@pytest.mark.parametrize("padding", [1.0, 1.25, 1.6])
def test_crops_show_as_much_around_a_person_as_the_network_is_given_later(demo_body, padding):
    sample = SyntheticSource(demo_body, CropSpec(48, padding), seed=2, spread=Spread(0.0)).sample(8)
    with torch.no_grad():
        vertices = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    places = project(vertices, sample.cameras)
    box = places.amax(1) - places.amin(1)
    torch.testing.assert_close(box.amax(1), torch.full((8,), 1 / padding), atol=1e-4, rtol=0)  # crop sides
    torch.testing.assert_close(places.amax(1) + places.amin(1), torch.zeros(8, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("aspect", [1.0, 0.75])
def test_narrow_networks_see_wide_persons_as_in_the_runtimes_crop(demo_body, monkeypatch, aspect):
    """The runtime's square about the vertices' box is the rendered crop; the columns that are looked at hold them all."""

    def arms_spread(self, draw, count):
        rotations = torch.eye(3).repeat(count, 24, 1, 1)
        rotations[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # the camera's y points down
        rotations[::2, 16:18] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # every other one holds both to a side
        return rotations

    monkeypatch.setattr(SyntheticSource, "_postures", arms_spread)
    spec = CropSpec(48, padding=1.1, aspect=aspect)
    sample = SyntheticSource(demo_body, spec, seed=2, spread=Spread(0.0)).sample(8)
    with torch.no_grad():
        vertices = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    places = project(vertices, sample.cameras).double()
    boxes = torch.cat([places.amin(1), places.amax(1)], dim=1).numpy()
    wide, high = (boxes[:, 2:] - boxes[:, :2]).T
    assert (wide[1::2] > 0.8 * high[1::2]).all() and (wide[::2] < 0.7 * high[::2]).all()
    squares = CropSquares.around(boxes, spec)
    np.testing.assert_allclose(squares.sides, 1, atol=1e-4)  # crop sides
    np.testing.assert_allclose(squares.centers, 0, atol=1e-4)
    assert places[..., 0].abs().max() < aspect / 2


def test_a_seed_gives_one_sequence(make):
    first, second = make(seed=7, size=48), make(seed=7, size=48)
    assert same(first.sample(5), second.sample(5))
    again = first.sample(5)
    assert same(again, second.sample(5))
    assert not same(again, make(seed=7, size=48).sample(5))
    assert not same(make(seed=8, size=48).sample(5), make(seed=7, size=48).sample(5))


def test_the_global_generator_is_neither_used_nor_moved(make):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make(size=48).sample(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, make(size=48).sample(4))


def test_a_sequence_can_be_begun_anywhere(make):
    """What was sampled before leaves no trace."""
    used = make(seed=99, size=48)
    used.sample(3)
    used.begin(5, Spread(0.6, bystanders=0.5))
    assert same(used.sample(4), make(seed=5, size=48, spread=Spread(0.6, bystanders=0.5)).sample(4))


def test_labels_decode_to_the_posed_body(sample, demo_body, small_config):
    """The target of training, decoded, is the body that was rendered: to a hundredth of a millimetre in the median."""
    decoder = Decoder(small_config, demo_body)
    with torch.no_grad():
        estimate = decoder.encode(sample.rotations, sample.betas, sample.translation, sample.cameras)
        decoded = decoder(estimate, sample.cameras)
        posed = demo_body.pose(sample.rotations, sample.betas)
    error = (decoded.vertices - posed.vertices - sample.translation.unsqueeze(1)).norm(dim=-1) * 1000
    assert error.median() < 0.02
    assert error.max() < 0.5


def test_rendered_silhouettes_lie_where_the_vertices_project(make, bare, demo_body):
    """Against OpenCV's filled triangles at eight times the resolution."""
    sample = make(seed=5).sample(24)
    vertices = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    points = (project(vertices, sample.cameras) + 0.5).numpy()
    overlaps, shifts = [], []
    grids = np.mgrid[:SIZE, :SIZE]
    for crop, corners in zip(sample.crops.numpy(), points, strict=True):
        fine = np.zeros((SIZE * 8, SIZE * 8), np.uint8)
        triangles = np.clip((corners[demo_body.data.faces] * SIZE * 8 - 0.5) * 16, -(2**20), 2**20)
        for triangle in triangles.round().astype(np.int32):
            cv2.fillConvexPoly(fine, triangle, 255, shift=4)
        expected = cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255
        rendered = 1 - crop[..., 0] / 255
        overlaps.append(np.minimum(rendered, expected).sum() / np.maximum(rendered, expected).sum())
        shift = [(grid * rendered).sum() / rendered.sum() - (grid * expected).sum() / expected.sum() for grid in grids]
        shifts.append(shift)
    # Four samples a pixel, and OpenCV's outlines, leave a few per cent along the border; half a pixel off would show.
    assert min(overlaps) > 0.95
    assert np.abs(shifts).max() < 0.25
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.08


def test_bodies_are_before_the_camera_and_cameras_are_real(sample, demo_body):
    vertices = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    assert vertices[..., 2].min() >= NEAREST - 1e-4
    assert (sample.cameras[:, 0] == sample.cameras[:, 1]).all()
    assert sample.cameras[:, 0].min() > 0.5
    assert sample.cameras[:, 0].max() < 14
    assert sample.cameras[:, 2:].abs().max() > 0.5  # some persons stand far from the image's centre


def test_most_crops_show_the_whole_person(sample, demo_body):
    inside = in_crop(project(joints_of(sample, demo_body), sample.cameras)).float().mean(1)
    assert inside.mean() > 0.85
    assert 0.02 < (inside < 0.9).float().mean() < 0.4
    assert inside.min() > 0


def test_visible_joints_are_inside_and_uncovered(make, monkeypatch, demo_body):
    """The left third of every crop is hidden by an occluder, a band at the bottom lies outside the image."""
    size = 60

    def left_third(draw, count, size, scenery, difficulty):
        alpha = torch.zeros(count, size, size)
        alpha[:, :, : size // 3] = 1
        inside = torch.ones(count, size, size, dtype=torch.bool)
        inside[:, -size // 10 :] = False
        return Occluders(alpha, alpha.unsqueeze(-1) * torch.tensor([0.0, 1.0, 0.0]), inside)

    monkeypatch.setattr(source, "occluders", left_third)
    monkeypatch.setattr(source, "camera_faults", lambda draw, image, difficulty: image.clamp(0, 1))
    sample = make(size=size, seed=3).sample(40)
    x, y = (project(joints_of(sample, demo_body), sample.cameras) + 0.5).unbind(-1)
    expected = (x >= 1 / 3) & (x < 1) & (y >= 0) & (y < 0.9)
    assert torch.equal(sample.visibility, expected)
    assert 0.2 < expected.float().mean() < 0.9
    assert (sample.crops[:, :54, :20] == torch.tensor([0, 255, 0])).all()
    assert (sample.crops[:, 54:] == 0).all()


def test_surfaces_are_where_their_vertices_project(sample, demo_body):
    """The vertex whose rest place a cell names projects to that cell, lies at that depth and follows that joint."""
    data, grid = demo_body.data, SIZE // 4
    posed = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    roots = joints_of(sample, demo_body)[:, 0]
    rest = cKDTree(data.v_template)
    for index in range(16):
        segments, places = sample.segments[index], sample.places[index].numpy()
        person = (segments < BACKGROUND).numpy()
        assert person.sum() > 10
        _, vertices = rest.query(places[person][:, :3])
        # The nearest vertex is half a triangle away: 2 cm on the body.
        shown = posed[index, vertices]
        image = (project(shown[None], sample.cameras[index : index + 1])[0] + 0.5) * grid - 0.5
        rows, columns = np.nonzero(person)
        scale = float(sample.cameras[index, 0] / roots[index, 2]) * grid  # cells that a metre spans
        distance = np.abs(image.numpy() - np.stack([columns, rows], axis=1)).max(1)
        assert np.median(distance) < 0.3 + 0.02 * scale
        axis = np.array([*(-sample.cameras[index, 2:] / sample.cameras[index, :2]), 1])
        depth = (shown - roots[index]).numpy() @ (axis / np.linalg.norm(axis))
        assert np.median(np.abs(depth - places[person][:, 3])) < 0.02
        followed = data.weights[vertices].argmax(1)
        assert (followed == segments[torch.from_numpy(person)].numpy()).mean() > 0.9  # the rest at borders of segments


def test_hidden_surfaces_have_no_label_and_the_rest_is_background(make, monkeypatch):
    def left_half(draw, count, size, scenery, difficulty):
        alpha = torch.zeros(count, size, size)
        alpha[:, :, : size // 2] = 1
        inside = torch.ones_like(alpha, dtype=torch.bool)
        inside[:, -8:] = False
        return Occluders(alpha, alpha.unsqueeze(-1).repeat(1, 1, 1, 3), inside)

    monkeypatch.setattr(source, "occluders", left_half)
    segments = make(seed=2).sample(16).segments
    half = SIZE // 8
    assert (segments[:, :, :half] == UNKNOWN).all() and (segments[:, -2:] == UNKNOWN).all()
    seen = segments[:, :-2, half:]
    assert (seen <= BACKGROUND).all() and (seen == BACKGROUND).any() and (seen < BACKGROUND).any()


def test_self_occlusion_does_not_count(make, bare, demo_body):
    sample = make(seed=6).sample(16)
    assert torch.equal(sample.visibility, in_crop(project(joints_of(sample, demo_body), sample.cameras)))


def test_occluders_hide_some_joints(sample, demo_body):
    inside = in_crop(project(joints_of(sample, demo_body), sample.cameras))
    hidden = (inside & ~sample.visibility).float().sum() / inside.sum()
    assert 0.02 < hidden < 0.25


def test_no_difficulty_shows_whole_clear_persons(make, demo_body):
    sample = make(seed=2, spread=Spread(0.0)).sample(16)
    assert sample.visibility.all()
    middle = project(joints_of(sample, demo_body), sample.cameras).mean(1)
    assert middle.abs().max() < 0.15


def test_crops_differ_and_have_contrast(sample):
    crops = sample.crops.float()
    assert crops.flatten(1).std(1).median() > 25
    assert 60 < crops.mean() < 170
    assert (crops[1:] - crops[:-1]).abs().flatten(1).mean(1).min() > 5


@pytest.mark.parametrize("name", ["difficulty", "tilted", "bystanders"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_spread_outside_its_range_is_an_error(name, share):
    with pytest.raises(InputError, match=name):
        Spread(**{name: share})


# Photographs


@pytest.fixture
def folder(tmp_path):
    """A folder with a landscape photograph, blue at the left and red at the right, in a folder of its own, and a text."""
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, :150] = (250, 10, 10)
    picture[:, 150:] = (10, 10, 250)
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "picture.png"), picture)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


def test_photographs_are_read_as_rgb_squares(folder):
    photographs = Photographs(folder, torch.device("cpu"))
    assert photographs.tiles.shape == (2, TILE, TILE, 3)
    assert photographs.tiles[:, 0, 0].tolist() == [[10, 10, 250], [250, 10, 10]]


def test_windows_of_photographs_are_their_pixels(folder):
    photographs = Photographs(folder, torch.device("cpu"))
    ramp = torch.arange(TILE) * 255 / (TILE - 1)
    photographs.tiles = torch.stack(
        [ramp.expand(TILE, TILE), ramp[:, None].expand(TILE, TILE), 0 * ramp.expand(TILE, TILE)], -1
    )
    photographs.tiles = photographs.tiles.round().to(torch.uint8)[None]
    windows = photographs.windows(Draw(torch.Generator().manual_seed(0)), 20, 40)
    steps = windows.diff(dim=2)[..., 0]
    assert ((steps > -0.003).flatten(1).all(1) | (steps < 0.003).flatten(1).all(1)).all()  # even ramps, some mirrored
    assert {bool(step.mean() > 0) for step in steps} == {True, False}
    spans = windows[:, -1, :, 1].mean(1) - windows[:, 0, :, 1].mean(1)
    assert spans.min() > 0.02
    assert spans.max() <= 1


def test_the_folder_is_behind_the_persons(make, folder):
    """Most pixels have one of the photograph's two colours or a blend: as no other source here has."""
    sample = make(seed=1, backgrounds=folder, spread=Spread(0.0)).sample(16)
    crops = sample.crops.float()
    assert ((crops[..., 1] < 30) & (crops[..., 0] + crops[..., 2] > 200)).float().mean() > 0.45


def test_a_folder_without_photographs_is_an_error(make, tmp_path):
    with pytest.raises(InputError, match="no photographs"):
        make(backgrounds=tmp_path)
