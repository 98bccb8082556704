"""An SMPL-format body as arrays that have been checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet.body.likeness import SMPL_VERTICES, oddities, other_model
from glnet_infer.errors import BodyError
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SMPL_LEAF_VERTICES

SHAPE_COMPONENTS = 10
POSE_COMPONENTS = 9 * (BODY_JOINTS - 1)

LARGEST = 1e6
"""Metres, or weight. Products of larger ones overflow in float32."""

MOST_VERTICES = 50_000
"""Vertices of a body. Its pose blend shapes take 250 MB then."""


@dataclass(frozen=True)
class BodyData:
    """An SMPL-format body, in metres, y up, facing +z, in T-pose.

    Attributes:
        name: ``demo``, ``smpl``, ``smpl-male``, ``smpl-female``, or the file's stem.
        v_template: Mean shape, V x 3.
        shapedirs: Shape blend shapes for ten betas, V x 3 x 10.
        posedirs: Pose blend shapes, V x 3 x 207, or None where they are all zero.
        joint_regressor: 24 x V.
        weights: Skinning weights, V x 24.
        faces: Triangles, F x 3, counter-clockwise seen from outside.
        leaf_vertices: Vertices at head top, left and right middle finger, left and right big toe.
        notes: Sentences on what is odd about the body, for its user.
    """

    name: str
    v_template: NDArray[np.float64]
    shapedirs: NDArray[np.float64]
    posedirs: NDArray[np.float64] | None
    joint_regressor: NDArray[np.float64]
    weights: NDArray[np.float64]
    faces: NDArray[np.int32]
    leaf_vertices: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def check_model(path: Path, content: dict[str, Any]) -> None:
    """Refuse a file of another body model than SMPL.

    Args:
        path: The file.
        content: Its arrays, the template and the joint regressor among them where it has them.

    Raises:
        BodyError: It is of another model, or of more vertices than any body has.
    """
    template = np.shape(content.get("v_template", ()))
    vertices = template[0] if template else 0
    model = other_model(vertices, np.shape(content["J_regressor"]) if "J_regressor" in content else ())
    if model:
        raise BodyError(
            f"{path} is a body of {model}, not of SMPL.",
            why=f"it has {vertices} vertices"
            if "J_regressor" not in content
            else f"it has {len(content['J_regressor'])} joints, and SMPL's have {BODY_JOINTS}",
            fix="give SMPL's own neutral model, such as SMPL_NEUTRAL.pkl",
        )
    if vertices > MOST_VERTICES:
        raise BodyError(
            f"{path} is not an SMPL-format body.",
            why=f"it has {vertices} vertices, and at most {MOST_VERTICES} are read",
            fix="use one of SMPL's models",
        )


def checked(path: Path, content: dict[str, Any], name: Callable[[int], str]) -> BodyData:
    """Body data from raw arrays, every shape checked before use.

    Args:
        path: The file, for messages.
        content: Arrays by the file's keys.
        name: Gives the body's name from the number of its vertices.

    Raises:
        BodyError: A key is missing, or shapes and values are not an SMPL-format body's.
    """
    check_model(path, content)
    missing = [key for key in ("v_template", "shapedirs", "J_regressor", "weights", "f") if key not in content]
    if missing:
        raise BodyError(
            f"{path} is not an SMPL-format body.",
            why=f"it lacks {', '.join(missing)}",
            fix="SMPL-H, SMPL-X and MANO files have other joints; use SMPL's own",
        )
    template = np.asarray(content["v_template"], dtype=np.float64)
    vertices = len(template)
    given = np.asarray(content["shapedirs"])
    if given.shape[:-1] == (vertices, 3) and given.shape[-1] < SHAPE_COMPONENTS:
        raise BodyError(
            f"{path} has too few shape components.",
            why=f"it has {given.shape[-1]}, and {SHAPE_COMPONENTS} are needed",
            fix="SMPL for Python has ten in version 1.0.0 and 300 in 1.1.0: basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
        )
    shapedirs = np.asarray(given[..., :SHAPE_COMPONENTS], dtype=np.float64)
    regressor = np.asarray(content["J_regressor"], dtype=np.float64)
    weights = np.asarray(content["weights"], dtype=np.float64)
    faces = _whole("f", content["f"])
    leaves: Any = content.get("leaf_vertices", SMPL_LEAF_VERTICES if vertices == SMPL_VERTICES else None)
    leaves = None if leaves is None else _whole("leaf_vertices", leaves)
    expected = {
        "v_template": (template.shape, (vertices, 3)),
        "shapedirs": (shapedirs.shape, (vertices, 3, SHAPE_COMPONENTS)),
        "J_regressor": (regressor.shape, (BODY_JOINTS, vertices)),
        "weights": (weights.shape, (vertices, BODY_JOINTS)),
        "leaf_vertices": (np.shape(leaves), (len(PARENTS) - BODY_JOINTS,)),
    }
    posedirs = None
    if "posedirs" in content and (np.asarray(content["posedirs"]) != 0).any():
        posedirs = np.asarray(content["posedirs"], dtype=np.float64)
        expected["posedirs"] = (posedirs.shape, (vertices, 3, POSE_COMPONENTS))
    wrong = [f"{key} is {found}, not {wanted}" for key, (found, wanted) in expected.items() if found != wanted]
    if faces.ndim != 2 or faces.shape[1:] != (3,) or faces.min(initial=0) < 0 or faces.max(initial=0) >= vertices:
        wrong.append("f does not hold triangles of the template's vertices")
    if "kintree_table" in content:
        parents = _whole("kintree_table", content["kintree_table"])[0][1:]
        if parents.tolist() != list(PARENTS[1:BODY_JOINTS]):
            wrong.append("kintree_table is not SMPL's tree")
    if not wrong:
        wrong = _implausible(template, shapedirs, posedirs, regressor, weights, leaves)
    if wrong:
        raise BodyError(f"{path} is not an SMPL-format body.", why="; ".join(wrong), fix="use one of SMPL's models")
    return BodyData(
        name=name(vertices),
        v_template=template,
        shapedirs=shapedirs,
        posedirs=posedirs,
        joint_regressor=regressor,
        weights=weights,
        faces=faces.astype(np.int32),
        leaf_vertices=leaves,
        notes=tuple(oddities(template, faces, regressor)),
    )


def _whole(name: str, values: Any) -> NDArray[np.int64]:
    """Numbers of vertices or joints, which some files hold as floats."""
    found = np.asarray(values)
    if found.dtype.kind == "f":
        exact = found.astype(np.float64)
        if (np.abs(exact) < 2.0**53).all() and (exact == np.floor(exact)).all():  # false for NaN
            found = exact.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} does not hold whole numbers")
    return found.astype(np.int64)


def _implausible(
    template: NDArray[np.float64],
    shapedirs: NDArray[np.float64],
    posedirs: NDArray[np.float64] | None,
    regressor: NDArray[np.float64],
    weights: NDArray[np.float64],
    leaves: NDArray[np.int64],
) -> list[str]:
    """Faults of values whose shapes fit."""
    wrong = []
    for name, values in (
        ("v_template", template),
        ("shapedirs", shapedirs),
        ("posedirs", np.zeros(0) if posedirs is None else posedirs),
        ("J_regressor", regressor),
        ("weights", weights),
    ):
        if not np.isfinite(values).all():
            wrong.append(f"{name} is not finite")
        elif np.abs(values).max(initial=0) > LARGEST:
            wrong.append(f"{name} holds numbers beyond {LARGEST:g}")
    # SMPL's own weights are stored rounded; their rows sum to one within a millionth.
    for name, sums in (("weights", weights.sum(1)), ("J_regressor", regressor.sum(1))):
        if not np.allclose(sums, 1, atol=1e-3):
            wrong.append(f"rows of {name} do not sum to 1")
    if leaves.min() < 0 or leaves.max() >= len(template):
        wrong.append("leaf_vertices are not vertices of the template")
    return wrong
