"""What the training tests share."""

import dataclasses

import pytest
import torch

from glnet.config import CropSpec
from glnet.estimate import default_cameras
from glnet_render.targets import Targets, unknown_surface


@pytest.fixture
def make_targets():
    """Targets of random estimates, everything labelled but the second crop's first keypoints."""

    def make(layout, crops, seed=1):
        generator = torch.Generator().manual_seed(seed)
        estimate = layout.split(torch.randn(crops, layout.size, generator=generator) * 0.2)
        keypoint_weights = torch.ones(crops, layout.keypoints)
        keypoint_weights[1, :5] = 0
        rotations = estimate.rotation.shape[1]
        segments, places = unknown_surface(crops, 16)
        return Targets(
            estimate=estimate,
            keypoint_weights=keypoint_weights,
            depth_weights=torch.ones(crops, layout.keypoints),
            rotation_weights=torch.ones(crops, rotations),
            shape_weights=torch.ones(crops, 1),
            scale_weights=torch.ones(crops, 1),
            rotations=torch.eye(3).expand(crops, 24, 3, 3),
            pose_weights=torch.ones(crops, 24),
            cameras=default_cameras(crops),
            segments=segments,
            places=places,
        )

    return make


@pytest.fixture(scope="session")
def config(small_config):
    return dataclasses.replace(small_config, name="tiny", crop=CropSpec(size=64), keypoint_origin="pixel", keypoints=29)
