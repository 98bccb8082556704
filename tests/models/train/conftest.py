"""What the training tests share."""

import contextlib
import dataclasses
import io

import numpy as np
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


@pytest.fixture
def cocoeval():
    """COCO's own evaluation of persons with one estimate each: n x 17 x 3, n, n x 17 x 2, n arrays."""

    def evaluated(truth, area, found, score):
        coco = pytest.importorskip("pycocotools.coco")
        from pycocotools.cocoeval import COCOeval

        content = {
            "info": {},
            "images": [{"id": i + 1, "width": 400, "height": 400} for i in range(len(truth))],
            "categories": [{"id": 1, "name": "person", "keypoints": [str(i) for i in range(17)], "skeleton": []}],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": i + 1,
                    "category_id": 1,
                    "bbox": [0, 0, 300, 300],
                    "area": float(a),
                    "iscrowd": 0,
                    "keypoints": t.ravel().tolist(),
                    "num_keypoints": int((t[:, 2] > 0).sum()),
                }
                for i, (t, a) in enumerate(zip(truth, area, strict=True))
            ],
        }
        results = [
            {
                "image_id": i + 1,
                "category_id": 1,
                "keypoints": np.concatenate([f, np.ones((17, 1))], axis=1).ravel().tolist(),
                "score": float(s),
            }
            for i, (f, s) in enumerate(zip(found, score, strict=True))
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            truth_set = coco.COCO()
            truth_set.dataset = content
            truth_set.createIndex()
            evaluation = COCOeval(truth_set, truth_set.loadRes(results), "keypoints")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    return evaluated
