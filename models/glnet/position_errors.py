"""Errors of joints and vertices in space, one value per crop, so that callers can average, sort and pick crops.

Positions go in as metres, errors come out as millimetres. Everything is computed in float64 without gradients. A crop that
has nothing to be measured by gets NaN.

Protocols of the field (HybrIK's evaluation code): MPJPE aligns found and true joints at the root and nothing else.
PA-MPJPE aligns them by the best similarity (Procrustes analysis: rotation, translation and scale, no reflection).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_MM = 1000.0


def weighted_mean(values: Float[Tensor, "n j"], weights: Tensor | None) -> Float[Tensor, " n"]:
    """Means over the entries that have weight; NaN where none has."""
    if weights is None:
        return values.mean(1)
    weights = weights.to(values)
    # What is not labelled may hold anything, NaN included, and must not reach the sum.
    return torch.where(weights > 0, values * weights, 0).sum(1) / weights.sum(1)


def _select(values: Tensor, joints: Sequence[int] | None) -> Tensor:
    return values if joints is None else values[:, list(joints)]


@torch.no_grad()
def mpjpe(
    found: Float[Tensor, "n j 3"],
    truth: Float[Tensor, "n j 3"],
    *,
    root: int | None = 0,
    joints: Sequence[int] | None = None,
    weights: Float[Tensor, "n j"] | None = None,
) -> Float[Tensor, " n"]:
    """Mean per-joint position error after aligning the roots.

    Args:
        found: Recovered joints, metres, camera axes.
        truth: True joints, metres, camera axes.
        root: The joint that is put into the origin in both; None where that has been done.
        joints: Joints to average over, chosen after the alignment; None for all.
        weights: Zero for joints without a label. The root must have one. Refers to all joints, before the choice.

    Returns:
        Millimetres, one value per crop.
    """
    found, truth = found.double(), truth.double()
    if root is not None:
        found, truth = found - found[:, root : root + 1], truth - truth[:, root : root + 1]
    errors = torch.linalg.vector_norm(_select(found, joints) - _select(truth, joints), dim=-1)
    return _MM * weighted_mean(errors, None if weights is None else _select(weights, joints))


@torch.no_grad()
def procrustes(
    found: Float[Tensor, "n j 3"], truth: Float[Tensor, "n j 3"], weights: Float[Tensor, "n j"] | None = None
) -> Float[Tensor, "n j 3"]:
    """``found`` under the rotation, translation and scale that bring it closest to ``truth`` in the least-squares sense.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991. Reflections
    are excluded: a mirrored body is wrong. Where all found points coincide, they are put into the truth's middle.
    """
    found, truth = found.double(), truth.double()
    weights = torch.ones_like(found[..., 0]) if weights is None else weights.double()
    known = weights.unsqueeze(-1) > 0
    share = (weights / weights.sum(1, keepdim=True)).unsqueeze(-1)
    clean_found, clean_truth = torch.where(known, found, 0), torch.where(known, truth, 0)
    middle_found, middle_truth = (share * clean_found).sum(1, keepdim=True), (share * clean_truth).sum(1, keepdim=True)
    centred, target = found - middle_found, truth - middle_truth
    clean, clean_target = torch.where(known, centred, 0), torch.where(known, target, 0)
    covariance = (share * clean_target).transpose(1, 2) @ clean
    left, stretch, right = torch.linalg.svd(torch.nan_to_num(covariance))
    signs = torch.ones_like(stretch)
    signs[:, 2] = torch.where(torch.linalg.det(left) * torch.linalg.det(right) < 0, -1.0, 1.0)
    rotation = left @ (signs.unsqueeze(-1) * right)
    spread = (share * clean.square()).sum((1, 2))
    scale = torch.where(spread > 0, (stretch * signs).sum(1) / spread.clamp_min(torch.finfo(spread.dtype).tiny), 0)
    aligned: Tensor = scale[:, None, None] * (centred @ rotation.transpose(1, 2)) + middle_truth
    return aligned


@torch.no_grad()
def pa_mpjpe(
    found: Float[Tensor, "n j 3"],
    truth: Float[Tensor, "n j 3"],
    *,
    joints: Sequence[int] | None = None,
    weights: Float[Tensor, "n j"] | None = None,
) -> Float[Tensor, " n"]:
    """Mean per-joint position error of each crop after :func:`procrustes` alignment.

    Args:
        found: Recovered joints, metres.
        truth: True joints, metres.
        joints: Joints to align and average over; None for all.
        weights: Zero for joints without a label; refers to all joints.

    Returns:
        Millimetres, one value per crop.
    """
    found, truth = _select(found, joints), _select(truth, joints)
    weights = None if weights is None else _select(weights, joints)
    errors = torch.linalg.vector_norm(procrustes(found, truth, weights) - truth.double(), dim=-1)
    return _MM * weighted_mean(errors, weights)


@torch.no_grad()
def pve(
    found: Float[Tensor, "n v 3"],
    truth: Float[Tensor, "n v 3"],
    found_root: Float[Tensor, "n 3"],
    truth_root: Float[Tensor, "n 3"],
) -> Float[Tensor, " n"]:
    """Per-vertex error after aligning the roots.

    Args:
        found: Recovered vertices, metres, camera axes.
        truth: True vertices of the same topology.
        found_root: Root of the recovered body: the pelvis joint, or the regressed pelvis on 3DPW.
        truth_root: The same joint of the true body.

    Returns:
        Millimetres, one value per crop.
    """
    difference = (found.double() - found_root.double()[:, None]) - (truth.double() - truth_root.double()[:, None])
    errors: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return _MM * errors.mean(1)
