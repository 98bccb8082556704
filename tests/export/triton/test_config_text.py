"""config.pbtxt as Triton's own protobuf reads it, every field against the manifest."""

import dataclasses
import json

import pytest

from glnet_export.triton.config_text import Served, Word, frames_config, network_config, text
from glnet_infer.bundle.manifest import Manifest

model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="install the extra triton")
json_format = pytest.importorskip("google.protobuf.json_format")
text_format = pytest.importorskip("google.protobuf.text_format")

ORT = Served("onnxruntime", "model.onnx", 16, 2, 3, None)
CASES = {
    "onnxruntime": (ORT, "fp32"),
    "onnxruntime, mixed": (ORT, "mixed"),
    "onnxruntime, GPU": (dataclasses.replace(ORT, gpu=1, most_crops=1), "fp32"),
    "tensorrt": (Served("tensorrt", "model.plan", 12, 1, 2, None), "fp32"),
    "tensorrt, one GPU": (Served("tensorrt", "model.plan", 12, 1, 2, 3), "mixed"),
}
TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}


def parsed(config):
    """The protobuf, as plain values under its own names. Empty messages and lists stay."""
    return text_format.Parse(text(config), model_config_pb2.ModelConfig())


def plain(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.fixture(scope="module")
def manifest(shared_bundle):
    return Manifest.read(shared_bundle)


def of_precision(manifest, precision):
    graphs = [dataclasses.replace(each, precision=precision) for each in manifest.graphs]
    return dataclasses.replace(manifest, graphs=tuple(graphs))


def expected_network(document, served):
    """What the graph's model has to say, from the manifest's JSON and Triton's documentation."""

    def tensor(spec):
        sides = [document["crop"]["size"] if side == "C" else side for side in spec["shape"][1:]]
        shape = {"dims": [str(side) for side in sides]} if sides else {"dims": ["1"], "reshape": {}}
        return {"name": spec["name"], "data_type": TYPES[spec["dtype"]], **shape}

    def warm_up(crops):
        inputs = {
            spec["name"]: {"data_type": TYPES[spec["dtype"]], "dims": tensor(spec)["dims"], "zero_data": True}
            for spec in document["inputs"]
        }
        return {"name": f"{crops} crops", "batch_size": crops, "inputs": inputs}

    graph = document["graphs"][0]
    group = {"count": served.instances, "kind": "KIND_GPU" if served.backend == "tensorrt" or served.gpu else "KIND_CPU"}
    wanted = {
        "name": "glnet",
        "backend": served.backend,
        "max_batch_size": served.most_crops,
        "default_model_filename": served.file,
        "input": [tensor(spec) for spec in document["inputs"]],
        "output": [tensor(spec) for spec in document["outputs"]],
        "dynamic_batching": {"max_queue_delay_microseconds": "2000"},
        "instance_group": [{**group, "gpus": [served.gpu]} if served.gpu else group],
        "parameters": {"glnet_graph_sha256": {"string_value": graph["file"]["sha256"]}},
        "model_warmup": [warm_up(1), warm_up(served.most_crops)][: 1 if served.most_crops == 1 else 2],
    }
    if served.backend == "onnxruntime" and served.gpu:  # TF32 moves vertices by millimetres
        accelerator = {"name": "cuda", "parameters": {"use_tf32": "0"}}
        wanted["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
    elif served.backend == "onnxruntime" and graph["precision"] == "mixed":
        wanted["optimization"] = {"graph": {"level": 1}}
    return wanted


def expected_frames(document, served):
    """What the model of images has to say."""
    vertices, keypoints = (
        next(each["shape"][1] for each in document["outputs"] if each["name"] == name)
        for name in ("vertices", "keypoints_2d")
    )
    inputs = {
        "image": ("TYPE_STRING", [1]),
        "frame": ("TYPE_UINT8", [-1, -1, 3]),
        "boxes": ("TYPE_FP64", [-1, 4]),
        "camera": ("TYPE_FP64", [4]),
    }
    outputs = {
        "vertices": ("TYPE_FP32", [-1, vertices, 3]),
        "joints": ("TYPE_FP32", [-1, 29, 3]),
        "keypoints_2d": ("TYPE_FP32", [-1, keypoints, 2]),
        "rotations": ("TYPE_FP32", [-1, 24, 3, 3]),
        "betas": ("TYPE_FP32", [-1, 10]),
        "translation": ("TYPE_FP32", [-1, 3]),
        "confidence": ("TYPE_FP32", [-1]),
        "reference_points": ("TYPE_FP32", [-1, 2]),
        "boxes": ("TYPE_FP64", [-1, 4]),
        "camera": ("TYPE_FP64", [4]),
        "image_size": ("TYPE_INT32", [2]),
    }

    def tensors(table, **more):
        return [
            {"name": name, "data_type": kind, "dims": [str(side) for side in dims], **more}
            for name, (kind, dims) in table.items()
        ]

    return {
        "name": "glnet_frames",
        "backend": "python",
        "max_batch_size": served.most_crops,
        "input": [
            {**tensor, **({"allow_ragged_batch": True} if "-1" in tensor["dims"] else {})}
            for tensor in tensors(inputs, optional=True)
        ],
        "output": tensors(outputs),
        "dynamic_batching": {},
        "instance_group": [{"count": served.frame_instances, "kind": "KIND_CPU"}],
        "parameters": {
            "network": {"string_value": "glnet"},
            "detector": {"string_value": "none"},
            "most_crops": {"string_value": str(served.most_crops)},
        },
    }


def configured(manifest, case):
    """The two models' messages, each with what it has to say."""
    served, precision = CASES[case]
    changed = of_precision(manifest, precision)
    document = json.loads(changed.content())
    return {
        "glnet": (parsed(network_config(changed, served)), expected_network(document, served)),
        "glnet_frames": (parsed(frames_config(changed, served, "none")), expected_frames(document, served)),
    }


@pytest.mark.parametrize("model", ["glnet", "glnet_frames"])
@pytest.mark.parametrize("case", CASES)
def test_every_field_is_what_the_manifest_says(manifest, case, model):
    found, wanted = configured(manifest, case)[model]
    assert plain(found) == wanted


def mutations(message, path=""):
    """Where each field of a message is, and what changes it there: another value, or no value."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                if hasattr(value[key], "ListFields"):
                    yield from mutations(value[key], f"{here}[{key}]")
                else:
                    yield f"{here}[{key}]", lambda value=value, key=key: value.__setitem__(key, value[key] + "x")
                yield f"no {here}[{key}]", lambda value=value, key=key: value.pop(key)
        elif field.is_repeated:
            for index in range(len(value)):
                if field.message_type is not None:
                    yield from mutations(value[index], f"{here}[{index}]")
                else:
                    yield f"{here}[{index}]", lambda value=value, index=index: value.__setitem__(index, value[index] + 1)
                yield f"no {here}[{index}]", lambda value=value, index=index: value.__delitem__(index)
        else:
            if field.message_type is not None:
                yield from mutations(value, here)
            else:
                yield here, lambda field=field, value=value: setattr(message, field.name, other(field, value))
            yield f"no {here}", lambda field=field: message.ClearField(field.name)


def other(field, value):
    if field.enum_type is not None:
        return next(each.number for each in field.enum_type.values if each.number != value)
    return {bool: lambda: not value, str: lambda: value + "x"}.get(type(value), lambda: value + 1)()


@pytest.mark.parametrize("model", ["glnet", "glnet_frames"])
@pytest.mark.parametrize("case", CASES)
def test_a_change_of_any_field_is_seen(manifest, case, model):
    """Each alone: the comparison above leaves no field out."""
    names = [name for name, _ in mutations(configured(manifest, case)[model][0])]
    assert len(names) == len(set(names)) > 40
    for number, name in enumerate(names):
        found, wanted = configured(manifest, case)[model]
        _, change = list(mutations(found))[number]
        change()
        assert plain(found) != wanted, name


def test_a_wrong_name_of_a_field_is_refused_by_tritons_own_protobuf(manifest):
    words = text(network_config(manifest, ORT)).replace("max_batch_size", "max_batch_siz")
    with pytest.raises(text_format.ParseError, match="max_batch_siz"):
        text_format.Parse(words, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("value", ['say "this"', "back\\slash", "two\nlines", "Größe 人", "\x00\x7f", "'", "12\u0661"])
def test_texts_of_any_kind_come_back(value):
    assert parsed({"name": value, "backend": "b"}).name == value


def test_scalars_are_written_as_protobuf_has_them():
    assert text({"a": True, "b": False, "c": -3, "d": Word("KIND_CPU"), "e": [1, 2], "f": {}}) == (
        "a: true\nb: false\nc: -3\nd: KIND_CPU\ne: 1\ne: 2\nf {\n}\n"
    )
