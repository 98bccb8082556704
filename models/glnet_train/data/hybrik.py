"""The COCO-style annotation files that HybrIK's training reads: Human3.6M, MPI-INF-3DHP and 3DPW.

HybrIK's authors hand these files out beside its code; where they and the images lie is the user's business. A file has the
lists ``images`` and ``annotations``. What is read of them:

- Human3.6M (``Sample_5_train_Human36M_smpl_leaf_twist_protocol_2.json`` and the like): image ``file_name``, ``width``,
  ``height``, ``cam_param`` with ``f`` and ``c``; annotation ``bbox`` x, y, width, height, ``thetas`` 24 x 3 axis-angle (24
  x 3 x 3 is taken too), ``betas`` 10, ``smpl_joints`` 24 x 3 or 29 x 3, optionally ``h36m_joints`` 17 x 3 and
  ``angle_twist`` with ``angle``, ``cos``, ``sin`` of 23, where an angle of -999 says that there is none.
- MPI-INF-3DHP (``annotation_mpi_inf_3dhp_train_v2.json``): image as above, ``cam_param`` with ``intrinsic_param``;
  annotation ``bbox``, ``keypoints_cam`` 28 x 3.
- 3DPW (``3DPW_train_new.json``): image ``id``, ``sequence``, ``file_name``, size, ``cam_param`` with ``focal`` and
  ``princpt``; annotation ``image_id``, ``bbox``, ``smpl_param`` with ``pose``, ``shape`` and possibly
  ``gender``, ``smpl_joint_cam``, optionally ``h36m_joints`` 17 x 3.

Where this comes from: keys, shapes, the -999, the pairing of the two lists (by position, for 3DPW by id) and the order of
MPI-INF-3DHP's joints from HybrIK's loaders and from mmhuman3d's converters of the same files. Inferred, not stated there:
the first two sets are in millimetres and 3DPW in metres (the loaders divide by 2,000 or 2,200 and by 2 or 2.2); the root's
rotation is relative to the camera (the loaders turn it with the picture and do nothing else to it); twists are of joints 1
to 23 in order, about the bones of :mod:`glnet.kinematics`. Readers check the unit by the size of the first body. None of it
has been checked on the files themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glnet.body.smpl import Body
from glnet.rotations import rotation_from_vector
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, SKELETON_JOINTS
from glnet_train.data.annotation import HUMAN36M_JOINTS, LABEL_MASKS, Annotation, LabelMask, gender_of
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.reading import corners, existing_folder, identity, need, numbers, read_annotations

H36M_FLAWED = ("s_09_act_05_subact_02_ca", "s_09_act_10_subact_02_ca", "s_09_act_13_subact_01_ca")
"""Recordings of subject 9 that HybrIK leaves out."""

MPI_INF_3DHP_JOINTS = 28
MPI_INF_3DHP_TO_SKELETON: dict[str, int] = {
    "pelvis": 4, "neck": 5,
    "left_shoulder": 9, "left_elbow": 10, "left_wrist": 11,
    "right_shoulder": 14, "right_elbow": 15, "right_wrist": 16,
    "left_knee": 19, "left_ankle": 20,
    "right_knee": 24, "right_ankle": 25,
}  # fmt: skip
"""MPI-INF-3DHP's index of each joint that both skeletons have (HybrIK's choice). Its hips, spine, feet and hands differ."""

NO_TWIST = -10.0
"""Twist angles up to this mean that there is no label."""

NEEDED = ("bbox", "thetas", "betas", "smpl_joints", "keypoints_cam", "smpl_param", "smpl_joint_cam")
"""Labels without which a person is left out, where a file has ``null`` in their place."""

_Labels = dict[str, Any]


def read_h36m(
    annotations: str | Path,
    images: str | Path,
    body: Body | None = None,
    *,
    mask: LabelMask | None = None,
    spec: CropSpec | None = None,
) -> AnnotatedImages:
    """Human3.6M with SMPL labels.

    Args:
        annotations: The JSON file.
        images: The folder that ``file_name`` counts from (HybrIK: ``images``).
        body: The neutral SMPL body; without it there is no translation.
        mask: Labels to use; by default all.
        spec: Size and padding of crops.

    Raises:
        InputError: Something is missing or damaged.
    """

    def labels(image: _Labels, annotation: _Labels, where: str) -> _Labels | None:
        need(annotation, ("thetas", "betas", "smpl_joints"), where)
        if any(name in str(image["file_name"]) for name in H36M_FLAWED):
            return None
        f, c = _camera_pair(image, "f", "c", where)
        found = {
            "intrinsics": Intrinsics(f[0], f[1], c[0], c[1]),
            **_smpl(annotation["thetas"], annotation["betas"], where),
            **_joints(annotation["smpl_joints"], 1e-3, where),
            **_h36m_joints(annotation, 1e-3, where),
        }
        return (
            {**found, **_twists(annotation["angle_twist"], where)} if annotation.get("angle_twist") is not None else found
        )

    # HybrIK crops these boxes as they are. Ours are padded, so they are shrunk to give the same crop.
    box_scale = 1 / (spec or CropSpec()).padding
    return _read("Human3.6M", annotations, images, labels, body, mask or LABEL_MASKS["h36m"], spec, box_scale)


def read_mpi_inf_3dhp(
    annotations: str | Path, images: str | Path, *, mask: LabelMask | None = None, spec: CropSpec | None = None
) -> AnnotatedImages:
    """MPI-INF-3DHP, the training set (the test set's 17 joints are others).

    Args:
        annotations: The JSON file.
        images: The folder that ``file_name`` counts from (HybrIK: ``mpi_inf_3dhp_train_set``).
        mask: Labels to use; by default image positions and depths of :data:`MPI_INF_3DHP_TO_SKELETON`.
        spec: Size and padding of crops.

    Raises:
        InputError: Something is missing or damaged.
    """

    def labels(image: _Labels, annotation: _Labels, where: str) -> _Labels:
        need(annotation, ("keypoints_cam",), where)
        need(image["cam_param"], ("intrinsic_param",), f"{where}: cam_param")
        try:
            matrix = np.asarray(image["cam_param"]["intrinsic_param"], dtype=np.float64)[:3, :3]
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{where}: intrinsic_param is not a matrix.", why=str(error)) from error
        k = numbers(matrix, (3, 3), f"{where}: intrinsic_param")
        theirs = numbers(annotation["keypoints_cam"], (MPI_INF_3DHP_JOINTS, 3), f"{where}: keypoints_cam") * 1e-3
        joints, weights = np.zeros((SKELETON_JOINTS, 3)), np.zeros(SKELETON_JOINTS)
        ours = [JOINT_NAMES.index(name) for name in MPI_INF_3DHP_TO_SKELETON]
        joints[ours], weights[ours] = theirs[list(MPI_INF_3DHP_TO_SKELETON.values())], 1
        return {
            "intrinsics": Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2]),
            "joints_3d": joints,
            "joints_3d_weights": weights,
        }

    return _read("MPI-INF-3DHP", annotations, images, labels, None, mask or LABEL_MASKS["3dhp"], spec)


def read_3dpw_json(
    annotations: str | Path,
    images: str | Path,
    body: Body | None = None,
    *,
    mask: LabelMask | None = None,
    spec: CropSpec | None = None,
) -> AnnotatedImages:
    """3DPW as HybrIK's authors converted it; :func:`glnet_train.data.read_3dpw` reads the original files.

    Args:
        annotations: The JSON file.
        images: The folder of the sequences' folders (3DPW's ``imageFiles``).
        body: The neutral SMPL body; without it there is no translation.
        mask: Labels to use; by default everything but leaf joints and twists.
        spec: Size and padding of crops.

    Raises:
        InputError: Something is missing or damaged.
    """

    def labels(image: _Labels, annotation: _Labels, where: str) -> _Labels:
        need(annotation, ("smpl_param", "smpl_joint_cam"), where)
        need(annotation["smpl_param"], ("pose", "shape"), f"{where}: smpl_param")
        f, c = _camera_pair(image, "focal", "princpt", where)
        return {
            "intrinsics": Intrinsics(f[0], f[1], c[0], c[1]),
            **_smpl(annotation["smpl_param"]["pose"], annotation["smpl_param"]["shape"], where),
            **_joints(annotation["smpl_joint_cam"], 1.0, where),
            **_h36m_joints(annotation, 1.0, where),
            "gender": gender_of(annotation["smpl_param"].get("gender", "neutral")),
        }

    return _read("3DPW", annotations, images, labels, body, mask or LABEL_MASKS["3dpw"], spec, by_id=True)


def _camera_pair(image: _Labels, focal: str, center: str, where: str) -> tuple[list[float], list[float]]:
    camera = image["cam_param"]
    need(camera, (focal, center), f"{where}: cam_param")
    f, c = (numbers(camera[key], (2,), f"{where}: cam_param {key}").tolist() for key in (focal, center))
    return f, c


def _smpl(thetas: Any, betas: Any, where: str) -> _Labels:
    """Pose and shape; a pose is axis-angle or matrices, told apart by the number of its numbers."""
    given = numbers(thetas, (-1, 3), f"{where}: thetas")
    if len(given) == BODY_JOINTS * 3:
        rotations = given.reshape(BODY_JOINTS, 3, 3)
    else:
        vectors = numbers(given, (BODY_JOINTS, 3), f"{where}: thetas")
        rotations = rotation_from_vector(torch.tensor(vectors)).numpy()
    return {"rotations": rotations, "betas": numbers(betas, (10,), f"{where}: betas")}


def _joints(values: Any, metres: float, where: str) -> _Labels:
    """SMPL's 24 joints, or all 29; ``metres`` is the length of the file's unit."""
    given = numbers(values, (-1, 3), f"{where}: joints") * metres
    if len(given) not in (BODY_JOINTS, SKELETON_JOINTS):
        raise InputError(
            f"{where}: there are {len(given)} joints, not {BODY_JOINTS} or {SKELETON_JOINTS}.",
            fix="use the annotation file that has SMPL's joints",
        )
    joints, weights = np.zeros((SKELETON_JOINTS, 3)), np.zeros(SKELETON_JOINTS)
    joints[: len(given)], weights[: len(given)] = given, 1
    return {"joints_3d": joints, "joints_3d_weights": weights}


def _h36m_joints(annotation: _Labels, metres: float, where: str) -> _Labels:
    """Human3.6M's own joints, where the file has them."""
    if annotation.get("h36m_joints") is None:
        return {}
    return {"h36m_joints": numbers(annotation["h36m_joints"], (HUMAN36M_JOINTS, 3), f"{where}: h36m_joints") * metres}


def _twists(twist: _Labels, where: str) -> _Labels:
    need(twist, ("angle", "cos", "sin"), f"{where}: angle_twist")
    angle, cosine, sine = (
        numbers(twist[key], (BODY_JOINTS - 1,), f"{where}: angle_twist {key}") for key in ("angle", "cos", "sin")
    )
    known = angle > NO_TWIST
    # Cosine and sine of -999 radians are a direction too; nothing may mistake it for a label.
    twists = np.where(known[:, None], np.stack([cosine, sine], axis=1), [1.0, 0.0])
    return {"twists": twists, "twist_weights": known.astype(np.float64)}


def _pairs(content: _Labels, by_id: bool, where: str) -> Iterator[tuple[_Labels, _Labels]]:
    """Images with their annotations."""
    images, annotations = content["images"], content["annotations"]
    if by_id:
        known = {identity(image, "id", f"{where}, image {number}"): image for number, image in enumerate(images)}
        for number, annotation in enumerate(annotations):
            image = known.get(identity(annotation, "image_id", f"{where}, annotation {number}"))
            if image is None:
                raise InputError(f"{where}: annotation {number} is of an image that is not listed.")
            yield image, annotation
        return
    if len(images) != len(annotations):
        raise InputError(
            f"{where} has {len(images)} images and {len(annotations)} annotations.",
            why="the two lists belong together item by item",
            fix="use the file as HybrIK's authors hand it out",
        )
    yield from zip(images, annotations, strict=True)


def _read(
    name: str,
    file: str | Path,
    folder: str | Path,
    labels: Callable[[_Labels, _Labels, str], _Labels | None],
    body: Body | None,
    mask: LabelMask,
    spec: CropSpec | None,
    box_scale: float = 1.0,
    by_id: bool = False,
) -> AnnotatedImages:
    """Read a file with the labels of one set; everything else is common to the sets."""
    folder = existing_folder(folder, f"the images of {name}")
    annotations: list[Annotation] = []
    left_out: Counter[str] = Counter()
    for number, (image, annotation) in enumerate(_pairs(read_annotations(file), by_id, str(file))):
        where = f"{file}, annotation {number}"
        need(
            image,
            ("file_name", "width", "height", "cam_param", *(("sequence",) if by_id else ())),
            f"{file}, image {number}",
        )
        need(annotation, ("bbox",), where)
        missing = next((key for key in NEEDED if annotation.get(key, key) is None), None)
        if missing:
            left_out[f"no {missing}"] += 1
            continue
        box = corners(annotation["bbox"], image["width"], image["height"], where)
        found = labels(image, annotation, where)
        if box is None or found is None:
            continue
        if not annotations:
            _check_unit(found, where)
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * box_scale
        # 3DPW's images lie in a folder per sequence, which other sets have in the file's name.
        path = folder / str(image["sequence"]) / str(image["file_name"]) if by_id else folder / str(image["file_name"])
        arrays = {**found, **_image_labels(found), **_translation(found, body)}
        intrinsics, gender = arrays.pop("intrinsics"), arrays.pop("gender", None)
        known: _Labels = {key: np.asarray(value, dtype=np.float32) for key, value in arrays.items()}
        corner_box = np.concatenate([middle - half, middle + half])
        annotations.append(Annotation(image=path, box=corner_box, intrinsics=intrinsics, gender=gender, **known))
    return AnnotatedImages(name, annotations, mask, spec, left_out)


def _check_unit(found: _Labels, where: str) -> None:
    joints = found["joints_3d"][found["joints_3d_weights"] > 0]
    reach = float(np.linalg.norm(joints - joints[0], axis=-1).max())
    if not 0.2 < reach < 3:
        raise InputError(
            f"{where}: the body reaches {reach:.3g} m from its pelvis.",
            why="joints are taken to be in millimetres in Human3.6M and MPI-INF-3DHP, in metres in 3DPW",
            fix="convert the file to that unit",
        )


def _image_labels(found: _Labels) -> _Labels:
    """Joints projected into the image; those that are unknown or not in front of the camera get no weight."""
    joints = found["joints_3d"]
    ahead = joints[:, 2] > 0.1
    keypoints = found["intrinsics"].project(np.where(ahead[:, None], joints, [0.0, 0.0, 1.0]))
    return {"keypoints_2d": keypoints, "keypoints_2d_weights": found["joints_3d_weights"] * ahead}


def _translation(found: _Labels, body: Body | None) -> _Labels:
    """The translation that puts the body's resting pelvis onto the labelled one."""
    if body is None or "betas" not in found:
        return {}
    with torch.no_grad():
        rest = body.rest_joints(torch.tensor(found["betas"], dtype=torch.float32)[None])
    return {"translation": found["joints_3d"][0] - rest[0, 0].double().numpy()}
