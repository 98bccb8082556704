"""A backend's answers as tensors, and the scores of their keypoints."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glnet.recovery import Recovery
from glnet_infer.backends import Backend
from glnet_infer.errors import BackendError
from glnet_infer.skeleton import JOINT_NAMES, SKELETON_JOINTS
from glnet_train.data.coco import COCO_TO_SKELETON
from glnet_train.scores.metrics import COCO_SIGMAS, keypoint_error, oks


def recovered(backend: Backend, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Recovery:
    """The graph's outputs for a batch of crops.

    Raises:
        BackendError: They are not all finite. Left out of the means, such crops would improve the score.
    """
    outputs = backend.run(crops, cameras)
    for name in Recovery._fields:
        if not np.isfinite(outputs[name]).all():
            raise BackendError(
                f"{backend.name} gave {name} that are not finite numbers.",
                why="the network overflowed, or its weights are damaged",
                fix="score another backend, or the checkpoint itself",
            )
    return Recovery(*(torch.from_numpy(outputs[name]) for name in Recovery._fields))


def keypoint_scores(found: Recovery, places: Tensor, visible: Tensor, similar: Tensor, areas: Tensor) -> dict[str, Tensor]:
    """Errors in the crop: visible keypoints in pixels, and COCO's similarity of those that COCO has too.

    Args:
        found: The graph's outputs.
        places: N x 29 x 2, true keypoints, crop pixels.
        visible: N x 29, zero for keypoints that do not count in pixels.
        similar: N x 29, zero for keypoints that do not count in the similarity.
        areas: N, areas of the persons, square crop pixels.
    """
    keypoints = found.keypoints_2d[:, :SKELETON_JOINTS]
    shared = [JOINT_NAMES.index(name) for name in COCO_TO_SKELETON]
    sigmas = [COCO_SIGMAS[index] for index in COCO_TO_SKELETON.values()]
    return {
        "keypoint_px": keypoint_error(keypoints, places, visible),
        "oks": oks(keypoints[:, shared], places[:, shared], similar[:, shared], areas, sigmas),
        "confidence": found.confidence,
    }
