"""Plans, records and bundles made for tests."""

import hashlib
import json

import numpy as np

from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import (
    CROPS,
    RUNTIME,
    BodyRecord,
    CropEngineRecord,
    EngineRecord,
    FileRecord,
    GraphRecord,
    NetworkRecord,
)
from glnet_infer.contract import CROP_INPUTS, CROP_OUTPUTS, CROP_REDUCTIONS, GRAPH_INPUTS, CropSpec
from tensorrt_stand_in.computing import FRAME, OUTPUTS, SHAPES, SIDE, SQUARE, VERTICES
from tensorrt_stand_in.trt import RTX_VERSION, VERSION

CROP_GRAPH = "crop.onnx"
TYPES = {"uint8": "UINT8", "float32": "FLOAT", "int32": "INT32"}


def plan(profile=(1, 4, 6), lean=False, **changes):
    """An engine's file as the stand-in reads it; changes are of tensors, by name."""
    tensors, crops = [], _told(profile)
    for spec in (*GRAPH_INPUTS, *OUTPUTS):
        mode = "INPUT" if spec in GRAPH_INPUTS else "OUTPUT"
        tensor = {"name": spec.name, "mode": mode, "dtype": TYPES[spec.dtype], "shape": [crops, *SHAPES[spec.name]]}
        tensor |= {
            "location": "DEVICE",
            "profile": [[n, *SHAPES[spec.name]] for n in profile],
            **changes.get(spec.name, {}),
        }
        if not tensor.get("gone"):
            tensors.append(tensor)
    tensors += changes.get("extra", [])
    return json.dumps({"tensors": tensors, "profile": list(profile), "lean": lean}).encode()


def _told(profile):
    """A number that a profile leaves no choice of is told; -1 stands for others."""
    return profile[0] if profile[0] == profile[2] else -1


def crop_plan(profile=(1, 4, 6), largest=FRAME, **changes):
    """The crop engine's file, likewise."""
    (width, height), crops = largest, _told(profile)
    shapes = {
        "frame": ([-1, -1, 3], [[16, 16, 3], [min(height, 20), min(width, 20), 3], [height, width, 3]]),
        "squares": ([crops, *SQUARE], [[n, *SQUARE] for n in profile]),
        "crops": ([crops, SIDE, SIDE, 3], []),
    }
    tensors = []
    for spec in (*CROP_INPUTS, *CROP_OUTPUTS):
        mode = "INPUT" if spec in CROP_INPUTS else "OUTPUT"
        shape, sizes = shapes[spec.name]
        tensor = {"name": spec.name, "mode": mode, "dtype": TYPES[spec.dtype], "shape": shape, "profile": sizes}
        tensors.append(tensor | {"location": "DEVICE", **changes.get(spec.name, {})})
    return json.dumps({"tensors": tensors, "profile": list(profile)}).encode()


def crop_record(directory, content=None, profile=(1, 4, 6), largest=FRAME, flavor="tensorrt"):
    """Write a crop engine into a directory; its record."""
    path = directory / f"crop.{flavor}.engine"
    path.write_bytes(crop_plan(profile, largest) if content is None else content)
    return CropEngineRecord(record_file(path), largest, CROP_GRAPH)


def engine_record(directory, content=None, profile=(1, 4, 6), **values):
    """Write an engine into a directory; its record."""
    flavor = values.get("flavor", "tensorrt")
    path = directory / f"model.{flavor}.engine"
    path.write_bytes(plan(profile, values.get("lean", False)) if content is None else content)
    default = {
        "file": record_file(path),
        "flavor": flavor,
        "version": VERSION if flavor == "tensorrt" else RTX_VERSION,
        "compute_capabilities": ("8.9",),
        "built_on": "NVIDIA L4",
        "precision": "mixed",
        "profile": tuple(profile),
        "tensors": {spec.name: spec.dtype for spec in (*GRAPH_INPUTS, *OUTPUTS)},
        "layers": {"half": 60, "float": 9, "source": "network"},
        "state": "run",
        "parity": {},
        "seconds": 3.5,
    }
    return EngineRecord(**{**default, **values})


def make_bundle(directory, *records, reductions=CROP_REDUCTIONS):
    """A bundle without a graph that could be run: its files and its manifest agree, which is all that opening it asks."""
    directory.mkdir(exist_ok=True)
    for name in ("model.onnx", CROP_GRAPH):
        (directory / name).write_bytes(b"no graph")
    np.savez(directory / "topology.npz", faces=np.zeros((1, 3), np.int32))
    nothing = FileRecord("body.npz", hashlib.sha256(b"").hexdigest(), 0)
    manifest = Manifest(
        created="2026-01-01",
        versions={},
        network=NetworkRecord("small", "random", "3", "", {}),
        body=BodyRecord("demo", VERTICES, nothing, record_file(directory / "topology.npz")),
        crop=CropSpec(size=SIDE),
        graphs=(
            GraphRecord(record_file(directory / "model.onnx"), RUNTIME, "mixed", 20, 1),
            GraphRecord(record_file(directory / CROP_GRAPH), CROPS, "fp32", 20, 1, reductions=reductions),
        ),
        engines=records,
        outputs=OUTPUTS,
    )
    manifest.write(directory)
    return Bundle.open(directory)


def bundle_of(directory, flavor="tensorrt", crop=True, reductions=CROP_REDUCTIONS, **values):
    """A bundle in a new directory, with an engine and, unless crop is False, its crop engine."""
    directory.mkdir()
    if crop:
        values["crop"] = crop_record(directory, None if crop is True else crop, flavor=flavor)
    return make_bundle(directory, engine_record(directory, flavor=flavor, **values), reductions=reductions)
