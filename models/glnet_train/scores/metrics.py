"""Metrics of recovered bodies: errors of keypoints per crop, COCO's keypoint precision, and tables of all metrics.

Everything is computed in float64 without gradients. A crop that has nothing to be measured by gets NaN, which
:class:`Scores` leaves out of its means.

Errors in space are those of :mod:`glnet.position_errors`. On 3DPW and Human3.6M they are taken over :data:`LSP_JOINTS` of
the 17 joints that the Human3.6M regressor makes of the mesh, rooted at its pelvis. PVE aligns vertices by that pelvis.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from glnet.position_errors import weighted_mean

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
    return weighted_mean(torch.linalg.vector_norm(found.double() - truth.double(), dim=-1), visible)


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
    return weighted_mean(similarity, visible > 0)


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
    precision, recall = _precisions(similarities[None], scores[None])
    return KeypointPrecision(
        ap=precision.mean().item(),
        ap50=precision[0, 0].item(),
        ap75=precision[0, 5].item(),
        ar=recall.mean().item(),
    )


@torch.no_grad()
def mean_precisions(similarities: Float[Tensor, "r n"], scores: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """The ``ap`` of :func:`average_precision` of several sets of persons, such as resamples."""
    return _precisions(similarities, scores)[0].mean(1)


def _precisions(similarities: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Average precision and highest recall of R sets, each R x thresholds; NaN where there is nobody to be found."""
    order = torch.argsort(scores.double(), dim=1, descending=True, stable=True)
    # Who is left out adds neither a hit nor an estimate; one more, so that no set is empty.
    ranked = torch.nn.functional.pad(similarities.double().gather(1, order), (0, 1), value=math.nan)
    estimates = (~ranked.isnan()).double().cumsum(1).unsqueeze(1)
    people = estimates[..., -1:]
    # A perfect estimate may fall short of 1 by rounding: COCO's tolerance.
    thresholds = torch.tensor(OKS_THRESHOLDS, dtype=torch.float64, device=ranked.device).clamp_max(1 - 1e-10)
    hits = (ranked.unsqueeze(1) >= thresholds[:, None]).double().cumsum(2)
    recall = hits / people
    precision = hits / (estimates + torch.finfo(torch.float64).eps)
    envelope = precision.flip(2).cummax(2).values.flip(2)
    # Beyond the highest recall that is reached, the precision is zero.
    envelope = torch.nn.functional.pad(envelope, (0, 1))
    wanted = torch.linspace(0, 1, RECALLS, dtype=torch.float64, device=ranked.device)
    wanted = wanted.expand(*recall.shape[:2], -1).contiguous()
    by_threshold = envelope.gather(2, torch.searchsorted(recall.contiguous(), wanted)).mean(2)
    nobody = people[..., 0] == 0
    return by_threshold.masked_fill(nobody, math.nan), recall[..., -1]


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
