"""Shaded triangle meshes drawn onto an image with NumPy and OpenCV: no OpenGL, no display, no GPU.

Painter's algorithm: the front faces of all persons together are sorted by distance and drawn far to near, so a nearer
person covers a farther one. Triangles that cut through each other are not resolved: where two persons touch, the seam
follows whole triangles.

Frames: vertices are in the camera's (x right, y down, z forward, metres; right-handed). Pixels are continuous: the
image spans [0, W] x [0, H] and the centre of the top-left pixel is (0.5, 0.5). ``cv2`` puts that centre at (0, 0)
instead, so half a pixel is taken off where its drawing functions are called, and nowhere else.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError

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

NEAR = 0.05
"""Metres. A triangle with a corner nearer than this is dropped: its projection grows without bound."""

_AMBIENT = 0.3
"""Share of the light that reaches a surface seen edge-on; the rest is a headlight at the camera."""

_SUPERSAMPLING = 2
"""Canvas pixels per image pixel and axis. OpenCV's filled polygons include their outline, about half a pixel too wide
(which is what closes the cracks between neighbours): at twice the resolution it is a quarter, and edges are smooth."""

_SHIFT = 4
"""Fractional bits of the coordinates handed to ``cv2.fillConvexPoly``: sixteenths of a canvas pixel."""

_FAR_AWAY = float(1 << 20)
"""Pixels. Coordinates are clamped to this, far inside what OpenCV's 32-bit fixed point holds."""


def vertex_normals(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float64]:
    """Area-weighted vertex normals.

    Args:
        vertices: (V,3) float, one mesh, right-handed frame.
        faces: (F,3) int, counter-clockwise seen from outside.

    Returns:
        (V,3) unit vectors that point outwards, same frame; (0, 0, -1) at vertices of no face or only degenerate ones.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    # The cross product's length is twice the triangle's area: adding it unnormalised is the weighting.
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = np.ravel(faces)
    count = len(vertices)
    sums = [np.bincount(index, np.repeat(face_normals[:, axis], 3), minlength=count) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    usable = length > np.finfo(np.float64).tiny
    fallback = np.array([0.0, 0.0, -1.0])
    return np.where(usable, normals / np.where(usable, length, 1.0), fallback)


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
    pixels, order, shades = _visible_triangles(
        np.asarray(vertices, np.float64), faces, camera, palette, (image.shape[1], image.shape[0])
    )
    if not len(order):
        return result
    pixels, shades = pixels[order], shades[order]

    # Only the part of the image that the meshes can reach is drawn; one pixel more for the outlines.
    low = np.maximum(np.floor(pixels.min(axis=(0, 1))).astype(int) - 1, 0)
    high = np.minimum(np.ceil(pixels.max(axis=(0, 1))).astype(int) + 1, (image.shape[1], image.shape[0]))
    width, height = (high - low).tolist()
    # Colour and coverage together, both zero outside: averaged, they give colours already weighted by coverage.
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 4), np.uint8)
    drawn = (pixels - low) * _SUPERSAMPLING - 0.5
    for triangle, shade in zip(np.rint(drawn * (1 << _SHIFT)).astype(np.int32), shades.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, triangle, shade, cv2.LINE_8, _SHIFT)

    layer = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    region = result[low[1] : high[1], low[0] : high[0]]
    behind = region * (1.0 - layer[:, :, 3:] * np.float32(opacity / 255.0))
    region[...] = np.minimum(behind + layer[:, :, :3] * np.float32(opacity) + np.float32(0.5), 255.0).astype(np.uint8)
    return result


def _visible_triangles(
    vertices: NDArray[np.float64],
    faces: NDArray[Any],
    camera: NDArray[np.float64],
    palette: NDArray[np.float64],
    size: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.uint8]]:
    """Select, order and colour what is to be drawn.

    Args:
        vertices: (N,V,3) metres, camera coordinates.
        faces: (F,3).
        camera: (3,3).
        palette: (N,3) BGR 0..255.
        size: Image width and height in pixels.

    Returns:
        (T,3,2) corners in continuous pixels, (T,) their order from far to near, (T,4) BGR and a full coverage of 255.
    """
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]] = []
    for person, color in zip(vertices, palette, strict=True):
        depth = person[:, 2]
        usable = np.isfinite(person).all(axis=1) & (depth >= NEAR)
        points = np.where(usable[:, None], person, (0.0, 0.0, 1.0))
        projected = points @ camera.T
        uv = np.clip(projected[:, :2] / projected[:, 2:], -_FAR_AWAY, _FAR_AWAY)
        corners = uv[faces]
        edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        front = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0] < 0
        reaches = ((corners.max(axis=1) > 0) & (corners.min(axis=1) < size)).all(axis=1)
        keep = np.flatnonzero(front & reaches & usable[faces].all(axis=1))
        if not len(keep):
            continue
        normals = vertex_normals(points, faces)
        # The headlight is at the camera, the origin: light and view direction are the same.
        facing = -np.einsum("vc,vc->v", normals, points) / np.linalg.norm(points, axis=1)
        light = _AMBIENT + (1.0 - _AMBIENT) * np.clip(facing, 0.0, 1.0)
        visible = faces[keep]
        parts.append((corners[keep], depth[visible].mean(axis=1), light[visible].mean(axis=1)[:, None] * color))
    if not parts:
        return np.zeros((0, 3, 2)), np.zeros(0, np.intp), np.zeros((0, 4), np.uint8)
    pixels, depths, bgr = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Stable: triangles at one distance keep the order of persons and faces, so the result is the same every time.
    order = np.argsort(-depths, kind="stable")
    shades = np.concatenate([np.rint(bgr), np.full((len(bgr), 1), 255.0)], axis=1).astype(np.uint8)
    return pixels, order, shades


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
        raise InputError("Cannot draw on this image.", why=f"It is {image.dtype} {image.shape}, not uint8 (H,W,3).")
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        why = f"Vertices are {vertices.shape}, not (N,V,3), or faces are {faces.shape}, not (F,3)."
        raise InputError("Cannot draw these meshes.", why=why)
    if faces.size and (faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= vertices.shape[1]):
        why = f"Faces are {faces.dtype} and must be vertex numbers from 0 to {vertices.shape[1] - 1}."
        raise InputError("Cannot draw these meshes.", why=why)
    if camera.shape != (3, 3) or not np.isfinite(camera).all():
        raise InputError("Cannot use this camera.", why="The intrinsics matrix must be (3,3) and finite.")
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"Cannot draw with opacity {opacity}.", fix="Give a number from 0 to 1.")
    count = len(vertices)
    if colors is None:
        return camera, np.array([DEFAULT_COLORS[i % len(DEFAULT_COLORS)] for i in range(count)], np.float64).reshape(-1, 3)
    palette = np.asarray(colors, np.float64)
    if palette.shape != (count, 3) or not ((palette >= 0) & (palette <= 255)).all():
        raise InputError("Cannot use these colours.", why=f"{count} BGR triples from 0 to 255 are needed.")
    return camera, palette
