"""The skin of a body: what turns rotations and shape into a mesh, without the network and without a body file.

``glnet-export`` writes it into the bundle as ``skin.npz``. It is made from the body file, and is under that file's licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glnet_infer.archives import ArraySpec, read_archive, storable
from glnet_infer.errors import InputError
from glnet_infer.files import is_directory
from glnet_infer.results.posing import chain, posed_joints
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS

SKIN_NAME = "skin.npz"
"""Its name in a bundle."""

SKIN_VERSION = 1

_SPECS = {
    "version": ArraySpec((), "int64"),
    "body": ArraySpec((), "str"),
    "license": ArraySpec((), "str"),
    "template": ArraySpec(("V", 3), "float32"),
    "shapes": ArraySpec(("V", 3, 10), "float32"),
    "poses": ArraySpec(("V", 3, 9 * (BODY_JOINTS - 1)), "float32", optional=True),
    "weights": ArraySpec(("V", BODY_JOINTS), "float32"),
    "faces": ArraySpec(("F", 3), "int32"),
    "joint_template": ArraySpec((SKELETON_JOINTS, 3), "float32"),
    "joint_shapes": ArraySpec((SKELETON_JOINTS, 3, 10), "float32"),
}

_LIMIT = 1 << 28
"""Bytes. SMPL's takes 20 MB, most of them blend shapes of the pose."""

_FIX = "take skin.npz from a bundle; glnet-export writes it unless --no-skin says otherwise"

_TOGETHER = 16
"""Persons that are posed in one product; more only take more memory."""


@dataclass(frozen=True, eq=False)
class Skin:
    """A body as arrays, in SMPL's format, metres.

    Attributes:
        body: Name of the body, as in the bundle's manifest.
        license: Terms of the body, which hold for the skin and for files that are made with it.
        template: V x 3, the mean shape in the rest pose, y up.
        shapes: V x 3 x 10, blend shapes of the betas.
        poses: V x 3 x 207, blend shapes of the pose; None where the body has none.
        weights: V x 24, how much each joint moves each vertex.
        faces: F x 3, triangles, counter-clockwise seen from outside.
        joint_template: 29 x 3, joints of the mean shape in the rest pose.
        joint_shapes: 29 x 3 x 10, how the betas move them.
    """

    body: str
    license: str
    template: NDArray[np.float32]
    shapes: NDArray[np.float32]
    poses: NDArray[np.float32] | None
    weights: NDArray[np.float32]
    faces: NDArray[np.int32]
    joint_template: NDArray[np.float32]
    joint_shapes: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"Skin({self.body!r}, {len(self.template)} vertices, license={self.license!r})"

    @classmethod
    def load(cls, source: str | PathLike[str] | BinaryIO) -> Skin:
        """Read a skin.

        Args:
            source: ``skin.npz``, the bundle with it, or its open content.

        Raises:
            InputError: It is missing, damaged or not a skin.
        """
        what = "The skin was not read."
        if isinstance(source, str | PathLike):
            path = Path(source)
            source = path / SKIN_NAME if is_directory(path) else path
            what = f"{source} was not read."
        arrays: dict[str, Any] = read_archive(source, _SPECS, InputError, what=what, fix=_FIX, limit=_LIMIT)
        version = int(arrays.pop("version"))
        if version != SKIN_VERSION:
            raise InputError(what, why=f"its version is {version}, this library reads {SKIN_VERSION}", fix=_FIX)
        arrays |= {name: str(arrays[name]) for name in ("body", "license")}
        try:
            return cls(**{"poses": None, **arrays})
        except InputError as error:
            raise InputError(what, why=error.why, fix=_FIX) from error

    def __post_init__(self) -> None:
        for name, wrong in (
            ("faces name vertices that are not there", self._faces_stray()),
            ("weights of a vertex do not sum to 1", not np.allclose(self.weights.sum(1, dtype=np.float64), 1, atol=1e-2)),
            ("weights are negative", bool((self.weights < 0).any())),
            ("it is larger than 1 km", any(np.abs(part).max() > 1e3 for part in (self.template, self.joint_template))),
        ):
            if wrong:
                raise InputError("This is not the skin of a body.", why=name, fix=_FIX)

    def _faces_stray(self) -> bool:
        vertices, faces = len(self.template), self.faces
        return not vertices or not faces.size or bool(faces.min() < 0 or faces.max() >= vertices)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``skin.npz`` holds."""
        optional = {} if self.poses is None else {"poses": self.poses}
        return {
            "version": np.asarray(SKIN_VERSION, np.int64),
            "body": np.asarray(storable(self.body)),
            "license": np.asarray(storable(self.license)),
            "template": self.template,
            "shapes": self.shapes,
            **optional,
            "weights": self.weights,
            "faces": self.faces,
            "joint_template": self.joint_template,
            "joint_shapes": self.joint_shapes,
        }

    def rest_joints(self, betas: NDArray[Any]) -> NDArray[np.float64]:
        """Joints of the rest pose, ... x 29 x 3 metres, of shapes ... x 10."""
        return np.asarray(
            self.joint_template + np.einsum("jcb,...b->...jc", self.joint_shapes, np.asarray(betas, np.float64))
        )

    def rest_vertices(self, betas: NDArray[Any], rotations: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Vertices of the rest pose, N x V x 3 metres.

        Args:
            betas: N x 10.
            rotations: N x 24 x 3 x 3, relative to the parent, for the pose's blend shapes; None leaves those out.
        """
        betas = np.asarray(betas, np.float32)
        vertices = self.template + (betas @ self.shapes.reshape(-1, betas.shape[1]).T).reshape(len(betas), -1, 3)
        if self.poses is not None and rotations is not None:
            feature = (np.asarray(rotations, np.float32)[:, 1:] - np.eye(3, dtype=np.float32)).reshape(len(betas), -1)
            vertices += (feature @ self.poses.reshape(-1, feature.shape[1]).T).reshape(vertices.shape)
        return np.asarray(vertices, np.float32)

    def pose(
        self, rotations: NDArray[Any], betas: NDArray[Any], translation: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pose the body.

        Args:
            rotations: N x 24 x 3 x 3, relative to the parent, the root's to the camera.
            betas: N x 10.
            translation: N x 3, metres.

        Returns:
            N x V x 3 vertices and N x 29 x 3 joints, metres, in the camera's frame.
        """
        turned, rest = chain(rotations), self.rest_joints(betas)
        joints = posed_joints(turned, rest) + np.asarray(translation, np.float64)[:, None]
        shift = joints[:, :BODY_JOINTS] - (turned @ rest[:, :BODY_JOINTS, :, None])[..., 0]
        transforms = np.concatenate([turned, shift[..., None]], axis=-1).astype(np.float32)
        count = len(self.template)
        vertices = np.empty((len(joints), count, 3), np.float32)
        for start in range(0, len(joints), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            # Coordinates first and vertices last: sums over long rows, not a small product for each vertex.
            blended = (transforms[part].reshape(-1, BODY_JOINTS, 12).swapaxes(1, 2) @ self.weights.T).reshape(
                -1, 3, 4, count
            )
            shaped = self.rest_vertices(np.asarray(betas)[part], np.asarray(rotations)[part]).swapaxes(1, 2)
            moved = (blended[:, :, :3] * shaped[:, None]).sum(axis=2)
            vertices[part] = (moved + blended[:, :, 3]).swapaxes(1, 2)
        return vertices, joints.astype(np.float32)
