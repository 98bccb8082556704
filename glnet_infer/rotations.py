"""Rotation matrices and rotation vectors in NumPy, for any leading dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def exponential(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Rotations about vectors, by their lengths in radians (Rodrigues' formula); ... x 3 to ... x 3 x 3."""
    vectors = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    # sin(a) / a and (1 - cos(a)) / a^2, both smooth at zero: NumPy's sinc is sin(pi x) / (pi x).
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def logarithm(rotations: NDArray[Any]) -> NDArray[np.float64]:
    """The shortest rotation vectors; ... x 3 x 3 to ... x 3, radians, at most pi long."""
    rotations = np.asarray(rotations, np.float64)
    trace = np.trace(rotations, axis1=-2, axis2=-1)
    skew = np.stack(
        [
            rotations[..., 2, 1] - rotations[..., 1, 2],
            rotations[..., 0, 2] - rotations[..., 2, 0],
            rotations[..., 1, 0] - rotations[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(skew, axis=-1) / 2
    angle = np.arctan2(sine, (trace - 1) / 2)
    ratio = 1 / (2 * np.maximum(np.sinc(angle / np.pi), 1e-12))  # a / (2 sin a)
    vectors = skew * ratio[..., None]
    # Near half a turn the skew part vanishes; the axis is then the largest column of the symmetric part.
    half = angle > np.pi - 1e-3
    if half.any():
        turned, cosine = rotations[half], np.cos(angle[half])[:, None, None]
        symmetric = (turned + np.swapaxes(turned, -1, -2)) / 2 - cosine * np.eye(3)
        best = np.argmax(np.diagonal(symmetric, axis1=-2, axis2=-1), axis=-1)
        axis = np.take_along_axis(symmetric, best[:, None, None], axis=-1)[..., 0]
        axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
        sign = np.where((axis * skew[half]).sum(-1) < 0, -1.0, 1.0)
        vectors[half] = axis * (sign * angle[half])[:, None]
    return np.asarray(vectors)


def between(first: NDArray[Any], second: NDArray[Any], share: float | NDArray[Any]) -> NDArray[np.float64]:
    """Rotations on the geodesic from one to another.

    Args:
        first: ... x 3 x 3.
        second: ... x 3 x 3.
        share: How far along the way, 0 to 1; a number, or one for each rotation.
    """
    way = logarithm(np.swapaxes(first, -1, -2) @ second)
    return np.asarray(first @ exponential(way * np.asarray(share)[..., None]))
