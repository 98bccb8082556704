"""Scores on held-out synthetic crops, of anything that runs the graph: a checkpoint in PyTorch, or an exported bundle."""

from typing import NamedTuple

import torch

from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.estimate import default_cameras
from glnet.recovery import DecodedBody, Decoder, Recovery, standing_estimate
from glnet.training.metrics import Scores, keypoint_error, mpjpe, pa_mpjpe, pve
from glnet.training.synthetic import SyntheticSample, SyntheticSource
from glnet_infer.backends import Backend

BATCH = 16

HELD_OUT_SEED = 1 << 40
"""Training draws its seeds from below."""


class Evaluation(NamedTuple):
    """Scores of the crops, and of answering every crop with the standing mean body."""

    scores: Scores
    baseline: Scores


def evaluate(backend: Backend, body: Body, crop_size: int, crops: int, seed: int = HELD_OUT_SEED) -> Evaluation:
    """Score a backend on crops of the full distribution.

    Args:
        backend: What runs the graph; its body must be ``body``.
        body: The body in the crops.
        crop_size: The network's.
        crops: How many.
        seed: Of the crops.
    """
    source = SyntheticSource(body, crop_size, seed=seed)
    standing = _standing(body)
    scores, baseline = Scores(), Scores()
    for start in range(0, crops, BATCH):
        sample = source.sample(min(BATCH, crops - start))
        outputs = backend.run(sample.crops.numpy(), sample.cameras.numpy())
        found = Recovery(*(torch.from_numpy(outputs[name]) for name in Recovery._fields))
        truth = body.pose(sample.rotations, sample.betas)
        _add(scores, found.vertices, found.joints, truth, sample, found.keypoints_2d, crop_size)
        count = len(sample.crops)
        everybody = (standing.vertices.expand(count, -1, -1), standing.joints.expand(count, -1, -1))
        _add(baseline, *everybody, truth, sample, None, crop_size)
    return Evaluation(scores, baseline)


def _standing(body: Body) -> DecodedBody:
    """The baseline: everybody has the mean shape and stands facing the camera."""
    config = GLNetConfig()
    decoder = Decoder(config, body)
    return decoder(standing_estimate(decoder, config.keypoints), default_cameras(1))


def _add(
    scores: Scores,
    vertices: torch.Tensor,
    joints: torch.Tensor,
    truth: tuple[torch.Tensor, torch.Tensor],
    sample: SyntheticSample,
    keypoints: torch.Tensor | None,
    crop_size: int,
) -> None:
    """Joints are SMPL's 24, rooted at the pelvis."""
    true_vertices, true_joints = truth
    metrics = {
        "mpjpe_mm": mpjpe(joints[:, :24], true_joints[:, :24]),
        "pa_mpjpe_mm": pa_mpjpe(joints[:, :24], true_joints[:, :24]),
        "pve_mm": pve(vertices, true_vertices, found_root=joints[:, 0], truth_root=true_joints[:, 0]),
    }
    if keypoints is not None:
        placed = true_joints + sample.translation.unsqueeze(1)
        seen = placed[..., :2] / placed[..., 2:] * sample.cameras[:, None, :2] + sample.cameras[:, None, 2:]
        metrics["keypoint_px"] = keypoint_error(keypoints[:, :29], (seen + 0.5) * crop_size, sample.visibility)
    scores.add(**metrics)
