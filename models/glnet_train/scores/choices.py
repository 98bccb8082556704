"""What a network could have answered: scores of other pixels than the most confident one, on held-out rendered crops."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glnet.body.smpl import Body
from glnet.decoding import GLNetRecovery
from glnet.network import GLNet, Prediction
from glnet_infer.skeleton import SKELETON_JOINTS
from glnet_render import SyntheticSource
from glnet_render.seeds import HELD_OUT
from glnet_render.spread import SCORED, Spread
from glnet_train.scores.metrics import Scores, keypoint_error
from glnet_train.scores.rendered import BATCH, errors, true_keypoints

SUREST = 20
"""Pixels whose mean is scored: as many as the poster has positives."""

CHOICES = {
    "chosen": "chosen pixel",
    "coarse": "coarse estimate",
    "root": "pixel at root",
    "best": "best pixel",
    "mean": "mean of surest",
}
"""What is scored, with titles."""


def score_choices(
    recovery: GLNetRecovery, body: Body, crops: int, seed: int = HELD_OUT, spread: Spread = SCORED
) -> dict[str, Scores]:
    """Score the answers that a network has for a crop, beside the one that it gives.

    They tell a network that sees too little from one that chooses badly. The third and the fourth need the truth.

    Args:
        recovery: The network, on any device.
        body: The body in the crops, on the CPU.
        crops: Number of crops.
        seed: Seed of the crops.
        spread: Spread of the crops.

    Returns:
        By :data:`CHOICES`: the most confident pixel, the coarse estimate, the pixel at the root joint, the pixel whose
        visible keypoints are nearest, and the mean of the :data:`SUREST` most confident pixels' estimates.
    """
    network = recovery.network
    device = network.coarse.weight.device
    source = SyntheticSource(body, recovery.crop, seed=seed, spread=spread)
    found = {name: Scores() for name in CHOICES}
    for start in range(0, crops, BATCH):
        sample = source.sample(min(BATCH, crops - start))
        truth = body.pose(sample.rotations, sample.betas)
        places = true_keypoints(truth, sample)
        with torch.no_grad():
            prediction = network(sample.crops.to(device))
            answers = _answers(network, prediction, places.to(device), sample.visibility.to(device))
            for name, vector in answers.items():
                estimate = network.layout.split(vector)
                decoded = recovery.decoder(estimate, sample.cameras.to(device))
                off = keypoint_error(estimate.keypoints[:, :SKELETON_JOINTS].cpu(), places, sample.visibility)
                found[name].add(
                    **errors(decoded.vertices.cpu(), decoded.joints.cpu(), truth), keypoint_px=off * recovery.crop.size
                )
    return found


def _answers(
    network: GLNet, prediction: Prediction, places: Float[Tensor, "n 29 2"], visible: Bool[Tensor, "n 29"]
) -> dict[str, Float[Tensor, "n p"]]:
    """Vectors of estimates, by :data:`CHOICES`."""
    confidence = prediction.logits.flatten(1)
    keypoints = network.all_estimates(prediction, 2 * SKELETON_JOINTS).unflatten(2, (SKELETON_JOINTS, 2))
    distances = torch.linalg.vector_norm(keypoints - places.unsqueeze(1), dim=-1)
    # Where nobody sees a joint, all of them say which pixel is best.
    counted = visible | ~visible.any(dim=1, keepdim=True)
    nearest = (distances * counted.unsqueeze(1)).sum(2).argmin(1)
    x, y = ((places[:, 0] + 0.5) * network.config.grid).long().clamp(0, network.config.grid - 1).unbind(1)
    surest = confidence.topk(min(SUREST, confidence.shape[1]), dim=1).indices
    pixels = {"chosen": surest[:, 0], "root": y * network.config.grid + x, "best": nearest}
    found = {name: network.estimates(prediction, index[:, None]).squeeze(1) for name, index in pixels.items()}
    found |= {"coarse": prediction.coarse, "mean": network.estimates(prediction, surest).mean(1)}
    return {name: found[name] for name in CHOICES}
