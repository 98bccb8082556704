"""Scores on datasets of photographs.

With Human3.6M's joint regressor, scores are the literature's (HybrIK's and SPIN's evaluation code). 14 joints are regressed
from the recovered mesh. They are compared with the set's own joints (motion capture on Human3.6M), or with those that are
regressed from the true mesh, as on 3DPW. Vertices are compared about the regressed pelvis.

Without the regressor, joints are SMPL's own, as far as the set labels them, and vertices are compared about the pelvis
joint. Such figures do not compare with published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glnet.body.smpl import Body
from glnet.position_errors import mpjpe, pa_mpjpe, pve
from glnet.recovery import Recovery
from glnet_infer.backends import Backend
from glnet_infer.errors import InputError
from glnet_infer.files import open_regular
from glnet_infer.skeleton import BODY_JOINTS
from glnet_train.data import AnnotatedImages, Annotation
from glnet_train.data.annotation import HUMAN36M_JOINTS
from glnet_train.data.samples import stacked
from glnet_train.scores.answers import keypoint_scores, recovered
from glnet_train.scores.metrics import LSP_JOINTS, Scores

BATCH = 16
READERS = 4
"""Threads that read images."""

Labels = dict[str, Tensor]
"""The labels of N persons: :func:`glnet_train.data.samples.stacked`."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Bodies of the true meshes, and joints that are taken from meshes.

    Attributes:
        body: The neutral body, which the network recovers.
        gendered: Bodies of ``male`` and ``female`` actors; the neutral one stands in for those that are missing.
        regressor: 17 x V, float64, Human3.6M's joints from vertices, or None for SMPL's own joints.
    """

    body: Body
    gendered: Mapping[str, Body] = field(default_factory=dict)
    regressor: Tensor | None = None

    def body_of(self, annotation: Annotation) -> Body:
        """The body of a person's true mesh."""
        return self.gendered.get(annotation.gender or "", self.body)


def load_regressor(path: Path, vertices: int) -> Tensor:
    """Human3.6M's joint regressor, ``J_regressor_h36m.npy`` as research code hands it on.

    Args:
        path: The file.
        vertices: V of the body.

    Returns:
        17 x V, float64.

    Raises:
        InputError: The file is missing, damaged or for another body.
    """
    try:
        with open_regular(path) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("it is of another version than 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.kind not in "fiu":
                raise ValueError("it holds no numbers")
            values = np.full((HUMAN36M_JOINTS, vertices), np.nan)
            if shape == values.shape:  # else nothing of it is read
                file.seek(0)
                values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
    except Exception as error:  # zip, format and pickle errors alike
        raise InputError(
            f"The joint regressor {path} was not read.",
            why=str(error.strerror) if isinstance(error, OSError) else "it is not an .npy file of plain numbers",
            fix="give J_regressor_h36m.npy, which comes with SPIN, HybrIK and others",
        ) from error
    if not np.isfinite(values).all():
        raise InputError(
            f"The joint regressor {path} does not fit.",
            why=f"its shape is {shape}; finite numbers for {HUMAN36M_JOINTS} joints and the {vertices} vertices of "
            "the network's body are needed",
            fix="give J_regressor_h36m.npy with a network of SMPL's body",
        )
    return torch.from_numpy(values)


def score_dataset(
    backend: Backend,
    dataset: AnnotatedImages,
    protocol: EvaluationProtocol,
    crops: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Score a backend on a dataset, as far as its labels go.

    Args:
        backend: Backend that runs the graph; its body must be the protocol's.
        dataset: The persons; crops must have the size of the graph's.
        protocol: Rules by which joints and true meshes are made.
        crops: Most persons to score, spread evenly over the set; None for all.
        progress: Called with how many persons are done, and how many there are.

    Returns:
        The metrics that at least one label allows.

    Raises:
        InputError: An image cannot be read: scores of a part would look like those of the whole.
        BackendError: The backend's answer is not finite.
    """
    total = len(dataset) if crops is None else min(crops, len(dataset))
    rows = np.linspace(0, len(dataset) - 1, total).round().astype(int)
    parts: list[dict[str, Tensor]] = []
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, total, BATCH):
            chosen = rows[start : start + BATCH]
            annotations = [dataset[row] for row in chosen]
            labels = stacked(list(readers.map(dataset.load, chosen)))
            found = recovered(backend, labels["crop"].numpy(), labels["camera"].numpy())
            in_space = _regressed_errors if protocol.regressor is not None else _joint_errors
            parts.append({**in_space(found, labels, annotations, protocol), **_keypoint_errors(found, labels, annotations)})
            progress(start + len(chosen), total)
    metrics = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    scores = Scores()
    scores.add(**{name: values for name, values in metrics.items() if not values.isnan().all()})
    return scores


def _known(errors: Tensor, weight: Tensor) -> Tensor:
    """The errors, NaN where there is no label."""
    return torch.where(weight.flatten() > 0, errors, torch.nan)


def _true_meshes(
    labels: Labels, annotations: list[Annotation], protocol: EvaluationProtocol
) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices and joints of the labelled bodies, and 1 for those that are labelled."""
    bodies = [protocol.body_of(annotation) for annotation in annotations]
    vertices, joints = protocol.body.pose(labels["rotations"], labels["betas"])
    for body in {id(body): body for body in bodies if body is not protocol.body}.values():
        rows = [row for row, own in enumerate(bodies) if own is body]
        vertices[rows], joints[rows] = body.pose(labels["rotations"][rows], labels["betas"][rows])
    return vertices, joints, labels["pose_weight"] * labels["shape_weight"]


def _regressed_errors(
    found: Recovery, labels: Labels, annotations: list[Annotation], protocol: EvaluationProtocol
) -> dict[str, Tensor]:
    regressor = protocol.regressor
    assert regressor is not None
    vertices, posed_joints, known = _true_meshes(labels, annotations, protocol)
    true_pelvis = posed_joints[:, :1]
    # About the pelvis, where rows of the regressor that do not sum to one exactly do no harm; alignment follows anyway.
    found_vertices = found.vertices.double() - found.joints[:, :1].double()
    joints, true_joints = regressor @ found_vertices, regressor @ (vertices - true_pelvis).double()
    given, has_joints = true_joints.clone(), known.flatten() > 0
    for row, annotation in enumerate(annotations):
        if annotation.h36m_joints is not None:
            given[row], has_joints[row] = torch.from_numpy(annotation.h36m_joints), True
    return {
        "mpjpe_mm": _known(mpjpe(joints, given, joints=LSP_JOINTS), has_joints),
        "pa_mpjpe_mm": _known(pa_mpjpe(joints, given, joints=LSP_JOINTS), has_joints),
        "pve_mm": _known(pve(found_vertices, vertices - true_pelvis, joints[:, 0], true_joints[:, 0]), known),
    }


def _joint_errors(
    found: Recovery, labels: Labels, annotations: list[Annotation], protocol: EvaluationProtocol
) -> dict[str, Tensor]:
    vertices, joints, known = _true_meshes(labels, annotations, protocol)
    weights = labels["joint_weights"][:, :BODY_JOINTS]
    rooted = weights * weights[:, :1]
    ours, theirs = found.joints[:, :BODY_JOINTS], labels["joints"][:, :BODY_JOINTS]
    return {
        "mpjpe_mm": mpjpe(ours, theirs, weights=rooted),
        "pa_mpjpe_mm": _known(pa_mpjpe(ours, theirs, weights=weights), weights.sum(1) > 2),
        "pve_mm": _known(pve(found.vertices, vertices, found.joints[:, 0], joints[:, 0]), known),
    }


def _keypoint_errors(found: Recovery, labels: Labels, annotations: list[Annotation]) -> dict[str, Tensor]:
    """Errors in the crop; COCO's similarity where the set has the persons' areas."""
    size = labels["crop"].shape[1]
    areas = torch.tensor([annotation.area or 0.0 for annotation in annotations])
    return keypoint_scores(
        found,
        (labels["keypoints"] + 0.5) * size,
        labels["keypoint_weights"],
        labels["keypoint_weights"] * (areas[:, None] > 0),
        areas * (size / labels["side"].flatten()) ** 2,
    )
