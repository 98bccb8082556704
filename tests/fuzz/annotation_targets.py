"""Readers of datasets."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from making import IMAGE, file_target
from mutations import (
    change_json,
    change_pickle,
    pickled,
)


def coco_seeds() -> list[bytes]:
    keypoints = [value for index in range(17) for value in (index, index + 1, 2)]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"image_id": 1, "bbox": [1, 2, 30, 40], "keypoints": keypoints, "area": 100.0, "iscrowd": 0, "category_id": 1},
            {"image_id": 1, "bbox": [3, 2, 30, 40], "keypoints": keypoints, "category_id": 1},
        ],
    }
    return [json.dumps(document).encode()]


def read_coco(path: Path) -> None:
    from glnet_train.data.coco import read_coco

    read_coco(path, path.parent)


def hybrik_seeds() -> list[bytes]:
    annotation = {
        "image_id": 1,
        "bbox": [1, 2, 30, 40],
        "thetas": [0.1] * 72,
        "betas": [0.1] * 10,
        "smpl_joints": [[index * 10.0, 5.0, 4000.0] for index in range(29)],
        "h36m_joints": [[index * 10.0, 5.0, 4000.0] for index in range(17)],
        "angle_twist": {"angle": [0.1] * 23, "cos": [0.995] * 23, "sin": [0.1] * 23},
    }
    image = {
        "id": 1,
        "file_name": "a.jpg",
        "width": 64,
        "height": 48,
        "cam_param": {"f": [500.0, 500.0], "c": [32.0, 24.0]},
    }
    return [json.dumps({"images": [image], "annotations": [annotation]}).encode()]


def read_hybrik(path: Path) -> None:
    from glnet_train.data.hybrik import read_h36m

    read_h36m(path, path.parent)


def three_dpw_seeds() -> list[bytes]:
    frames = 2
    content = {
        "sequence": "walk",
        "poses": [np.zeros((frames, 72))],
        "betas": [np.zeros(10)],
        "trans": [np.tile([0.0, 0, 4], (frames, 1))],
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "cam_intrinsics": np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]),
        "img_frame_ids": np.arange(frames),
        "campose_valid": [np.ones(frames, bool)],
        "poses2d": [np.ones((frames, 3, 18))],
        "jointPositions": [np.tile([0.0, 0.1, 4], (frames, 24)) + np.tile(np.arange(72) / 100, (frames, 1))],
        "genders": ["m"],
    }
    return [pickled(content), pickled(content, 4)]


@cache
def demo_body() -> Any:
    from glnet.body import Body, find_body, load_body

    return Body(load_body(find_body("demo")))


def read_three_dpw(path: Path) -> None:
    from glnet_train.data.three_dpw import read_3dpw

    folder = path.parent / "sequenceFiles" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    images = path.parent / "imageFiles" / "walk"
    images.mkdir(parents=True, exist_ok=True)
    if not (images / "image_00000.jpg").exists():
        cv2.imwrite(str(images / "image_00000.jpg"), IMAGE)
    shutil.copy(path, folder / "walk.pkl")
    read_3dpw(path.parent, "train", demo_body())


TARGETS = [
    file_target("coco", coco_seeds, change_json, ".json", read_coco),
    file_target("hybrik", hybrik_seeds, change_json, ".json", read_hybrik),
    file_target("3dpw", three_dpw_seeds, change_pickle, ".pkl", read_three_dpw),
]
