"""3DPW from its official files (von Marcard et al., "Recovering Accurate 3D Human Pose in The Wild", ECCV 2018).

Layout: ``sequenceFiles/{train,validation,test}/<sequence>.pkl`` and ``imageFiles/<sequence>/image_00000.jpg``. A sequence
is a dictionary; P persons, F frames at the images' 30 Hz:

- ``sequence``; ``cam_intrinsics`` 3 x 3; ``cam_poses`` F x 4 x 4; ``genders`` P letters;
- lists of P: ``poses`` F x 72 axis-angle, ``trans`` F x 3, ``betas`` 10 or more, ``campose_valid`` F,
  ``poses2d`` F x 3 x 18 (x, y, confidence), ``jointPositions`` F x 72.

Where this comes from: the names, shapes and the 30 Hz from the readme that ships with the dataset (read in a copy in a
public repository). That ``cam_poses`` takes the world to the camera, that ``jointPositions`` are in the world, and that
image k is frame k (``img_frame_ids`` counts the 60 Hz recording, not images) from public code that reads the files,
SPIN's preprocessing among it. None of it has been checked on the data itself, which is licensed to each user.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glnet.body.smpl import Body
from glnet.estimate import BETAS
from glnet.rotations import rotation_from_vector
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_infer.image_files import read_image
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS
from glnet_train.data.annotation import LABEL_MASKS, Annotation, LabelMask, gender_of
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.reading import existing_folder, inside, numbers, read_pickle

SPLITS = ("train", "validation", "test")
MINIMUM_DISTANCE = 0.1
"""Metres. A person with a joint nearer to the camera's plane than this, or behind it, is left out."""

_KEYS = ("sequence", "cam_intrinsics", "cam_poses", "poses", "betas", "trans", "poses2d", "campose_valid")


def read_3dpw(
    root: str | Path,
    split: str,
    body: Body,
    *,
    mask: LabelMask | None = None,
    spec: CropSpec | None = None,
    stride: int = 1,
    detected_only: bool = True,
) -> AnnotatedImages:
    """A split of 3DPW.

    Frames whose camera pose is marked as not valid are left out, and persons of whom nothing lies in the image.

    The actors were fitted with SMPL's male and female bodies. Their betas are used as they are, on the neutral body that
    the network is trained with, as HybrIK and others do. So a recovered neutral body of the labelled pose and betas
    differs from the true one by some millimetres. Joints do not suffer from it where the file has ``jointPositions``: they
    are those of the actor's own body, and the translation puts the neutral body's pelvis onto theirs. For evaluation in the
    way of the field, true vertices are made with the actor's gendered body (:mod:`glnet_train.scores`).

    Args:
        root: The folder that holds ``sequenceFiles`` and ``imageFiles``.
        split: ``train``, ``validation`` or ``test``.
        body: The neutral SMPL body.
        mask: Labels to use; by default everything but leaf joints and twists.
        spec: Size and padding of crops.
        stride: Take every n-th frame; neighbours at 30 Hz are nearly equal.
        detected_only: Leave out frames in which the dataset's own detector found nothing of the person. It gives keypoints
            where it found six or more.

    Returns:
        One annotation per person and frame, in the order of sequences, persons, frames. Boxes enclose the 29 projected
        joints inside the image; leaf joints come from the neutral body.

    Raises:
        InputError: Something is missing or damaged.
    """
    root = existing_folder(root, "3DPW's folders sequenceFiles and imageFiles")
    if split not in SPLITS:
        raise InputError(f"3DPW has no split {split!r}.", fix=f"give one of {', '.join(SPLITS)}")
    folder = existing_folder(root / "sequenceFiles" / split, "3DPW's sequences, one .pkl each")
    existing_folder(root / "imageFiles", "3DPW's images, one folder per sequence")
    files = sorted(folder.glob("*.pkl"))
    annotations = [
        annotation for file in files for annotation in _sequence(file, root / "imageFiles", body, stride, detected_only)
    ]
    return AnnotatedImages(f"3DPW {split}", annotations, mask or LABEL_MASKS["3dpw"], spec)


def _sequence(file: Path, images: Path, body: Body, stride: int, detected_only: bool) -> Iterator[Annotation]:
    """The persons of one sequence."""
    content = read_pickle(file, _KEYS, ("jointPositions", "genders"))
    intrinsics = Intrinsics.from_matrix(numbers(content["cam_intrinsics"], (3, 3), f"{file}: cam_intrinsics"))
    # Where the camera was lost, its pose may be anything.
    persons = range(_count(content["poses"], f"{file}: poses"))
    valid = [_entry(content, "campose_valid", person, f"{file}, person {person}") for person in persons]
    seen = np.atleast_1d(numbers(valid, (len(persons), -1), f"{file}: campose_valid").any(0))
    poses = numbers(content["cam_poses"], (len(seen), 4, 4), f"{file}: cam_poses", seen)
    turns = poses[seen, :3, :3]
    if not np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-3):
        raise InputError(f"{file}: cam_poses are not rigid motions.", fix="use the sequence file as it ships")
    folder = images / str(content["sequence"])
    size: tuple[int, int] | None = None
    for person in persons:
        labels = _person(content, person, poses, body, f"{file}, person {person}")
        gender = gender_of(_entry(content, "genders", person, f"{file}, person {person}")) if "genders" in content else None
        keep = np.arange(len(poses)) % stride == 0
        keep &= labels.pop("valid") & (labels["joints_3d"][..., 2] > MINIMUM_DISTANCE).all(1)
        if detected_only:
            keep &= labels["detected"]
        del labels["detected"]
        for frame in np.flatnonzero(keep):
            image = folder / f"image_{frame:05d}.jpg"
            size = size or _image_size(image)
            joints = labels["joints_3d"][frame]
            keypoints = intrinsics.project(joints)
            box = inside(np.concatenate([keypoints.min(0), keypoints.max(0)]), *size)
            if box is None:
                continue
            ones = np.ones(SKELETON_JOINTS, dtype=np.float32)
            yield Annotation(
                image=image,
                box=box,
                intrinsics=intrinsics,
                rotations=labels["rotations"][frame].astype(np.float32),
                betas=labels["betas"].astype(np.float32),
                translation=labels["translation"][frame].astype(np.float32),
                joints_3d=joints.astype(np.float32),
                joints_3d_weights=ones,
                keypoints_2d=keypoints.astype(np.float32),
                keypoints_2d_weights=ones,
                gender=gender,
            )


def _image_size(image: Path) -> tuple[int, int]:
    """Width and height; all images of a sequence have the same."""
    pixels = read_image(image, oriented=False)
    return pixels.shape[1], pixels.shape[0]


def _count(entries: Any, what: str) -> int:
    """How many entries a list has."""
    try:
        return len(entries)
    except TypeError as error:
        raise InputError(
            f"{what} are no list with an entry for every person.", why=str(error), fix="use the sequence file as it ships"
        ) from error


def _entry(content: dict[str, Any], key: str, person: int, where: str) -> Any:
    """One person's entry of a list that has one for every person."""
    try:
        return content[key][person]
    except (IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}: {key} has no entry for this person.", why=str(error), fix="use the sequence file as it ships"
        ) from error


def _person(
    content: dict[str, Any], person: int, cam_poses: NDArray[np.float64], body: Body, where: str
) -> dict[str, NDArray[Any]]:
    """Labels of one actor in the cameras of all frames, float64; see :class:`Annotation` for their meaning."""
    frames = len(cam_poses)

    def values(key: str, shape: tuple[int, ...], rows: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        return numbers(_entry(content, key, person, where), shape, f"{where}: {key}", rows)

    valid = values("campose_valid", (frames,)) > 0
    rotations = rotation_from_vector(torch.tensor(values("poses", (frames, BODY_JOINTS, 3), valid))).numpy()
    trans = values("trans", (frames, 3), valid)
    betas = values("betas", (-1,))[:BETAS]
    if len(betas) < BETAS:
        raise InputError(f"{where} has {len(betas)} betas, not {BETAS}.", fix="use the sequence file as it ships")
    detections = values("poses2d", (frames, 3, 18), valid)
    turn, shift = cam_poses[:, :3, :3], cam_poses[:, :3, 3]

    # Turning the root's rotation into camera axes turns the body about its pelvis joint, which rests at a point J of the
    # template, not at the origin. The pelvis is at J + trans in the world: that point, not trans, moves with the camera.
    rotations[:, 0] = turn @ rotations[:, 0]
    with torch.no_grad():
        rest = body.rest_joints(torch.tensor(betas, dtype=torch.float32)[None])
        chained = body.kinematics.chain(torch.from_numpy(rotations).float())
        posed = body.kinematics(chained, rest.expand(frames, -1, -1)).double().numpy()
    resting = rest[0, 0].double().numpy()
    world = (resting + trans)[:, None]
    if "jointPositions" in content:
        world = values("jointPositions", (frames, BODY_JOINTS, 3), valid)
    in_camera = world @ turn.transpose(0, 2, 1) + shift[:, None]
    translation = in_camera[:, 0] - resting
    joints = posed + translation[:, None]
    joints[:, : in_camera.shape[1]] = in_camera
    return {
        "rotations": rotations,
        "betas": betas,
        "translation": translation,
        "joints_3d": joints,
        "valid": valid,
        "detected": (detections[:, 2] > 0).any(1),
    }
