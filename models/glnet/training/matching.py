"""Which pixels are responsible for a person: the dynamic matching strategy, and the static one that it replaces.

There is one person per crop, so matching does not need the Hungarian algorithm: the N pixels of lowest cost are positive,
all others negative. Costs come from the current predictions and are no part of the gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from glnet.estimate import EstimateLayout
from glnet.network import Prediction
from glnet.training.targets import Targets
from glnet_infer.errors import CheckpointError

COSTS = ("keypoints", "keypoints+depth", "keypoints+depth+rotation")
"""The poster's Table 6; the classification cost is always there."""


@dataclass(frozen=True)
class Matching:
    """How positives are chosen.

    Attributes:
        dynamic: By cost (the poster's DMS); otherwise the pixels nearest to the root's true keypoint.
        positives: Pixels per person; the poster tries 1, 10, 20, 50, 100, and its numbers match 20.
        costs: What beside the classification enters, one of :data:`COSTS`.
        alpha: Weight of the focal term (Lin et al., "Focal Loss", 2017); the poster names it, its value is ours.
        beta: Exponent of the focal term, likewise.
    """

    dynamic: bool = True
    positives: int = 20
    costs: str = "keypoints"
    alpha: float = 0.25
    beta: float = 2.0

    def __post_init__(self) -> None:
        if self.costs not in COSTS:
            raise CheckpointError(f"There are no matching costs {self.costs!r}.", fix=f"choose one of {', '.join(COSTS)}")
        if self.positives < 1:
            raise CheckpointError(f"{self.positives} positives per person cannot be trained.", fix="use 1 or more")


def positives(prediction: Prediction, targets: Targets, layout: EstimateLayout, matching: Matching) -> Int[Tensor, "n p"]:
    """Flat indices of each crop's positive pixels, ``y * grid + x``, all distinct."""
    with torch.no_grad():
        if matching.dynamic:
            costs = matching_costs(prediction, targets, layout, matching)
        else:
            costs = _distances_to_root(prediction, targets)
        return costs.topk(matching.positives, dim=1, largest=False).indices


def matching_costs(
    prediction: Prediction, targets: Targets, layout: EstimateLayout, matching: Matching
) -> Float[Tensor, "n h*w"]:
    """The poster's L_match of every pixel: focal term of its confidence plus error of its estimate's 2D components.

    Components are sums over their values, as DETR sums box errors, scaled to what they would be were all labels known:
    so a person with few visible joints weighs confidence and keypoints alike.
    """
    logits = prediction.logits.flatten(1)
    cost = -matching.alpha * logits.sigmoid().neg().add(1).pow(matching.beta) * functional.logsigmoid(logits)
    estimate = layout.split(prediction.pixels.flatten(2).transpose(1, 2))
    truth = targets.estimate
    errors = [((estimate.keypoints - truth.keypoints[:, None]).abs().sum(-1), targets.keypoint_weights)]
    if "depth" in matching.costs:
        errors.append(((estimate.depths - truth.depths[:, None]).abs(), targets.depth_weights))
    if "rotation" in matching.costs:
        errors.append(((estimate.rotation - truth.rotation[:, None]).abs().sum(-1), targets.rotation_weights))
    for error, weights in errors:
        known = weights.sum(-1, keepdim=True)
        mean = (error * weights[:, None]).sum(-1) / known.clamp_min(1e-6)
        cost = cost + weights.shape[-1] * mean
    return cost


def _distances_to_root(prediction: Prediction, targets: Targets) -> Float[Tensor, "n h*w"]:
    """Squared distance of every pixel to the root's true keypoint, in grid cells."""
    grid = prediction.logits.shape[-1]
    cells = torch.arange(grid, device=prediction.logits.device)
    root = (targets.estimate.keypoints[:, 0] + 0.5) * grid - 0.5
    dx, dy = cells - root[:, :1], cells - root[:, 1:]
    return (dy.square()[:, :, None] + dx.square()[:, None, :]).flatten(1)
