"""The result: posed SMPL meshes of the persons in one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.archives import ArraySpec, read_archive, storable
from glnet_infer.camera import Intrinsics
from glnet_infer.device_arrays import DeviceMeshes
from glnet_infer.errors import InputError, OutputError
from glnet_infer.numbers import as_floats
from glnet_infer.results import formats
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, SKELETON_JOINTS

_COLUMNS: dict[str, ArraySpec] = {
    "vertices": ArraySpec(("N", "V", 3), "float32"),
    "joints": ArraySpec(("N", SKELETON_JOINTS, 3), "float32"),
    "keypoints_2d": ArraySpec(("N", "K", 2), "float32"),
    "rotations": ArraySpec(("N", BODY_JOINTS, 3, 3), "float32"),
    "betas": ArraySpec(("N", 10), "float32"),
    "translation": ArraySpec(("N", 3), "float32"),
    "confidence": ArraySpec(("N",), "float32"),
    "reference_points": ArraySpec(("N", 2), "float32"),
    "boxes": ArraySpec(("N", 4), "float64"),
}
"""Arrays with a row for each person."""

_SPECS: dict[str, ArraySpec] = {
    "version": ArraySpec((), "int64"),
    **_COLUMNS,
    "faces": ArraySpec(("F", 3), "int32"),
    "intrinsics": ArraySpec((3, 3), "float64"),
    "image_size": ArraySpec((2,), "int64"),
    "backend": ArraySpec((), "str"),
}

_LARGEST = 2 << 30
"""Bytes of an archive's arrays: some ten thousand persons."""

_FARTHEST = 1e9
"""Metres and pixels: far beyond any result. Products of larger numbers overflow float32."""

_LONGEST_SIDE = 1 << 20
"""Pixels of an image."""

DOCUMENT_VERSION = 1
"""Version of the ``.npz`` and ``.json`` schemas, which ``docs/output-formats.md`` describes."""


@dataclass(frozen=True, eq=False)
class Meshes:
    """Meshes of N persons, in the order of their boxes.

    Camera coordinates are OpenCV's: x right, y down, z forward, metres, the image's one camera at the origin. Image
    coordinates are continuous pixels with (0, 0) at the upper left corner of the upper left pixel.

    Attributes:
        vertices: N x V x 3 float32, camera coordinates.
        joints: N x 29 x 3 float32, camera coordinates; ``glnet_infer.skeleton`` names them.
        keypoints_2d: N x K x 2 float32, image pixels: the network's own 2D keypoints, the first 29 the skeleton's.
        rotations: N x 24 x 3 x 3 float32, SMPL's pose: relative to the parent, the root's to the camera.
        betas: N x 10 float32, SMPL's shape.
        translation: N x 3 float32, metres: SMPL(rotations, betas) + translation gives vertices and joints.
        confidence: N float32, 0 to 1, of the pixel that decided.
        reference_points: N x 2 float32, image pixels: that pixel's place in the image.
        boxes: N x 4 float64, image pixels, as given.
        intrinsics: The camera: as given, or :meth:`Intrinsics.guess` of the image's size.
        image_size: Width and height in pixels.
        faces: F x 3 int32, the triangles of every mesh, counter-clockwise seen from outside.
        backend: What ran the network.
        device: The backend's own results where they lie on the GPU, valid until its next call; None where it leaves none
            there, ran more persons than one call of the engine takes, or the meshes were loaded from a file.
    """

    vertices: NDArray[np.float32]
    joints: NDArray[np.float32]
    keypoints_2d: NDArray[np.float32]
    rotations: NDArray[np.float32]
    betas: NDArray[np.float32]
    translation: NDArray[np.float32]
    confidence: NDArray[np.float32]
    reference_points: NDArray[np.float32]
    boxes: NDArray[np.float64]
    intrinsics: Intrinsics
    image_size: tuple[int, int]
    faces: NDArray[np.int32]
    backend: str
    device: DeviceMeshes | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the views of the GPU's memory, which belong to this process's backend."""
        return {**self.__dict__, "device": None}

    def __len__(self) -> int:
        return len(self.vertices)

    def __repr__(self) -> str:
        persons = "1 person" if len(self) == 1 else f"{len(self)} persons"
        return f"Meshes({persons}, {self.vertices.shape[1]} vertices each, backend={self.backend!r})"

    def select(self, rows: Sequence[int]) -> Meshes:
        """Some of the persons.

        Args:
            rows: Their places, from 0, in the order that is wanted.
        """
        chosen = np.asarray(rows, np.int64)
        return replace(self, device=None, **{name: getattr(self, name)[chosen] for name in _COLUMNS})

    @property
    def focal_length(self) -> tuple[float, float]:
        """Focal lengths fx and fy in pixels."""
        return self.intrinsics.fx, self.intrinsics.fy

    @property
    def behind_camera(self) -> NDArray[np.bool_]:
        """Who reaches behind the camera, N bool: nobody does whose camera is given in the right units."""
        return np.asarray((self.vertices[..., 2] <= 0).any(axis=-1), np.bool_)

    @property
    def projected_joints(self) -> NDArray[np.float64]:
        """The 3D joints in the image, N x 29 x 2 pixels."""
        return self.intrinsics.project(self.joints)

    def overlay(self, image: NDArray[np.uint8], opacity: float = 0.8, colors: ArrayLike | None = None) -> NDArray[np.uint8]:
        """The image with the meshes drawn over it.

        Args:
            image: The BGR image that the meshes were recovered from; it is not changed.
            opacity: Opacity of the meshes, 0 to 1.
            colors: N x 3, BGR 0 to 255, of the persons; None: a palette in turn.

        Raises:
            InputError: The image has another size.
        """
        from glnet_infer.images import check_image
        from glnet_infer.results.drawing import draw_meshes

        height, width = check_image(image).shape[:2]
        if (width, height) != self.image_size:
            raise InputError(
                f"The image is {width} x {height}.",
                why=f"the meshes were recovered from one of {self.image_size[0]} x {self.image_size[1]}",
                fix="draw on the image that the meshes come from",
            )
        return draw_meshes(
            image,
            self.vertices,
            self.faces,
            self.intrinsics.matrix,
            colors=None
            if colors is None
            else as_floats(colors, "The colours are not numbers.", fix="give N x 3, BGR 0 to 255").reshape(-1, 3),
            opacity=opacity,
        )

    def save(self, path: str | Path) -> Path:
        """Write the meshes; the suffix says how.

        ``.glb``, ``.obj`` and ``.ply`` hold geometry (y up, z towards the viewer), ``.npz`` everything, ``.json``
        everything but the vertices.

        Returns:
            The path.

        Raises:
            OutputError: The suffix is unknown, or the file cannot be written; then a file already there is kept.
        """
        path = Path(path)
        writers: dict[str, Callable[[], None]] = {
            ".glb": lambda: formats.write_glb(path, self.vertices, self.faces),
            ".obj": lambda: formats.write_obj(path, self.vertices, self.faces),
            ".ply": lambda: formats.write_ply(path, self.vertices, self.faces),
            ".npz": lambda: formats.write_npz(path, self._arrays()),
            ".json": lambda: formats.write_json(path, self.to_document()),
        }
        if path.suffix.lower() not in writers:
            raise OutputError(
                f"Meshes cannot be saved as {path.name!r}.",
                why=f"the suffix {path.suffix!r} is not known",
                fix=f"use one of {', '.join(writers)}",
            )
        writers[path.suffix.lower()]()
        return path

    def to_document(self) -> dict[str, Any]:
        """Everything but vertices and faces as plain values, person by person."""
        persons = [
            {
                "box": self.boxes[i].tolist(),
                "confidence": float(self.confidence[i]),
                "reference_point": self.reference_points[i].tolist(),
                "translation": self.translation[i].tolist(),
                "betas": self.betas[i].tolist(),
                "rotations": self.rotations[i].tolist(),
                "joints": self.joints[i].tolist(),
                "keypoints_2d": self.keypoints_2d[i].tolist(),
            }
            for i in range(len(self))
        ]
        camera = self.intrinsics
        return {
            "version": DOCUMENT_VERSION,
            "units": {"length": "metre", "image": "pixel", "axes": "x right, y down, z forward"},
            "image_size": list(self.image_size),
            "intrinsics": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
            "joint_names": list(JOINT_NAMES),
            "backend": self.backend,
            "persons": persons,
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        values = {name: getattr(self, name) for name in (*_COLUMNS, "faces", "image_size", "backend")}
        values |= {
            "backend": storable(self.backend),
            "intrinsics": self.intrinsics.matrix,
            "version": DOCUMENT_VERSION,
        }
        # The types that are promised to who reads the file, whatever gave the arrays.
        return {
            name: np.asarray(value, None if name == "backend" else _SPECS[name].dtype) for name, value in values.items()
        }

    @classmethod
    def load(cls, path: str | Path) -> Meshes:
        """Read what :meth:`save` wrote as ``.npz``. Files of strangers are safe to load; what else they hold is left aside.

        Raises:
            InputError: The file is missing, damaged, too large, or does not hold meshes.
        """
        what, fix = f"{path} does not hold meshes.", "give an .npz from Meshes.save"
        values: dict[str, Any] = read_archive(path, _SPECS, InputError, what=what, fix=fix, limit=_LARGEST)
        version = int(values.pop("version"))
        if version != DOCUMENT_VERSION:
            why = f"its version is {version}, this library reads {DOCUMENT_VERSION}"
            raise InputError(what, why=why, fix=fix)
        try:
            values["intrinsics"] = Intrinsics.from_matrix(values["intrinsics"])
        except InputError as error:
            raise InputError(what, why=error.what, fix=fix) from error
        values["image_size"] = tuple(values["image_size"].tolist())
        meshes = cls(**{**values, "backend": str(values["backend"])})
        problem = meshes._problem()
        if problem:
            raise InputError(what, why=problem, fix=fix)
        return meshes

    def _problem(self) -> str:
        """What no method could work with although all arrays have the right form, in words; empty where nothing is."""
        if not all(0 < side < _LONGEST_SIDE for side in self.image_size):
            return f"the image has {self.image_size[0]} x {self.image_size[1]} pixels"
        if self.faces.size and not 0 <= self.faces.min() <= self.faces.max() < self.vertices.shape[1]:
            return "faces name vertices that are not there"
        for name in _COLUMNS:
            if (np.abs(getattr(self, name)) > _FARTHEST).any():
                return f"{name} are beyond {_FARTHEST:g}"
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            return "confidence is not 0 to 1"
        return ""
