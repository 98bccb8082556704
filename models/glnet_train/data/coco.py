"""COCO keypoints (Lin et al., "Microsoft COCO", 2014): image positions only.

``annotations/person_keypoints_train2017.json`` and ``train2017/``. Keys as pycocotools and HybrIK's loader read them: image
``id``, ``file_name``, ``width``, ``height``; annotation ``image_id``, ``bbox`` x, y, width, height, ``keypoints`` 17 x
(x, y, flag), ``area``, ``iscrowd``. A flag of 0 says not labelled, 1 labelled but hidden, 2 visible; hidden ones count, as
in HybrIK. COCO's keypoints are indices of pixels, so half a pixel is added to get to their centres (Detectron2's loader
does it and says why); its boxes are continuous already.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_infer.fields import quote
from glnet_infer.skeleton import JOINT_NAMES, SKELETON_JOINTS
from glnet_train.data.annotation import LABEL_MASKS, Annotation, LabelMask
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.reading import corners, existing_folder, identity, need, numbers, read_annotations

COCO_KEYPOINTS = 17
COCO_TO_SKELETON: dict[str, int] = {
    "left_shoulder": 5, "right_shoulder": 6, "left_elbow": 7, "right_elbow": 8, "left_wrist": 9, "right_wrist": 10,
    "left_knee": 13, "right_knee": 14, "left_ankle": 15, "right_ankle": 16,
}  # fmt: skip
"""COCO's index of each joint that both skeletons have (HybrIK's choice). COCO's hips lie further out than SMPL's; its face
has no counterpart."""


def read_coco(
    annotations: str | Path, images: str | Path, *, mask: LabelMask | None = None, spec: CropSpec | None = None
) -> AnnotatedImages:
    """COCO's persons with at least one of the keypoints that the skeleton has.

    Args:
        annotations: The JSON file.
        images: The folder that ``file_name`` counts from, such as ``train2017``.
        mask: Labels to use; by default image positions.
        spec: Size and padding of crops.

    Raises:
        InputError: Something is missing or damaged. Persons without keypoints or box are left out and counted.
    """
    folder = existing_folder(images, "COCO's images")
    content = read_annotations(annotations)
    listed = {}
    for number, image in enumerate(content["images"]):
        need(image, ("id", "file_name", "width", "height"), f"{annotations}, image {number}")
        listed[identity(image, "id", f"{annotations}, image {number}")] = image
    ours = [JOINT_NAMES.index(name) for name in COCO_TO_SKELETON]
    theirs = list(COCO_TO_SKELETON.values())
    found = []
    left_out: Counter[str] = Counter()
    for number, annotation in enumerate(content["annotations"]):
        where = f"{annotations}, annotation {number}"
        need(annotation, ("image_id", "bbox"), where)
        image = listed.get(identity(annotation, "image_id", where))
        if image is None:
            raise InputError(f"{where} is of image {quote(annotation['image_id'])}, which is not listed.")
        missing = next((key for key in ("keypoints", "bbox") if annotation.get(key) in (None, [])), None)
        if missing:  # as where sets of boxes and of keypoints were joined
            left_out[f"no {missing}"] += 1
            continue
        given = numbers(annotation["keypoints"], (COCO_KEYPOINTS, 3), f"{where}: keypoints")[theirs]
        box = corners(annotation["bbox"], image["width"], image["height"], where)
        if annotation.get("iscrowd") or box is None or not (given[:, 2] > 0).any():
            continue
        keypoints = np.zeros((SKELETON_JOINTS, 2), dtype=np.float32)
        weights = np.zeros(SKELETON_JOINTS, dtype=np.float32)
        labelled = given[:, 2] > 0
        keypoints[ours] = np.where(labelled[:, None], given[:, :2] + 0.5, 0)
        weights[ours] = labelled
        found.append(
            Annotation(
                image=folder / str(image["file_name"]),
                box=box,
                keypoints_2d=keypoints,
                keypoints_2d_weights=weights,
                area=_area(annotation.get("area"), where),
            )
        )
    if not found and content["annotations"]:  # a file of boxes, such as instances_train2017.json
        need(content["annotations"][0], ("keypoints",), f"{annotations}, annotation 0")
    return AnnotatedImages("COCO", found, mask or LABEL_MASKS["coco"], spec, left_out)


def _area(value: Any, where: str) -> float | None:
    """Square pixels that a person covers, where they are known."""
    return None if value is None else float(numbers(value, (), f"{where}: area"))
