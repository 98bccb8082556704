"""Persons in motion as binary glTF 2.0: a skinned mesh, a skeleton and an animation for each track.

Every person has a node of their own at the top: programs that import a common node make one skeleton of all.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.files import replace_file
from glnet_infer.results.drawing import DEFAULT_COLORS, vertex_normals
from glnet_infer.results.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, TO_GLTF, GltfBuffer, material
from glnet_infer.results.motion_data import MotionData
from glnet_infer.results.skin import Skin
from glnet_infer.rotations import logarithm
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, PARENTS

_INFLUENCES = 4
"""Joints of a vertex in one set of glTF's attributes. Bodies with more need a second set, which not all programs read."""

_LATEST = 1e5
"""Seconds that float32 tells apart to a hundredth. Recordings with later times begin at zero."""


def write_animated_glb(path: str | PathLike[str], motion: MotionData, skin: Skin) -> None:
    """Write a motion; see :func:`animated_glb`.

    Raises:
        InputError: The skin is of another body.
        OutputError: The file cannot be written.
    """
    replace_file(path, animated_glb(motion, skin))


def animated_glb(motion: MotionData, skin: Skin) -> bytes:
    """A motion as GLB, y up and z towards the viewer, metres. Keys are at the frames' own times.

    A person has one shape, the median of the track's, and the mean of its pose blend shapes, since glTF has none.

    Raises:
        InputError: The skin is of another body.
    """
    motion.check_skin(skin)
    scene = _Scene(skin, motion.frame_times)
    for track in motion.tracks:
        scene.add(track, motion.of(track))
    return scene.pack()


def first_time(times: NDArray[np.float64]) -> float:
    """The recording's time at the animation's zero: 0, but for times that are negative or that float32 cannot hold."""
    return float(times[0]) if len(times) and not 0 <= times[0] <= times[-1] < _LATEST else 0.0


class _Scene:
    def __init__(self, skin: Skin, times: NDArray[np.float64]) -> None:
        self.skin = skin
        self.start = first_time(times)
        self.buffer = GltfBuffer()
        self.roots: list[int] = []
        self.nodes: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.skins: list[dict[str, Any]] = []
        self.channels: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []
        self.shared: dict[str, int] = {}

    def add(self, track: int, person: MotionData) -> None:
        betas = np.median(person.betas, axis=0)[None]
        rest = self.skin.rest_joints(betas)[0, :BODY_JOINTS]
        rotations = person.rotations.astype(np.float64)
        rotations[:, 0] = TO_GLTF[:, None] * rotations[:, 0]
        turns = _quaternions(rotations)
        roots = (person.joints[:, 0] * TO_GLTF).astype("<f4")
        first = len(self.nodes)
        for joint in range(BODY_JOINTS):
            place = rest[joint] - rest[PARENTS[joint]] if joint else roots[0]
            below = [first + child for child in range(1, BODY_JOINTS) if PARENTS[child] == joint]
            node = {"name": JOINT_NAMES[joint], "translation": place.tolist(), "rotation": turns[0, joint].tolist()}
            self.nodes.append(node | ({"children": below} if below else {}))
        self._add_mesh(track, betas, rest, person.rotations, first)
        self.roots += [len(self.nodes), len(self.nodes) + 1]
        self.nodes.append({"name": f"track_{track}", "children": [first]})
        self.nodes.append({"name": f"track_{track}_body", "mesh": len(self.meshes) - 1, "skin": len(self.skins) - 1})
        self._animate(first, person.time, roots, turns)

    def _add_mesh(
        self, track: int, betas: NDArray[Any], rest: NDArray[np.float64], rotations: NDArray[Any], first: int
    ) -> None:
        skin = self.skin
        if not self.shared:
            self.shared = self._share()
        # Blend shapes are linear in the rotations, so their mean is that of the mean rotation.
        vertices = skin.rest_vertices(betas, rotations.mean(axis=0)[None])[0]
        attributes = {
            "POSITION": self.buffer.add(vertices.astype("<f4"), "VEC3", target=ARRAY_BUFFER, bounds=True),
            "NORMAL": self.buffer.add(vertex_normals(vertices, skin.faces).astype("<f4"), "VEC3", target=ARRAY_BUFFER),
            **{name: number for name, number in self.shared.items() if name != "indices"},
        }
        color = len(self.meshes) % len(DEFAULT_COLORS)
        primitive = {"attributes": attributes, "indices": self.shared["indices"], "material": color}
        self.meshes.append({"name": f"track_{track}", "primitives": [primitive]})
        bind = np.tile(np.eye(4), (BODY_JOINTS, 1, 1))
        bind[:, :3, 3] = -rest
        joints = list(range(first, first + BODY_JOINTS))
        matrices = self.buffer.add(bind.swapaxes(1, 2).astype("<f4"), "MAT4")  # column by column
        self.skins.append({"joints": joints, "inverseBindMatrices": matrices, "skeleton": first})

    def _share(self) -> dict[str, int]:
        """Accessors of what all persons have in common: triangles and weights."""
        faces = self.skin.faces.astype("<u4").ravel()
        shared = {"indices": self.buffer.add(faces, "SCALAR", target=ELEMENT_ARRAY_BUFFER, bounds=True)}
        weights = self.skin.weights
        sets = 1 if (np.count_nonzero(weights, axis=1) <= _INFLUENCES).all() else 2
        order = np.argsort(-weights, axis=1, kind="stable")[:, : sets * _INFLUENCES]
        largest = np.take_along_axis(weights, order, axis=1).astype(np.float64)
        largest /= largest.sum(axis=1, keepdims=True)
        order[largest == 0] = 0
        for number in range(sets):
            part = slice(number * _INFLUENCES, (number + 1) * _INFLUENCES)
            joints, share = np.ascontiguousarray(order[:, part], "u1"), np.ascontiguousarray(largest[:, part], "<f4")
            shared[f"JOINTS_{number}"] = self.buffer.add(joints, "VEC4", target=ARRAY_BUFFER)
            shared[f"WEIGHTS_{number}"] = self.buffer.add(share, "VEC4", target=ARRAY_BUFFER)
        return shared

    def _animate(
        self, first: int, times: NDArray[np.float64], roots: NDArray[np.float32], turns: NDArray[np.float64]
    ) -> None:
        moments = (times - self.start).astype("<f4")
        keys = np.flatnonzero(np.diff(moments, prepend=np.float32(-1)) > 0)  # glTF wants times that grow
        moment = self.buffer.add(moments[keys], "SCALAR", bounds=True)
        paths = [(first, "translation", "VEC3", roots[keys])]
        paths += [(first + j, "rotation", "VEC4", turns[keys, j].astype("<f4")) for j in range(BODY_JOINTS)]
        for node, path, kind, values in paths:
            self.channels.append({"sampler": len(self.samplers), "target": {"node": node, "path": path}})
            output = self.buffer.add(values, kind)
            self.samplers.append({"input": moment, "interpolation": "LINEAR", "output": output})

    def pack(self) -> bytes:
        asset = {"version": "2.0", "generator": "glnet-infer", "copyright": f"the body: {self.skin.license}"}
        document: dict[str, Any] = {"asset": asset, "scene": 0, "scenes": [{}]}
        if self.nodes:
            document |= {
                "scenes": [{"nodes": self.roots}],
                "nodes": self.nodes,
                "meshes": self.meshes,
                "skins": self.skins,
                "materials": [material(color) for color in DEFAULT_COLORS[: len(self.meshes)]],
                "animations": [{"name": "motion", "channels": self.channels, "samplers": self.samplers}],
            }
        if self.start:
            document["extras"] = {"start_time": self.start}
        return self.buffer.pack(document)


def _quaternions(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """T x J unit quaternions x, y, z, w; neighbours in time lie on one side, so that interpolation takes the short way."""
    vectors = logarithm(rotations)
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2
    result = np.concatenate([vectors * np.sinc(half / np.pi) / 2, np.cos(half)], axis=-1)
    turned = (result[1:] * result[:-1]).sum(axis=-1) < 0
    sign = np.where(np.cumsum(turned, axis=0) % 2, -1.0, 1.0)
    result[1:] *= sign[..., None]
    return result
