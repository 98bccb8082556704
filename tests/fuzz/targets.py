"""Every reader of files and values that somebody else made, with valid ones to begin from.

Bundles are changed copies of the one that GLNET_SMALL_BUNDLE names.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import Target
from mutations import (
    Mutation,
    Rng,
    change_bytes,
    change_document,
    change_json,
    change_npz,
    change_pickle,
    change_zip_of_pickle,
    pick,
    pickled,
)

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "stand_ins"))

IMAGE = np.random.default_rng(7).integers(0, 255, (48, 64, 3), np.uint8)
_numbers = itertools.count()


def of_files(seeds: Callable[[], Sequence[bytes]], change: Mutation, suffix: str, read: Callable[[Path], object]) -> Any:
    """A target's three functions: files are made from valid ones and read from the disk."""
    valid = cache(seeds)

    def make(rng: Rng) -> bytes:
        contents = valid()
        return change(rng, pick(rng, contents), contents)

    def run(content: bytes, folder: Path) -> object:
        path = folder / f"case{suffix}"
        path.write_bytes(content)
        return read(path)

    return valid, make, run


def saved_npz(arrays: dict[str, Any]) -> bytes:
    output = io.BytesIO()
    np.savez_compressed(output, **arrays)
    return output.getvalue()


@cache
def small_bundle() -> Path:
    """A copy of the bundle that cases may change."""
    return Path(shutil.copytree(os.environ["GLNET_SMALL_BUNDLE"], Path(tempfile.mkdtemp()) / "bundle"))


@cache
def manifest_text() -> bytes:
    return (small_bundle() / "manifest.json").read_bytes()


def with_file(name: str, content: bytes) -> Path:
    """The bundle with another file, which the manifest records as it is."""
    document = json.loads(manifest_text())
    waiting: list[Any] = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict) and each.get("file") == name:
            each.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
    (small_bundle() / name).write_bytes(content)
    (small_bundle() / "manifest.json").write_text(json.dumps(document))
    return small_bundle()


# Bundles.


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


# Networks and bodies.


def config_seeds() -> list[bytes]:
    from glnet.config import GLNetConfig

    return [json.dumps(GLNetConfig().to_dict()).encode(), b'{"name": "mine", "keypoints": 31}']


def read_config(path: Path) -> None:
    from glnet.config import load_config

    load_config(str(path))


@cache
def tiny_network() -> Any:
    from glnet.config import GLNetConfig, HRNetConfig
    from glnet.network import GLNet

    backbone = HRNetConfig(1, 4, (4, 4, 4, 4), (1, 1, 1), 1, (4, 4, 4, 4), 8)
    return GLNet(GLNetConfig(name="tiny", backbone=backbone, pixel_channels=8, part_channels=4))


def checkpoint_seeds() -> list[bytes]:
    import torch

    from glnet.checkpoint import FORMAT, VERSION

    network = tiny_network()
    state = network.state_dict()
    document = {"format": FORMAT, "version": VERSION, "config": network.config.to_dict(), "state_dict": state}
    wrapped = {"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3, "best": np.float64(1)}
    files = []
    for content, zipped in ((document, True), (state, True), (wrapped, True), (document, False)):
        output = io.BytesIO()
        torch.save(content, output, _use_new_zipfile_serialization=zipped)
        files.append(output.getvalue())
    return files


def safetensors_seeds() -> list[bytes]:
    from safetensors.torch import save

    return [save({f"module.{name}": value.contiguous() for name, value in tiny_network().state_dict().items()})]


def read_checkpoint(path: Path) -> None:
    from glnet.checkpoint import Checkpoint
    from glnet_infer.errors import CheckpointError

    try:
        checkpoint = Checkpoint.load(path)
    except CheckpointError as error:
        if "configuration" not in str(error) and "which network" not in str(error):
            raise
        checkpoint = Checkpoint.load(path, tiny_network().config)
    checkpoint.network()


def body_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    vertices = 40
    regressor, weights = rng.random((24, vertices)), rng.random((vertices, 24))
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": rng.normal(size=(vertices, 3, 10)),
        "posedirs": rng.normal(size=(vertices, 3, 207)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, vertices, (20, 3)).astype(np.uint32),
        "kintree_table": np.array([parents, range(24)], np.int64),
        "leaf_vertices": np.arange(5),
    }


def body_pickles() -> list[bytes]:
    arrays = body_arrays()
    lists = {key: value.tolist() for key, value in arrays.items()}
    try:
        from scipy import sparse

        arrays_sparse = {**arrays, "J_regressor": sparse.csc_matrix(arrays["J_regressor"])}
    except ImportError:
        arrays_sparse = arrays
    return [pickled(arrays), pickled(arrays, 4), pickled(arrays_sparse), pickled(lists, 0)]


def read_body(path: Path) -> None:
    from glnet.body import load_body

    load_body(path)


# What comes in.


def boxes_seeds() -> list[bytes]:
    return [b'{"case.png": [[1, 2, 30.5, 40], [5, 5, 60, 47]]}', b'\xef\xbb\xbf{"folder/case.png": [[0, 0, 10, 10]]}']


@cache
def open_recoverer() -> Any:
    from glnet_infer import MeshRecoverer

    return MeshRecoverer(os.environ["GLNET_SMALL_BUNDLE"], "onnxruntime-cpu", threads=1)


def read_boxes(path: Path) -> None:
    from glnet_infer.commands.photographs import Job

    image = path.with_name("case.png")
    if not image.exists():
        cv2.imwrite(str(image), IMAGE)
    job = Job.parse(
        images=[image],
        output=path.parent,
        boxes=[],
        boxes_file=path,
        detector=None,
        threshold=None,
        most=None,
        intrinsics=None,
        formats=[],
    )
    open_recoverer().prepare(IMAGE, job.boxes[image], None)


def valid_arguments() -> list[dict[str, Any]]:
    return [{"boxes": [[1.0, 2, 30, 40], [5, 5, 60, 47]], "camera": [[500.0, 0, 32], [0, 500, 24], [0, 0, 1]]}]


def make_arguments(rng: Rng) -> dict[str, Any]:
    """Boxes and a camera as callers have them, then changed."""
    made: Any = change_document(rng, valid_arguments()[0])
    made = made if isinstance(made, dict) else {"boxes": made}
    for key in ("boxes", "camera"):
        if key in made and rng.random() < 0.5:
            kind = pick(rng, ("f4", "f8", "f2", "i4", "u1", "?", "c8", "U9", "O", "M8[s]", "m8[s]", "S4"))
            with suppress(TypeError, ValueError, OverflowError, Warning):
                made[key] = np.asarray(made[key]).astype(kind)
    return made


def use_arguments(made: dict[str, Any], folder: Path) -> None:
    recoverer = open_recoverer()
    recoverer.recover([recoverer.prepare(IMAGE, made.get("boxes"), made.get("camera"))])


def image_seeds() -> list[bytes]:
    small = IMAGE[:20, :24]
    kinds = {
        ".jpg": small, ".png": small, ".tif": small, ".webp": small, ".bmp": small, ".ppm": small, ".pgm": small[..., 0],
        ".jp2": IMAGE, ".gif": small, ".avif": IMAGE,
    }  # fmt: skip
    found = []
    for suffix, image in kinds.items():
        try:
            written, encoded = cv2.imencode(suffix, image)
        except cv2.error:  # not in every build
            continue
        if written:
            found.append(encoded.tobytes())
    found += [cv2.imencode(".png", np.dstack([small, small[..., :1]]))[1].tobytes()]
    found += [cv2.imencode(".png", small.astype(np.uint16) * 16)[1].tobytes()]
    found += [cv2.imencode(".tif", small.astype(np.uint16) * 16)[1].tobytes()]
    found += [cv2.imencodemulti(".tiff", [small, small])[1].tobytes()]
    return [*found, cv2.imencode(".jpg", cv2.resize(IMAGE, (640, 480)))[1].tobytes()]


def read_image(path: Path) -> None:
    from glnet_infer.image_files import read_image

    read_image(path)


def detector_seeds() -> list[bytes]:
    from detector_graphs import FLOAT, constant_graph

    boxes, logits = np.full((1, 30, 4), 0.3, np.float32), np.zeros((1, 30, 91), np.float32)
    labels, scores = np.zeros((1, 30), np.int64), np.full((1, 30), 0.9, np.float32)
    image = (FLOAT, [1, 3, 64, 64])
    graphs = (
        constant_graph({"input": image}, {"dets": boxes, "labels": logits}),
        constant_graph({"images": image}, {"output": np.full((1, 84, 85), 0.4, np.float32)}),
        constant_graph({"pixel_values": image}, {"logits": logits[..., :80], "pred_boxes": boxes}),
        constant_graph(
            {"images": image, "orig_target_sizes": (7, ["N", 2])}, {"labels": labels, "boxes": boxes * 60, "scores": scores}
        ),
    )
    return [graph.SerializeToString() for graph in graphs]


def read_detector(path: Path) -> None:
    from glnet_infer.detection import find_persons, open_detector

    find_persons(open_detector(path, threads=1), IMAGE)


def video_seeds() -> list[bytes]:
    import av

    found = []
    for container, codec in (("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libvpx-vp9"), ("avi", "mjpeg")):
        output = io.BytesIO()
        with av.open(output, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for shift in range(6):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(IMAGE, shift, 0), "bgr24")))
            file.mux(stream.encode())
        found.append(output.getvalue())
    return found


def read_video(path: Path) -> None:
    from glnet_infer.video.sources import open_source

    with open_source(path) as source:
        for frame in itertools.islice(source, 100):
            frame.image.sum()


# What went out, and comes in again.


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
    return [found[0].read_bytes()]


def read_bench(path: Path) -> None:
    from glnet_bench.record.files import differences, read_run
    from glnet_bench.report.comparison import compare, document, table
    from glnet_bench.report.page import markdown

    run = read_run(path)
    rows = compare(run, run)
    json.dumps(document(rows, differences(run, run), 0.95))
    table(rows, 0.95)
    markdown(run)


def coco_seeds() -> list[bytes]:
    keypoints = [value for index in range(17) for value in (index, index + 1, 2)]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"image_id": 1, "bbox": [1, 2, 30, 40], "keypoints": keypoints, "area": 100.0, "iscrowd": 0, "category_id": 1},
            {"image_id": 1, "bbox": [3, 2, 30, 40], "keypoints": keypoints, "category_id": 1},
        ],
    }
    return [json.dumps(document).encode()]


def read_coco(path: Path) -> None:
    from glnet_train.data.coco import read_coco

    read_coco(path, path.parent)


def hybrik_seeds() -> list[bytes]:
    annotation = {
        "image_id": 1,
        "bbox": [1, 2, 30, 40],
        "thetas": [0.1] * 72,
        "betas": [0.1] * 10,
        "smpl_joints": [[index * 10.0, 5.0, 4000.0] for index in range(29)],
        "h36m_joints": [[index * 10.0, 5.0, 4000.0] for index in range(17)],
        "angle_twist": {"angle": [0.1] * 23, "cos": [0.995] * 23, "sin": [0.1] * 23},
    }
    image = {
        "id": 1,
        "file_name": "a.jpg",
        "width": 64,
        "height": 48,
        "cam_param": {"f": [500.0, 500.0], "c": [32.0, 24.0]},
    }
    return [json.dumps({"images": [image], "annotations": [annotation]}).encode()]


def read_hybrik(path: Path) -> None:
    from glnet_train.data.hybrik import read_h36m

    read_h36m(path, path.parent)


def three_dpw_seeds() -> list[bytes]:
    frames = 2
    content = {
        "sequence": "walk",
        "poses": [np.zeros((frames, 72))],
        "betas": [np.zeros(10)],
        "trans": [np.tile([0.0, 0, 4], (frames, 1))],
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "cam_intrinsics": np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]),
        "img_frame_ids": np.arange(frames),
        "campose_valid": [np.ones(frames, bool)],
        "poses2d": [np.ones((frames, 3, 18))],
        "jointPositions": [np.tile([0.0, 0.1, 4], (frames, 24)) + np.tile(np.arange(72) / 100, (frames, 1))],
        "genders": ["m"],
    }
    return [pickled(content), pickled(content, 4)]


@cache
def demo_body() -> Any:
    from glnet.body import Body, find_body, load_body

    return Body(load_body(find_body("demo")))


def read_three_dpw(path: Path) -> None:
    from glnet_train.data.three_dpw import read_3dpw

    folder = path.parent / "sequenceFiles" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    images = path.parent / "imageFiles" / "walk"
    images.mkdir(parents=True, exist_ok=True)
    if not (images / "image_00000.jpg").exists():
        cv2.imwrite(str(images / "image_00000.jpg"), IMAGE)
    shutil.copy(path, folder / "walk.pkl")
    read_3dpw(path.parent, "train", demo_body())


def _targets() -> list[Target]:
    files = {
        "manifest": (lambda: [manifest_text()], change_json, ".json", read_manifest),
        "topology": (topology_seeds, change_npz, ".npz", read_topology),
        "skin": (skin_seeds, change_npz, ".npz", read_skin),
        "graph": (graph_seeds, change_bytes, ".onnx", read_graph),
        "config": (config_seeds, change_json, ".json", read_config),
        "checkpoint": (checkpoint_seeds, change_zip_of_pickle, ".pth", read_checkpoint),
        "safetensors": (safetensors_seeds, change_bytes, ".safetensors", read_checkpoint),
        "body-pickle": (body_pickles, change_pickle, ".pkl", read_body),
        "body-npz": (lambda: [saved_npz(body_arrays())], change_npz, ".npz", read_body),
        "boxes": (boxes_seeds, change_json, ".json", read_boxes),
        "image": (image_seeds, change_bytes, ".img", read_image),
        "detector": (detector_seeds, change_bytes, ".onnx", read_detector),
        "video": (video_seeds, change_bytes, ".mp4", read_video),
        "meshes": (meshes_seeds, change_npz, ".npz", read_meshes),
        "motion-npz": (motion_seeds(".npz"), change_npz, ".npz", read_motion),
        "motion-json": (motion_seeds(".json"), change_json, ".json", read_motion),
        "bench": (bench_seeds, change_json, ".json", read_bench),
        "coco": (coco_seeds, change_json, ".json", read_coco),
        "hybrik": (hybrik_seeds, change_json, ".json", read_hybrik),
        "3dpw": (three_dpw_seeds, change_pickle, ".pkl", read_three_dpw),
    }
    found = [Target(name, *of_files(*parts)) for name, parts in files.items()]
    return [*found, Target("arguments", valid_arguments, make_arguments, use_arguments)]


TARGETS = {target.name: target for target in _targets()}


def target(name: str) -> Target:
    """The target of a name."""
    return TARGETS[name]
