"""Shaded triangle meshes drawn onto an image with NumPy and OpenCV: no OpenGL, no display, no GPU.

Triangles are filled by OpenCV's rasterizer, whose depth buffer shows the nearest surface at every pixel.

Frames: vertices are in the camera's (x right, y down, z forward, metres; right-handed). Pixels are continuous: the
image spans [0, W] x [0, H] and the centre of the top-left pixel is (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError
from glnet_infer.results.filling import Surface, fill_by_depth

DEFAULT_COLORS: tuple[tuple[int, int, int], ...] = (
    (226, 166, 112),
    (108, 146, 238),
    (132, 196, 118),
    (204, 138, 190),
    (98, 200, 240),
    (190, 190, 104),
    (162, 142, 242),
    (150, 170, 190),
)
"""BGR, one per person, repeated when there are more persons. Medium bright, so that shading shows."""


def color_of(track: int) -> tuple[int, int, int]:
    """The colour of a person in a video, BGR; tracks are counted from 1."""
    return DEFAULT_COLORS[(track - 1) % len(DEFAULT_COLORS)]


NEAR = 0.05
"""Metres. A triangle with a corner nearer than this is dropped: its projection grows without bound."""

_AMBIENT = 0.3
"""Share of the light that reaches a surface seen edge-on; the rest is a headlight at the camera."""

_CANVAS = 180_000
"""Canvas pixels for each person, about. A person who fills a 1080p frame is drawn somewhat coarser than the image: light
changes slowly over a body, the edges are smoothed, and the time stays that of a person at half the frame's height."""

_FAR_AWAY = float(1 << 20)
"""Pixels. Coordinates are clamped to this, far inside what 32-bit integers hold."""


def vertex_normals(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float32]:
    """Area-weighted vertex normals.

    Args:
        vertices: (V,3) float, one mesh, right-handed frame.
        faces: (F,3) int, counter-clockwise seen from outside.

    Returns:
        (V,3) unit vectors that point outwards, same frame; (0, 0, -1) at vertices of no face or only degenerate ones.
    """
    # Axis by axis and corner by corner: NumPy is slow along an axis of three.
    corners = np.ascontiguousarray(faces.T, np.intp)
    first, second, third = (
        [axis[corner] for axis in np.ascontiguousarray(np.asarray(vertices, np.float32).T)] for corner in corners
    )
    # Relative to a corner before anything is multiplied: a body at ten metres keeps its millimetres in float32.
    ax, ay, az = (end - start for start, end in zip(first, second, strict=True))
    bx, by, bz = (end - start for start, end in zip(first, third, strict=True))
    # The cross product's length is twice the triangle's area: adding it unnormalised is the weighting.
    normals = np.empty((len(vertices), 3), np.float32)
    for axis, component in enumerate((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)):
        normals[:, axis] = sum(np.bincount(corner, component, minlength=len(vertices)) for corner in corners)
    length = np.sqrt(np.einsum("vc,vc->v", normals, normals))[:, None]
    usable = length > np.finfo(np.float32).tiny
    return np.where(usable, normals / np.where(usable, length, 1), np.array((0, 0, -1), np.float32))


def draw_meshes(
    image: NDArray[np.uint8],
    vertices: NDArray[Any],
    faces: NDArray[Any],
    intrinsics_matrix: ArrayLike,
    *,
    colors: Sequence[Sequence[float]] | NDArray[Any] | None = None,
    opacity: float = 0.8,
) -> NDArray[np.uint8]:
    """Draw shaded meshes over an image.

    A face is drawn when its corners run counter-clockwise as the camera sees them. With y down that is a *negative*
    signed area in pixels, ``(b - a) x (c - a) < 0``; in space, an outward normal turned towards the camera.

    Args:
        image: (H,W,3) uint8, BGR; not modified.
        vertices: (N,V,3) float, metres, camera coordinates (x right, y down, z forward). N may be 0. Triangles with a
            corner that is not finite or nearer than ``NEAR`` are left out.
        faces: (F,3) int, shared by all persons, counter-clockwise seen from outside.
        intrinsics_matrix: (3,3) camera matrix, continuous pixel coordinates (top-left pixel's centre at (0.5, 0.5)).
        colors: (N,3) BGR 0..255, one per person; None takes ``DEFAULT_COLORS`` in turn.
        opacity: 0 (nothing visible) to 1 (the image is hidden behind the mesh).

    Returns:
        A new (H,W,3) uint8 BGR image, equal to ``image`` wherever no mesh is.

    Raises:
        InputError: An argument of the wrong shape, type or range.
    """
    camera, palette = _checked(image, vertices, faces, intrinsics_matrix, colors, opacity)
    result = np.array(image, copy=True, order="C")
    persons = [
        person
        for mesh, color in zip(np.asarray(vertices, np.float32), palette, strict=True)
        if (person := _seen(mesh, faces, camera, color, (image.shape[1], image.shape[0]))) is not None
    ]
    for group in _touching(persons):
        _draw(result, group, opacity)
    return result


@dataclass(frozen=True, eq=False)
class _Person:
    """What the camera sees of a person.

    Attributes:
        pixels: (V,2) continuous pixels.
        depths: (V,) metres.
        faces: (T,3) int32, those that face the camera.
        colors: (V,3) BGR 0..255, with light.
        box: Left, top, right, bottom: whole pixels of the image that the faces can reach.
    """

    pixels: NDArray[np.float32]
    depths: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.float32]
    box: tuple[int, int, int, int]


def _seen(
    mesh: NDArray[np.float32],
    faces: NDArray[Any],
    camera: NDArray[np.float64],
    color: NDArray[np.float64],
    size: tuple[int, int],
) -> _Person | None:
    """A person as the camera sees it; None where nothing of it is in the image."""
    usable = np.isfinite(mesh).all(axis=1) & (mesh[:, 2] >= NEAR)
    points = np.where(usable[:, None], mesh, np.array((0, 0, 1), np.float32))
    projected = points @ camera.T.astype(np.float32)
    pixels = np.clip(projected[:, :2] / projected[:, 2:], -_FAR_AWAY, _FAR_AWAY)
    columns, rows = np.ascontiguousarray(pixels.T)
    corners = np.ascontiguousarray(faces.T, np.intp)
    x, y = [columns[corner] for corner in corners], [rows[corner] for corner in corners]
    front = (x[1] - x[0]) * (y[2] - y[0]) < (y[1] - y[0]) * (x[2] - x[0])
    left, right = np.minimum(np.minimum(*x[:2]), x[2]), np.maximum(np.maximum(*x[:2]), x[2])
    top, bottom = np.minimum(np.minimum(*y[:2]), y[2]), np.maximum(np.maximum(*y[:2]), y[2])
    kept = front & (right > 0) & (left < size[0]) & (bottom > 0) & (top < size[1])
    if not usable.all():
        kept &= usable[faces].all(axis=1)
    if not kept.any():
        return None
    box = (
        max(int(np.floor(left[kept].min())) - 1, 0),
        max(int(np.floor(top[kept].min())) - 1, 0),
        min(int(np.ceil(right[kept].max())) + 1, size[0]),
        min(int(np.ceil(bottom[kept].max())) + 1, size[1]),
    )
    normals = vertex_normals(points, faces)
    # The headlight is at the camera, the origin: light and view direction are the same.
    facing = -np.einsum("vc,vc->v", normals, points) / np.sqrt(np.einsum("vc,vc->v", points, points))
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(facing, 0, 1)
    return _Person(pixels, points[:, 2], faces[kept].astype(np.int32), np.outer(light, color).astype(np.float32), box)


def _touching(persons: list[_Person]) -> list[list[_Person]]:
    """Persons in groups whose boxes overlap, directly or through others: only they can hide each other."""
    groups: list[list[_Person]] = []
    for person in persons:
        near = [group for group in groups if any(_overlap(person.box, other.box) for other in group)]
        groups = [group for group in groups if not any(group is each for each in near)]
        groups.append([*(other for group in near for other in group), person])
    return groups


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw(image: NDArray[np.uint8], persons: list[_Person], opacity: float) -> None:
    """Draw persons who may hide each other into the part of the image that they reach."""
    boxes = np.array([person.box for person in persons])
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    width, height = right - left, bottom - top
    fineness = _fineness(_CANVAS * len(persons) / (width * height))
    size = max(round(width * fineness), 1), max(round(height * fineness), 1)
    scale = np.array((size[0] / width, size[1] / height), np.float32)
    surfaces = [
        Surface((person.pixels - np.array((left, top), np.float32)) * scale, person.depths, person.faces, person.colors)
        for person in persons
    ]
    # Colour weighted by coverage, and coverage: averaged, both are right at the edges too.
    colour, covered = fill_by_depth(size, surfaces)
    filter_ = cv2.INTER_AREA if fineness > 1 else cv2.INTER_LINEAR
    colour = np.asarray(cv2.resize(colour, (width, height), interpolation=filter_), np.uint8)
    covered = np.asarray(cv2.resize(covered, (width, height), interpolation=filter_), np.uint8)
    region = image[top:bottom, left:right]
    mixed = cv2.addWeighted(region, 1 - opacity, colour, opacity, 0)
    inside = covered == 255
    # OpenCV's search is several times as fast as NumPy's; it finds None where there is nothing.
    found = cv2.findNonZero(((covered != 0) ^ inside).view(np.uint8))
    columns, rows = np.zeros((2, 0), np.intp) if found is None else found.reshape(-1, 2).T
    edge = rows, columns
    share = covered[edge].astype(np.float32)[:, None] * np.float32(opacity / 255)
    at_edge = region[edge] * (1 - share) + colour[edge] * np.float32(opacity)
    cv2.copyTo(mixed, inside.view(np.uint8), region)
    region[edge] = np.minimum(at_edge + np.float32(0.5), 255).astype(np.uint8)


def _fineness(affordable: float) -> float:
    """Canvas pixels per image pixel and axis: two, whose edges are smooth; one, which needs no scaling; or fewer.

    Args:
        affordable: Canvas pixels per image pixel that the time allows, about: what lies between costs as much as two.
    """
    return 2.0 if affordable >= 2.5 else 1.0 if affordable >= 0.7 else float(np.sqrt(affordable))


def _checked(
    image: NDArray[np.uint8],
    vertices: NDArray[Any],
    faces: NDArray[Any],
    intrinsics_matrix: ArrayLike,
    colors: Sequence[Sequence[float]] | NDArray[Any] | None,
    opacity: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check ``draw_meshes``' arguments; return the camera matrix (3,3) and one colour per person (N,3)."""
    camera = np.asarray(intrinsics_matrix, np.float64)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError("Cannot draw on this image.", why=f"it is {image.dtype} {image.shape}, not uint8 (H,W,3)")
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        why = f"vertices are {vertices.shape}, not (N,V,3), or faces are {faces.shape}, not (F,3)"
        raise InputError("Cannot draw these meshes.", why=why)
    if faces.size and (faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= vertices.shape[1]):
        why = f"faces are {faces.dtype} and must be vertex numbers from 0 to {vertices.shape[1] - 1}"
        raise InputError("Cannot draw these meshes.", why=why)
    if camera.shape != (3, 3) or not np.isfinite(camera).all():
        raise InputError("Cannot use this camera.", why="the intrinsics matrix must be (3,3) and finite")
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"Cannot draw with opacity {opacity}.", fix="give a number from 0 to 1")
    count = len(vertices)
    if colors is None:
        return camera, np.array([DEFAULT_COLORS[i % len(DEFAULT_COLORS)] for i in range(count)], np.float64).reshape(-1, 3)
    palette = np.asarray(colors, np.float64)
    if palette.shape != (count, 3) or not ((palette >= 0) & (palette <= 255)).all():
        raise InputError("Cannot use these colours.", why=f"{count} BGR triples from 0 to 255 are needed")
    return camera, palette
