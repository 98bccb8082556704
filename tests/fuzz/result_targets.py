"""Readers of what this library wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from bundle_targets import tiny_skin
from making import IMAGE, ROOT, file_target
from mutations import (
    change_json,
    change_npz,
)


@cache
def some_meshes() -> Any:
    from glnet_infer import Intrinsics, Meshes

    rng = np.random.default_rng(3)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) + np.float32(3)

    return Meshes(
        vertices=numbers(2, 40, 3),
        joints=numbers(2, 29, 3),
        keypoints_2d=numbers(2, 31, 2),
        rotations=numbers(2, 24, 3, 3),
        betas=numbers(2, 10),
        translation=numbers(2, 3),
        confidence=np.array([0.25, 0.75], np.float32),
        reference_points=numbers(2, 2),
        boxes=np.array([[1.0, 2, 30, 40], [3, 4, 50, 45]]),
        intrinsics=Intrinsics(60.0, 60.0, 32.0, 24.0),
        image_size=(64, 48),
        faces=rng.integers(0, 40, (20, 3)).astype(np.int32),
        backend="none",
    )


def meshes_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [some_meshes().save(Path(folder) / "meshes.npz").read_bytes()]


def read_meshes(path: Path) -> None:
    from glnet_infer import Meshes

    meshes = Meshes.load(path)
    repr(meshes)
    if meshes.image_size == (64, 48):
        meshes.overlay(IMAGE)
    for suffix in ("npz", "json", "obj", "ply", "glb"):
        meshes.save(path.with_name(f"written.{suffix}"))


@cache
def some_motion() -> Any:
    from glnet_infer import Intrinsics
    from glnet_infer.results.motion import Motion

    rng = np.random.default_rng(4)
    frames = np.array([0, 0, 1, 2, 2])
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (5, 24, 3, 3)).copy()
    betas, translation = np.zeros((5, 10), np.float32), rng.normal(size=(5, 3)).astype(np.float32) + np.float32(4)
    skin = tiny_skin()
    joints = skin.pose(eye, betas, translation)[1]
    return Motion(
        frame=frames,
        time=frames / 25,
        track=np.array([1, 2, 1, 1, 2]),
        box=np.tile([1.0, 2, 30, 40], (5, 1)),
        score=np.full(5, 0.5, np.float32),
        confidence=np.full(5, 0.5, np.float32),
        status=np.zeros(5, np.uint8),
        rotations=eye,
        betas=betas,
        translation=translation,
        joints=joints.astype(np.float32),
        keypoints_2d=rng.normal(size=(5, 31, 2)).astype(np.float32),
        frame_numbers=np.arange(3),
        frame_times=np.arange(3) / 25,
        intrinsics=Intrinsics(60.0, 60.0, 32.0, 24.0),
        image_size=(64, 48),
        rate=25.0,
        body="tiny",
        bundle="none",
        backend="none",
        smoothing="",
        threshold=0.4,
    )


def motion_seeds(suffix: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            some_motion().save(Path(folder) / f"motion{suffix}")
            return [(Path(folder) / f"motion{suffix}").read_bytes()]

    return seeds


def read_motion(path: Path) -> None:
    from glnet_infer.results.motion import Motion

    motion = Motion.load(path)
    repr(motion)
    motion.filled(0.5)
    for suffix in ("npz", "json", "glb", "bvh", "amass.npz"):
        motion.save(path.with_name(f"written.{suffix}"), skin=tiny_skin(), rate=25.0)


def bench_seeds() -> list[bytes]:
    found = sorted((ROOT / "benchmarks" / "results").glob("*.json"), key=lambda path: path.stat().st_size)
    document = json.loads(found[0].read_bytes())
    for part in list(document["parts"]):  # a comparison of few times is as good a case, and quicker
        if part.startswith(("soak", "frame", "batch/8")):
            del document["parts"][part]
    return [json.dumps(document).encode()]


def read_bench(path: Path) -> None:
    from glnet_bench.record.files import differences, read_run
    from glnet_bench.report.comparison import compare, document, table
    from glnet_bench.report.page import markdown

    run = read_run(path)
    rows = compare(run, run)
    json.dumps(document(rows, differences(run, run), 0.95))
    table(rows, 0.95)
    markdown(run)


TARGETS = [
    file_target("meshes", meshes_seeds, change_npz, ".npz", read_meshes),
    file_target("motion-npz", motion_seeds(".npz"), change_npz, ".npz", read_motion),
    file_target("motion-json", motion_seeds(".json"), change_json, ".json", read_motion),
    file_target("bench", bench_seeds, change_json, ".json", read_bench),
]
