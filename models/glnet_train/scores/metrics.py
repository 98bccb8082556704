"""Metrics of recovered bodies: joint, vertex and keypoint errors per crop, and COCO's keypoint precision.

Positions go in as metres, errors come out as millimetres, one value per crop, so that callers can average, sort and pick
crops. Everything is computed in float64 without gradients. A crop that has nothing to be measured by gets NaN, which
:class:`Scores` leaves out of its means.

Protocols of the field (HybrIK's evaluation code): MPJPE aligns found and true joints at the root and nothing else.
PA-MPJPE aligns them by the best similarity (Procrustes analysis: rotation, translation and scale, no reflection). On 3DPW
and Human3.6M both are taken over :data:`LSP_JOINTS` of the 17 joints that the Human3.6M regressor makes of the mesh, rooted
at its pelvis. PVE aligns vertices by the same pelvis.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LSP_JOINTS = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 joints that 3DPW and Human3.6M are scored on, among the 17 of the Human3.6M regressor (HybrIK's order)."""

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Scatter of annotators per COCO keypoint, relative to the person's size (pycocotools)."""

OKS_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
RECALLS = 101
"""Points of the precision-recall curve that COCO averages, from recall 0 to 1."""

METRIC_ORDER = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "keypoint_px", "oks")
"""Metrics that :class:`Scores` takes per crop, in the order in which they are reported."""

_MM = 1000.0


def _weighted_mean(values: Float[Tensor, "n j"], weights: Tensor | None) -> Float[Tensor, " n"]:
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
    return _MM * _weighted_mean(errors, None if weights is None else _select(weights, joints))


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
    return _MM * _weighted_mean(errors, weights)


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


@torch.no_grad()
def keypoint_error(
    found: Float[Tensor, "n k 2"], truth: Float[Tensor, "n k 2"], visible: Float[Tensor, "n k"] | None = None
) -> Float[Tensor, " n"]:
    """Mean distance of keypoints in the image.

    Args:
        found: Recovered keypoints in pixels of crop or image; the errors have the same unit.
        truth: True keypoints in the same pixels.
        visible: Zero or false for keypoints that do not count.

    Returns:
        Pixels, one value per crop; NaN where no keypoint counts.
    """
    return _weighted_mean(torch.linalg.vector_norm(found.double() - truth.double(), dim=-1), visible)


@torch.no_grad()
def oks(
    found: Float[Tensor, "n k 2"],
    truth: Float[Tensor, "n k 2"],
    visible: Float[Tensor, "n k"],
    area: Float[Tensor, " n"],
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> Float[Tensor, " n"]:
    """COCO's object keypoint similarity.

    Args:
        found: Keypoints in image pixels.
        truth: Annotated keypoints in image pixels.
        visible: Positive for keypoints that are annotated (COCO's flags 1 and 2 both are).
        area: The person's area in square pixels; COCO's annotations give that of the segmentation.
        sigmas: Scatter of each keypoint.

    Returns:
        0 to 1, one value per person; NaN for persons without annotated keypoints, which COCO ignores.
    """
    spread = 2 * torch.tensor(sigmas, dtype=torch.float64, device=found.device)
    distance = (found.double() - truth.double()).square().sum(-1)
    similarity = torch.exp(-distance / spread.square() / (area.double()[:, None] + torch.finfo(torch.float64).eps) / 2)
    return _weighted_mean(similarity, visible > 0)


class KeypointPrecision(NamedTuple):
    """COCO's summary: mean over thresholds, the thresholds 0.50 and 0.75, and the mean recall. All from 0 to 1."""

    ap: float
    ap50: float
    ap75: float
    ar: float


@torch.no_grad()
def average_precision(similarities: Float[Tensor, " n"], scores: Float[Tensor, " n"]) -> KeypointPrecision:
    """Average precision over OKS thresholds 0.50 to 0.95, as COCO's evaluation computes it.

    Top-down with given boxes: person i has exactly one estimate. So there is no assignment to search, and every estimate
    below the threshold is one false positive and one person missed. Persons without annotated keypoints (NaN) are left out
    together with their estimates; COCO does the same unless such an estimate lies far outside the person's box. (COCO also
    overlooks wrong estimates that span more than 100,000 pixels squared; here they count.)

    Args:
        similarities: :func:`oks` of each person's estimate.
        scores: Confidence of each estimate; only their order matters, and of equal ones the earlier comes first.

    Returns:
        Precision and recall; NaN where there is nobody to be found.
    """
    counted = ~similarities.isnan()
    similarities, scores = similarities[counted].double(), scores[counted].double()
    people = len(similarities)
    if people == 0:
        return KeypointPrecision(*[math.nan] * 4)
    ranked = similarities[torch.argsort(scores, descending=True, stable=True)]
    # A perfect estimate may fall short of 1 by rounding: COCO's tolerance.
    thresholds = torch.tensor(OKS_THRESHOLDS, dtype=torch.float64, device=ranked.device).clamp_max(1 - 1e-10)
    hits = (ranked >= thresholds[:, None]).double().cumsum(1)
    recall = hits / people
    estimates = torch.arange(1, people + 1, device=ranked.device, dtype=torch.float64)
    precision = hits / (estimates + torch.finfo(torch.float64).eps)
    envelope = precision.flip(1).cummax(1).values.flip(1)
    # Beyond the highest recall that is reached, the precision is zero.
    envelope = torch.nn.functional.pad(envelope, (0, 1))
    wanted = torch.linspace(0, 1, RECALLS, dtype=torch.float64, device=ranked.device).expand(len(thresholds), -1)
    by_threshold = envelope.gather(1, torch.searchsorted(recall, wanted.contiguous())).mean(1)
    return KeypointPrecision(
        ap=by_threshold.mean().item(),
        ap50=by_threshold[0].item(),
        ap75=by_threshold[5].item(),
        ar=recall[:, -1].mean().item(),
    )


@dataclass(frozen=True)
class MetricSummary:
    """Means over a set of crops, with the units in the names.

    Attributes:
        crops: Number of crops that were scored.
        values: Name and mean, in the order of :data:`METRIC_ORDER`, COCO's precision last.
    """

    crops: int
    values: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, float]:
        """The number of crops and all means by name, in order, for JSON."""
        return {"crops": self.crops, **dict(self.values)}

    def __str__(self) -> str:
        return "  ".join([f"{self.crops} crops", *(f"{name} {value:.4g}" for name, value in self.values)])


class Scores:
    """Collects metrics crop by crop, and gives their means.

    Every crop's value is kept: precision needs them all together, and the best, median and worst crops are worth a look.
    Crops must come in the same order in every metric.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, *, confidence: Float[Tensor, " n"] | None = None, **metrics: Float[Tensor, " n"]) -> None:
        """Add a batch of crops.

        Args:
            confidence: The network's score of each crop. Together with ``oks`` it gives COCO's precision.
            **metrics: Any of :data:`METRIC_ORDER`, the same ones every time.

        Raises:
            ValueError: A name is unknown, or the metrics differ in number from each other or in name from earlier batches.
        """
        given = metrics if confidence is None else {**metrics, "confidence": confidence}
        unknown = set(metrics) - set(METRIC_ORDER)
        if unknown:
            raise ValueError(f"unknown metrics {sorted(unknown)}; there are {', '.join(METRIC_ORDER)}")
        if self._parts and set(given) != set(self._parts):
            raise ValueError(f"earlier batches had {sorted(self._parts)}, this one has {sorted(given)}")
        if len({tuple(values.shape) for values in given.values()}) > 1 or any(v.ndim != 1 for v in given.values()):
            raise ValueError("every metric has one value per crop")
        for name, values in given.items():
            self._parts.setdefault(name, []).append(values.detach().double().cpu())

    def extend(self, others: Iterable["Scores"]) -> None:
        """Append other collections, such as those of other processes, in their order."""
        for other in others:
            if other._parts:
                values = {name: other.values(name) for name in other._parts}
                self.add(**values)

    def values(self, name: str) -> Float[Tensor, " n"]:
        """A metric of every crop, in the order of addition."""
        return torch.cat(self._parts[name])

    def counts(self) -> dict[str, int]:
        """Number of crops that each metric could be measured on, by name."""
        return {name: int((~self.values(name).isnan()).sum()) for name in METRIC_ORDER if name in self._parts}

    def summary(self) -> MetricSummary:
        """Means over the crops that each metric could be measured on (NaN where that is none)."""
        values = [(name, self.values(name).nanmean().item()) for name in METRIC_ORDER if name in self._parts]
        if {"oks", "confidence"} <= self._parts.keys():
            precision = average_precision(self.values("oks"), self.values("confidence"))
            values += [(f"coco_{name}", value) for name, value in precision._asdict().items()]
        crops = sum(len(part) for part in next(iter(self._parts.values()), []))
        return MetricSummary(crops, tuple(values))
