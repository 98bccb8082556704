"""The choice of pixels that answer for a person: static matching, around the root, and the poster's dynamic matching.

There is one person per crop, so matching does not need the Hungarian algorithm: the N pixels of lowest cost are positive,
all others negative. Costs come from the current predictions, and no gradient passes through them.

Dynamic matching alone makes the best of all pixels better, and the chosen one worse: pixels come to answer differently
where a crop has several readings, and no score can say which one is true. So a training begins with static matching, and
the confidence weighs in the cost. In MPJPE that equals static matching, in keypoints it does not quite. The measurements:
``benchmarks/results/notebook.md``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from glnet_infer.errors import InputError
from glnet_render.targets import Targets

COSTS = ("keypoints", "keypoints+depth", "keypoints+depth+rotation")
"""The choices of the poster's Table 6. The classification cost is part of each."""

WEIGHTS = {"keypoints": "keypoint_weights", "depths": "depth_weights", "rotation": "rotation_weights"}
"""For each part of the estimate, the name of its weights in the targets."""

LARGEST_COST = 1e6
"""Largest weight of the confidence in the cost: all else is forgotten then."""


@dataclass(frozen=True)
class Matching:
    """Choice of positive pixels.

    Attributes:
        static_share: Share of the training, its beginning, in which the pixels nearest to the root's true keypoint are
            positive; in the rest, those of lowest cost are (the poster's DMS). The poster's is 0.
        positives: Positive pixels per person; the poster tries 1, 10, 20, 50, 100, and its numbers match 20.
        costs: Costs beside the classification, one of :data:`COSTS`.
        alpha: Weight of the focal term (Lin et al., "Focal Loss", 2017). The poster names it, its value is chosen here.
        beta: Exponent of the focal term. The poster names it, its value is chosen here.
        confidence_cost: Weight of the focal term in the cost. The poster's is 1.
    """

    static_share: float = 0.5
    positives: int = 20
    costs: str = "keypoints"
    alpha: float = 0.25
    beta: float = 2.0
    confidence_cost: float = 8.0

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts of an estimate that are compared, the first ones of its vector."""
        return ("keypoints", "depths", "rotation")[: COSTS.index(self.costs) + 1]

    def __post_init__(self) -> None:
        if self.costs not in COSTS:
            raise InputError(f"There are no matching costs {self.costs!r}.", fix=f"choose one of {', '.join(COSTS)}")
        if not 0 <= self.static_share <= 1:
            raise InputError(f"The share of static matching is {self.static_share}.", fix="give a number from 0 to 1")
        if not 0 <= self.confidence_cost <= LARGEST_COST:
            raise InputError(
                f"The confidence's weight in the matching cost is {self.confidence_cost}.",
                fix=f"give a number from 0 to {LARGEST_COST:,.0f}",
            )
        if self.positives < 1:
            raise InputError(f"{self.positives} positives per person cannot be trained.", fix="use 1 or more")

    def is_static(self, done: float) -> bool:
        """Whether matching is static when a share of the training is done, 0 to below 1."""
        return done < self.static_share


def positives(
    logits: Float[Tensor, "n h w"],
    estimates: Float[Tensor, "n h*w p"] | None,
    targets: Targets,
    matching: Matching,
) -> Int[Tensor, "n k"]:
    """Each crop's positive pixels as ``y * grid + x``, all distinct.

    Args:
        logits: Confidences of all pixels before the sigmoid.
        estimates: Estimates of all pixels, at least their :attr:`Matching.components`; None for static matching.
        targets: The labels.
        matching: Choice of positive pixels.
    """
    with torch.no_grad():
        if estimates is None:
            costs = _distances_to_root(logits, targets)
        else:
            costs = matching_costs(logits, estimates, targets, matching)
        return costs.topk(matching.positives, dim=1, largest=False).indices


def matching_costs(
    logits: Float[Tensor, "n h w"],
    estimates: Float[Tensor, "n h*w p"],
    targets: Targets,
    matching: Matching,
) -> Float[Tensor, "n h*w"]:
    """The poster's L_match of every pixel: weighted focal term of its confidence, and error of its estimate's components.

    Components are sums over their values, as DETR sums box errors, scaled to what they would be were all labels known:
    so a person with few visible joints weighs confidence and keypoints alike.
    """
    logits = logits.flatten(1)
    cost = (
        -matching.confidence_cost
        * matching.alpha
        * logits.sigmoid().neg().add(1).pow(matching.beta)
        * functional.logsigmoid(logits)
    )
    first = 0
    for name in matching.components:
        truth, known = getattr(targets.estimate, name).flatten(1), getattr(targets, WEIGHTS[name])
        found = estimates[..., first : first + truth.shape[1]]
        first += truth.shape[1]
        weights = known * (known.shape[1] / known.sum(1, keepdim=True).clamp_min(1e-6))
        weights = weights.repeat_interleave(truth.shape[1] // known.shape[1], dim=1).unsqueeze(1)
        cost = cost + torch.cdist(found * weights, truth.unsqueeze(1) * weights, p=1).squeeze(2)
    return cost


def _distances_to_root(logits: Tensor, targets: Targets) -> Float[Tensor, "n h*w"]:
    """Squared distance of every pixel to the root, or to the person's middle where it is unknown, in grid cells."""
    grid = logits.shape[-1]
    cells = torch.arange(grid, device=logits.device)
    keypoints, weights = targets.estimate.keypoints, targets.keypoint_weights.unsqueeze(-1)
    # Without a label of the root, the middle of the labelled keypoints; without any, the crop's.
    middle = (keypoints * weights).sum(1) / weights.sum(1).clamp_min(1e-6)
    root = torch.where(weights[:, 0] > 0, keypoints[:, 0], middle)
    root = (root + 0.5) * grid - 0.5
    dx, dy = cells - root[:, :1], cells - root[:, 1:]
    return (dy.square()[:, :, None] + dx.square()[:, None, :]).flatten(1)
