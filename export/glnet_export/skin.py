"""The skin of a body, as the bundle keeps it for files of motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glnet.body.data import BodyData
from glnet.body.files import GENDERED_NAMES
from glnet_infer.results.skin import Skin

_SMPL = "SMPL's licence, of the Max Planck Society: https://smpl.is.tue.mpg.de/modellicense.html"
_LICENSES = {"demo": "CC0 1.0", "smpl": _SMPL, **dict.fromkeys(GENDERED_NAMES, _SMPL)}


def skin_of(body: BodyData) -> Skin:
    """The skin of a body, under the body's own terms."""

    def small(values: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.ascontiguousarray(values, np.float32)

    # Joints are linear in the betas, so the regressor is applied to template and blend shapes once.
    joints = np.concatenate([body.joint_regressor @ body.v_template, body.v_template[body.leaf_vertices]])
    moved = np.concatenate(
        [np.einsum("jv,vcb->jcb", body.joint_regressor, body.shapedirs), body.shapedirs[body.leaf_vertices]]
    )
    return Skin(
        body=body.name,
        license=_LICENSES.get(body.name, f"the terms of the body file {body.name!r}"),
        template=small(body.v_template),
        shapes=small(body.shapedirs),
        poses=None if body.posedirs is None else small(body.posedirs),
        weights=small(body.weights),
        faces=np.ascontiguousarray(body.faces, np.int32),
        joint_template=small(joints),
        joint_shapes=small(moved),
    )
