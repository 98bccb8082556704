"""Scores on held-out rendered crops."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.decoding import DecodedBody, Decoder, standing_estimate
from glnet.estimate import default_cameras
from glnet.position_errors import mpjpe, pa_mpjpe, pve
from glnet.recovery import Recovery
from glnet_infer.backends import Backend
from glnet_infer.contract import CropSpec
from glnet_infer.skeleton import BODY_JOINTS
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.placement import project
from glnet_render.seeds import HELD_OUT
from glnet_render.spread import SCORED, Spread
from glnet_train.scores.answers import keypoint_scores, recovered
from glnet_train.scores.metrics import Scores

BATCH = 16

COVERED = 0.5
"""Share of its box that a person is taken to cover, for the similarity of keypoints. COCO has the segmentation's area."""


class Shown(NamedTuple):
    """Crops and the meshes that were recovered from them, for pictures.

    Attributes:
        crops: N x S x S x 3, RGB.
        cameras: N x 4, the cameras of the crops.
        vertices: N x V x 3, camera coordinates, metres.
    """

    crops: NDArray[np.uint8]
    cameras: NDArray[np.float32]
    vertices: NDArray[np.float32]


class Evaluation(NamedTuple):
    """Scores of a backend on rendered crops.

    Attributes:
        scores: Scores of the backend.
        baseline: Scores of answering every crop with the standing mean body.
        shown: The crops and the recovered meshes.
    """

    scores: Scores
    baseline: Scores
    shown: Shown


def evaluate(
    backend: Backend, body: Body, crop: CropSpec, crops: int, seed: int = HELD_OUT, spread: Spread = SCORED
) -> Evaluation:
    """Score a backend on rendered crops.

    Args:
        backend: Backend that runs the graph; its body must be ``body``.
        body: The body in the crops.
        crop: Size and padding of the network's crops.
        crops: Number of crops; their meshes are kept, 150 kB each.
        seed: Seed of the crops.
        spread: Spread of the crops. Scores of one spread do not compare with those of another.
    """
    source = SyntheticSource(body, crop, seed=seed, spread=spread)
    standing = _standing(body)
    scores, baseline, shown = Scores(), Scores(), []
    for start in range(0, crops, BATCH):
        sample = source.sample(min(BATCH, crops - start))
        arrays = sample.crops.numpy(), sample.cameras.numpy()
        found = recovered(backend, *arrays)
        shown.append(Shown(*arrays, found.vertices.numpy()))
        truth = body.pose(sample.rotations, sample.betas)
        scores.add(**errors(found.vertices, found.joints, truth), **_keypoints(found, truth, sample, crop.size))
        count = len(sample.crops)
        baseline.add(**errors(standing.vertices.expand(count, -1, -1), standing.joints.expand(count, -1, -1), truth))
    return Evaluation(scores, baseline, Shown(*(np.concatenate(parts) for parts in zip(*shown, strict=True))))


def _standing(body: Body) -> DecodedBody:
    """The baseline: everybody has the mean shape and stands facing the camera."""
    config = GLNetConfig()
    decoder = Decoder(config, body)
    standing: DecodedBody = decoder(standing_estimate(decoder, config.keypoints), default_cameras(1))
    return standing


def errors(vertices: Tensor, joints: Tensor, truth: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Errors in space against true vertices and joints, metres. Joints are SMPL's 24, rooted at the pelvis."""
    true_vertices, true_joints = truth
    joints, true_joints = joints[:, :BODY_JOINTS], true_joints[:, :BODY_JOINTS]
    return {
        "mpjpe_mm": mpjpe(joints, true_joints),
        "pa_mpjpe_mm": pa_mpjpe(joints, true_joints),
        "pve_mm": pve(vertices, true_vertices, found_root=joints[:, 0], truth_root=true_joints[:, 0]),
    }


def true_keypoints(truth: tuple[Tensor, Tensor], sample: SyntheticSample) -> Float[Tensor, "n 29 2"]:
    """Places of a sample's true joints in its crops, crop sides from the middle."""
    return project(truth[1] + sample.translation.unsqueeze(1), sample.cameras)


def _keypoints(found: Recovery, truth: tuple[Tensor, Tensor], sample: SyntheticSample, size: int) -> dict[str, Tensor]:
    places = (true_keypoints(truth, sample) + 0.5) * size
    extent = places.amax(1) - places.amin(1)
    return keypoint_scores(found, places, sample.visibility, sample.visibility, COVERED * extent.prod(1))
