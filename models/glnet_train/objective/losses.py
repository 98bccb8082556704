"""The poster's training objective: L_all = λ_cls L_cls + λ_2D L_2D + λ_3D L_3D, the latter two on positive pixels only.

The poster gives the sum and the matching, not the parts' forms or weights; these follow HybrIK (Li et al., CVPR 2021),
whose estimate this is: L1 on keypoints and depths, squared errors on twists, shape, rotation matrices and scale. Depths
weigh as if they were measured in 48ths of their range, and keypoints so that a millimetre in the image counts as much as
one in depth, for a person of usual size in the crop (0.57 crop sides a metre).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glnet.decoding import Decoder
from glnet.estimate import Estimate
from glnet.network import GLNet, Prediction
from glnet_infer.errors import InputError
from glnet_render.targets import Targets
from glnet_train.objective.matching import Matching, positives


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms.

    Attributes:
        confidence: Focal loss over all pixels, λ_cls.
        keypoints: Errors of keypoints at positive pixels, per crop side, λ_2D.
        depths: Errors of depths, per ``depth_range``; part of λ_3D, as all up to ``pose``.
        twists: Errors of twists or 6D rotations.
        betas: Errors of the shape.
        scale: Errors of the scale.
        pose: Errors of local rotation matrices after the kinematics.
        coarse: All regression terms of the coarse estimate, which nothing else would hold.
        guidance: All terms of the guidance (:mod:`glnet_train.objective.guidance`).
    """

    confidence: float = 1.0
    keypoints: float = 76.0
    depths: float = 48.0
    twists: float = 1.0
    betas: float = 0.1
    scale: float = 1.0
    pose: float = 0.1
    coarse: float = 1.0
    guidance: float = 1.0


def weighted_mean(errors: Float[Tensor, "..."], weights: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of the errors whose label is known; zero, with a gradient of zero, where none is."""
    return (errors * weights).sum() / weights.sum().clamp_min(1e-6)


def focal_loss(logits: Float[Tensor, "n h w"], index: Int[Tensor, "n p"], alpha: float, beta: float) -> Float[Tensor, ""]:
    """Sigmoid focal loss over all pixels, per positive (Lin et al., "Focal Loss for Dense Object Detection", 2017)."""
    flat = logits.flatten(1)
    labels = torch.zeros_like(flat).scatter(1, index, 1.0)
    probability = flat.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(flat, labels, reduction="none")
    missed = labels * (1 - probability) + (1 - labels) * probability
    balance = labels * alpha + (1 - labels) * (1 - alpha)
    return (balance * missed.pow(beta) * entropy).sum() / index.numel()


class Objective(nn.Module):
    """L_all of a batch, and the guidance where there is one.

    Args:
        network: The network that is trained.
        decoder: Gives the rotation matrices of the pose term.
        matching: Choice of positive pixels.
        weights: Weights of the terms.
        guidance: Training-only heads (:class:`glnet_train.objective.guidance.Guidance`), judged on the same positives.
    """

    def __init__(
        self,
        network: GLNet,
        decoder: Decoder,
        matching: Matching,
        weights: LossWeights,
        guidance: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.layout = network.layout
        self.decoder = decoder
        self.matching = matching
        if matching.positives > network.config.grid**2:
            raise InputError(
                f"{matching.positives} positives per person cannot be trained.",
                why=f"the network has {network.config.grid} x {network.config.grid} pixels",
                fix="use fewer positives, or larger crops",
            )
        self.compared = sum(self.layout.sizes[: len(matching.components)])
        self.weights = weights
        self.guidance = guidance

    def forward(self, prediction: Prediction, targets: Targets, done: float) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms by name; their sum is the loss.

        Args:
            prediction: What the network predicts.
            targets: The labels.
            done: Share of the training that is done, 0 to below 1.
        """
        static = self.matching.is_static(done)
        with torch.no_grad():
            estimates = None if static else self.network.all_estimates(prediction, self.compared)
        index = positives(prediction.logits, estimates, targets, self.matching)
        refined = self.layout.split(self.network.estimates(prediction, index))
        coarse = self.layout.split(prediction.coarse[:, None])
        weights = self.weights
        terms = {
            "confidence": weights.confidence * focal_loss(prediction.logits, index, self.matching.alpha, self.matching.beta)
        }
        for name, value in self._regression(refined, targets).items():
            terms[name] = value
        for name, value in self._regression(coarse, targets).items():
            terms[f"coarse {name}"] = weights.coarse * value
        if self.guidance is not None:
            for name, value in self.guidance(prediction, targets, index).items():
                terms[name] = weights.guidance * value
        return terms

    def _regression(self, estimate: Estimate, targets: Targets) -> dict[str, Tensor]:
        """Weighted regression terms of N x P estimates."""
        truth, weights = targets.estimate, self.weights

        def term(error: Tensor, known: Tensor) -> Tensor:
            return weighted_mean(error, known[:, None].expand(error.shape))

        return {
            "keypoints": weights.keypoints
            * term((estimate.keypoints - truth.keypoints[:, None]).abs().mean(-1), targets.keypoint_weights),
            "depths": weights.depths * term((estimate.depths - truth.depths[:, None]).abs(), targets.depth_weights),
            "twists": weights.twists
            * term((estimate.rotation - truth.rotation[:, None]).square().mean(-1), targets.rotation_weights),
            "betas": weights.betas
            * term((estimate.betas - truth.betas[:, None]).square().mean(-1, keepdim=True), targets.shape_weights),
            "scale": weights.scale * term((estimate.scale - truth.scale[:, None]).square(), targets.scale_weights),
            "pose": weights.pose * self._pose_error(estimate, targets),
        }

    def _pose_error(self, estimate: Estimate, targets: Targets) -> Tensor:
        """Mean squared error of local rotation matrices, decoded from every estimate."""
        count, each = estimate.scale.shape[:2]
        flat = Estimate(*(part.flatten(0, 1) for part in estimate))
        cameras = targets.cameras.repeat_interleave(each, 0)
        local = self.decoder.pose(flat, cameras)
        error = (local.unflatten(0, (count, each)) - targets.rotations[:, None]).square().mean((-2, -1))
        return weighted_mean(error, targets.pose_weights[:, None].expand(error.shape))
