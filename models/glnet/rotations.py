"""Rotation matrices from the representations that networks regress, in closed form (no SVD, no inverse)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Constant:
    """A small matrix that is used where tensors are: on a GPU it is copied once.

    A copy at every use would wait for the GPU, and could not be captured in a CUDA graph. What is compiled holds the copies
    that were made before: call a module once before it is compiled.
    """

    def __init__(self, rows: Sequence[Sequence[float]] | Sequence[float]) -> None:
        self._matrix = torch.tensor(rows, dtype=torch.float64)
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """The matrix on a tensor's device, of its type."""
        if tensor.device.type == "cpu":
            return self._matrix.to(tensor)
        key = tensor.device, tensor.dtype
        copy = self._copies.get(key)
        if copy is None:
            if torch.compiler.is_compiling():  # tracing puts stand-ins in place of tensors: they must not be kept
                return self._matrix.to(tensor)
            with torch.inference_mode(False):  # else no gradient could ever pass by it
                copy = self._copies[key] = self._matrix.to(tensor)
        return copy


_GENERATORS = Constant([[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]])
"""Row i holds the cross-product matrix of the i-th axis, flattened."""


def length(vectors: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Euclidean length along a dimension, which is kept; its gradient at zero is zero."""
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return norm


def normalize(vectors: Float[Tensor, "... d"], minimum: float = 1e-8) -> Float[Tensor, "... d"]:
    """Scale vectors to unit length; shorter than ``minimum`` they only grow, so that zero stays zero and finite."""
    return vectors / length(vectors).clamp_min(minimum)


def skew(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Cross-product matrices: ``skew(v) @ w == cross(v, w)``."""
    matrices: Tensor = (vectors @ _GENERATORS.like(vectors)).unflatten(-1, (3, 3))
    return matrices


def cross(a: Float[Tensor, "... 3"], b: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Cross product as one product with a matrix, which exports as two nodes instead of a dozen."""
    return (skew(a) @ b.unsqueeze(-1)).squeeze(-1)


def outer(a: Float[Tensor, "... 3"], b: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Outer products ``a bᵀ``."""
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def rotation_about_axis(
    axes: Float[Tensor, "... 3"], cosine: Float[Tensor, "..."], sine: Float[Tensor, "..."]
) -> Float[Tensor, "... 3 3"]:
    """Rodrigues' formula for unit axes and an angle given by its cosine and sine."""
    identity = torch.eye(3, dtype=axes.dtype, device=axes.device)
    cosine, sine = cosine[..., None, None], sine[..., None, None]
    return cosine * identity + sine * skew(axes) + (1 - cosine) * outer(axes, axes)


def rotation_from_vector(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Rotation matrices of axis-angle vectors (radians), SMPL's pose parameters."""
    angle = (vectors * vectors).sum(-1).clamp_min(1e-16).sqrt()
    return rotation_about_axis(vectors / angle[..., None], angle.cos(), angle.sin())


def rotation_from_6d(vectors: Float[Tensor, "... 6"]) -> Float[Tensor, "... 3 3"]:
    """Gram-Schmidt on the first two columns (Zhou et al., "On the Continuity of Rotation Representations", CVPR 2019)."""
    first, second = vectors[..., :3], vectors[..., 3:]
    x = normalize(first)
    y = normalize(second - (x * second).sum(-1, keepdim=True) * x)
    return torch.stack([x, y, cross(x, y)], dim=-1)


def rotation_to_6d(rotations: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 6"]:
    """The first two columns, the inverse of :func:`rotation_from_6d`."""
    return torch.cat([rotations[..., 0], rotations[..., 1]], dim=-1)


def rotation_angle(first: Float[Tensor, "... 3 3"], second: Float[Tensor, "... 3 3"]) -> Float[Tensor, "..."]:
    """Angle between rotations, in degrees; exact for small angles too, where the arc cosine of the trace is not."""
    # |A - B|_F = 2 sqrt(2) sin(angle / 2)
    chord = (first - second).square().sum((-2, -1)).sqrt() / (2 * 2**0.5)
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1)))
