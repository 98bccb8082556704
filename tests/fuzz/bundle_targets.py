"""Readers of bundles."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from making import IMAGE, file_target, manifest_text, saved_npz, small_bundle, with_file
from mutations import (
    change_bytes,
    change_json,
    change_npz,
)


def read_manifest(path: Path) -> None:
    from glnet_infer.bundle.opening import Bundle, check_all_files

    shutil.copy(path, small_bundle() / "manifest.json")
    Bundle.open(small_bundle())
    check_all_files(small_bundle())


def topology_seeds() -> list[bytes]:
    small = saved_npz({"faces": np.array([[0, 1, 2], [2, 1, 3]], np.int32)})
    return [small, (small_bundle() / "topology.npz").read_bytes()]


def read_topology(path: Path) -> None:
    from glnet_infer.bundle.opening import Bundle

    Bundle.open(with_file("topology.npz", path.read_bytes()))


def skin_seeds() -> list[bytes]:
    return [saved_npz(tiny_skin().arrays())]


@cache
def tiny_skin() -> Any:
    from glnet_infer.results.skin import Skin

    rng = np.random.default_rng(1)
    weights = rng.random((40, 24)).astype(np.float32)
    return Skin(
        body="tiny",
        license="",
        template=rng.normal(size=(40, 3)).astype(np.float32),
        shapes=rng.normal(size=(40, 3, 10)).astype(np.float32),
        poses=None,
        weights=weights / weights.sum(1, keepdims=True),
        faces=rng.integers(0, 40, (20, 3)).astype(np.int32),
        joint_template=rng.normal(size=(29, 3)).astype(np.float32),
        joint_shapes=rng.normal(size=(29, 3, 10)).astype(np.float32),
    )


def read_skin(path: Path) -> None:
    from glnet_infer.results.skin import Skin

    skin = Skin.load(path)
    skin.pose(np.broadcast_to(np.eye(3), (1, 24, 3, 3)), np.zeros((1, 10)), np.zeros((1, 3)))


def graph_seeds() -> list[bytes]:
    return [(small_bundle() / "model.onnx").read_bytes()]


def read_graph(path: Path) -> None:
    from glnet_infer import MeshRecoverer

    with MeshRecoverer(with_file("model.onnx", path.read_bytes()), "onnxruntime-cpu", threads=1) as recoverer:
        recoverer(IMAGE)


TARGETS = [
    file_target("manifest", lambda: [manifest_text()], change_json, ".json", read_manifest),
    file_target("topology", topology_seeds, change_npz, ".npz", read_topology),
    file_target("skin", skin_seeds, change_npz, ".npz", read_skin),
    file_target("graph", graph_seeds, change_bytes, ".onnx", read_graph),
]
