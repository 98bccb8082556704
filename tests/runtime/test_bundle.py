"""Bundles that are missing, damaged or mixed up are refused with the file, the reason and the remedy."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from glnet_infer import BundleError
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle, check_all_files, check_file, record_file, unknown_entries
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import FileRecord, is_file_name
from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS


def refused(directory, *words):
    """Opening fails and says all of these words, the cause and the remedy."""
    with pytest.raises(BundleError) as error:
        Bundle.open(directory)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.what and error.value.fix
    return error.value


def edit(directory, change):
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_good_bundle_opens(bundle):
    opened = Bundle.open(str(bundle))
    assert opened.graph == bundle / "model.onnx" and opened.directory == bundle
    assert opened.manifest.network.name == "small" and opened.manifest.body.name == "demo"
    with np.load(bundle / "topology.npz") as topology:
        assert np.array_equal(opened.faces, topology["faces"])
    assert opened.faces.dtype == np.int32 and opened.faces.shape[1] == 3


def test_a_bundle_opens_without_its_graph_where_a_server_runs_it(bundle):
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match="incomplete"):
        Bundle.open(bundle)
    opened = Bundle.open(bundle, graph=False)
    assert opened.faces.shape[1] == 3 and opened.manifest.graph.file.file == "model.onnx"
    with pytest.raises(BundleError, match="without its graph"):
        open_backend("onnxruntime-cpu", opened)


def test_manifest_survives_the_file(bundle, tmp_path):
    manifest = Manifest.read(bundle)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert json.loads((tmp_path / "manifest.json").read_text()) == json.loads((bundle / "manifest.json").read_text())
    assert manifest.inputs == GRAPH_INPUTS
    assert [(spec.name, spec.dtype) for spec in manifest.outputs] == [(spec.name, spec.dtype) for spec in GRAPH_OUTPUTS]


def test_missing_directory(tmp_path):
    error = refused(tmp_path / "nowhere", "nowhere", "no such directory", "glnet-export")
    assert error.why


def test_directory_without_manifest(tmp_path):
    refused(tmp_path, str(tmp_path), "no manifest.json", "glnet-export")


def test_a_file_in_place_of_the_directory(bundle):
    refused(bundle / "model.onnx", "model.onnx is not a bundle", "glnet-export")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"schema": 1', b"[1, 2]", b"7", b"null", b"\xff\xfe\x00", b'"schema"', b"{}"]
)
def test_damaged_manifest(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    refused(bundle, "manifest.json is damaged", "why:", "export the checkpoint again")


@pytest.mark.parametrize(
    "key", ["schema", "created", "network", "body", "crop", "graphs", "inputs", "outputs", "engines", "versions"]
)
def test_missing_key_is_named(bundle, key):
    edit(bundle, lambda document: document.pop(key))
    refused(bundle, "manifest.json is damaged", key, "export the checkpoint again")


@pytest.mark.parametrize(
    "part, key",
    [("graphs", "file"), ("graphs", "precision"), ("body", "topology"), ("network", "weights"), ("body", "name")],
)
def test_missing_key_inside_a_part_is_named(bundle, part, key):
    def change(document):
        (document[part][0] if part == "graphs" else document[part]).pop(key)

    edit(bundle, change)
    refused(bundle, "manifest.json is damaged", key)


@pytest.mark.parametrize("part", ["network", "body", "crop", "graphs", "inputs", "outputs", "engines"])
@pytest.mark.parametrize("value", [None, 7])
def test_a_part_of_another_kind_is_damage(bundle, part, value):
    edit(bundle, lambda document: document.update({part: value}))
    refused(bundle, "manifest.json is damaged", "why:")


def test_a_file_name_that_is_no_text_is_damage(bundle):
    edit(bundle, lambda document: document["graphs"][0]["file"].update(file=7))
    refused(bundle, "manifest")


@pytest.mark.parametrize("schema", [0, 3, "1", None, True])
def test_another_schema_version_says_which_is_read(bundle, schema):
    edit(bundle, lambda document: document.update(schema=schema))
    error = refused(bundle, f"schema version {schema!r}", "reads version 2", "export the checkpoint again")
    assert "install the version" in error.fix


def test_a_crop_that_the_network_was_not_trained_with_is_damage(bundle):
    edit(bundle, lambda document: document["crop"].update(size=128))
    refused(bundle, "manifest.json is damaged", "'size': 128", "the network's is")


def test_one_changed_byte_of_the_graph_is_noticed(bundle):
    path = bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(bundle, "model.onnx is not the file", "SHA-256", hashlib.sha256(data).hexdigest()[:12], "copy the bundle again")


def test_truncated_graph_says_how_many_bytes(bundle):
    path = bundle / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    refused(bundle, "model.onnx is not the file", "it has 1000 bytes", f"had {len(data)}", "copy the bundle again")


@pytest.mark.parametrize("name", ["model.onnx", "topology.npz"])
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    refused(bundle, "incomplete", f"{name} is missing", "copy the whole directory")


def test_changed_topology_is_noticed(bundle):
    np.savez_compressed(bundle / "topology.npz", faces=np.zeros((1, 3), np.int32))
    refused(bundle, "topology.npz is not the file", "copy the bundle again")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 a zip file's first bytes only"])
def test_topology_that_is_no_archive(bundle, content):
    path = bundle / "topology.npz"
    path.write_bytes(content)
    record = {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(bundle, lambda document: document["body"].update(topology=record))
    refused(bundle, "topology.npz was not read", "export the checkpoint again")


def test_topology_without_faces(bundle):
    path = bundle / "topology.npz"
    np.savez(path, triangles=np.zeros((1, 3), np.int32))
    data = path.read_bytes()
    record = {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(bundle, lambda document: document["body"].update(topology=record))
    refused(bundle, "topology.npz was not read", "faces")


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "sub/model.onnx", "..", ".", ""])
def test_files_outside_the_bundle_are_not_touched(bundle, name):
    outside = bundle.parent / "model.onnx"
    outside.write_bytes((bundle / "model.onnx").read_bytes())  # the very bytes that the manifest records
    edit(bundle, lambda document: document["graphs"][0]["file"].update(file=name))
    refused(bundle, repr(name) if "/" in name else "", "export")


def test_names_of_files_name_nothing_else_on_any_system():
    assert all(map(is_file_name, ("model.onnx", "..a", "a b.pkl", "ö", "-x", "x" * 255)))
    others = ("", ".", "..", "a/b", "/a", "a/", "a\\b", "C:a", "a\0", "x" * 256, "../a", "a/..")
    assert not any(map(is_file_name, others))


def test_file_record_is_name_size_and_sha256(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc" * 1_000_000)  # more than one block
    record = record_file(path)
    assert record == FileRecord("data.bin", hashlib.sha256(b"abc" * 1_000_000).hexdigest(), 3_000_000)
    assert check_file(tmp_path, record) == path


def as_schema_1(document):
    """The document as version 1 wrote it: one graph, that of engines hidden among the layers of an engine."""
    (runtime,) = document.pop("graphs")
    document.update(schema=1, parity=runtime.pop("parity"), graph=runtime)
    for key in ("purpose", "kept_in_float32", "half_layers"):
        runtime.pop(key)
    document.pop("reference")


def test_a_bundle_of_schema_1_opens(bundle):
    new = Bundle.open(bundle).manifest
    edit(bundle, as_schema_1)
    assert json.loads((bundle / "manifest.json").read_text())["schema"] == 1
    assert Manifest.read(bundle) == new and Bundle.open(bundle).manifest.graph.parity["vertices_mm"] < 0.05


def test_the_graph_of_engines_of_schema_1_gets_a_record(bundle):
    content = b"a graph in mixed precision"
    (bundle / "model.mixed.onnx").write_bytes(content)
    (bundle / "model.rtx-sm89.mixed.engine").write_bytes(b"an engine")
    files = {
        name: dataclasses.asdict(record_file(bundle / name)) for name in ("model.mixed.onnx", "model.rtx-sm89.mixed.engine")
    }
    engine = {
        "file": files["model.rtx-sm89.mixed.engine"],
        "flavor": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capabilities": ["8.9"],
        "built_on": "",
        "precision": "mixed",
        "profile": [1, 4, 16],
        "tensors": {"crops": "uint8"},
        "layers": {
            "half": 80,
            "float": 9,
            "kinds": {"convolution": {"float16": 70, "float32": 1}, "matrix_multiply": {"float16": 4}},
            "graph": files["model.mixed.onnx"],
            "kept_in_float32": ["head"],
        },
        "state": "built, not run",
        "parity": {"module": {"vertices_mean_mm": 0.2}},
        "seconds": 6.1,
    }

    def change(document):
        as_schema_1(document)
        document["engines"] = [engine]

    edit(bundle, change)
    manifest = check_all_files(bundle)
    graph = manifest.graph_for("engines")
    assert graph.file.file == "model.mixed.onnx" and graph.precision == "mixed" and graph.half_layers == 74
    assert graph.kept_in_float32 == ("head",) and graph.parity == {"vertices_mean_mm": 0.2}
    assert manifest.engines[0].graph == "model.mixed.onnx" and manifest.engines[0].parity == {}
    assert "graph" not in manifest.engines[0].layers and not unknown_entries(bundle, manifest)
    (bundle / "model.mixed.onnx").write_bytes(content[::-1])
    with pytest.raises(BundleError, match=r"model\.mixed\.onnx is not the file"):
        check_all_files(bundle)


def test_files_that_the_manifest_does_not_know_are_named(bundle):
    (bundle / "notes.txt").write_text("years of work")
    assert unknown_entries(bundle, check_all_files(bundle)) == ["notes.txt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["graphs"][0]["file"].update(sha256=7),
        lambda document: document["graphs"][0]["file"].update(bytes=-1),
        lambda document: document["graphs"][0]["file"].update(bytes=10**400),
        lambda document: document["graphs"][0]["parity"].update(crops=10**400),
        lambda document: document["graphs"][0]["parity"].update(crops=float("nan")),
        lambda document: document["graphs"][0]["file"].update(bytes=9 << 30),
        lambda document: document["crop"].update(size=32 * 10**5),
        lambda document: document["crop"].update(padding=10**400),
        lambda document: document["outputs"][0].update(shape=["N", 10**30, 3]),
        lambda document: document["body"].update(vertices=10**30),
        lambda document: document["graphs"].append(document["graphs"][0]),
        lambda document: document.update(graphs=[]),
        lambda document: document["network"].update(config={"a": float("inf")}),
        lambda document: document["network"].update(config={"a": json.loads("[" * 100 + "]" * 100)}),
        lambda document: with_crop(document, size=32 * 10**5),
        lambda document: with_crop(document, size=1024 + 32),
        lambda document: with_keypoints(document, 10**7),
        lambda document: with_keypoints(document, 0),
        lambda document: document["graphs"][0].update(opset=10**400),
        lambda document: document["graphs"][0].update(nodes=1 << 63),
    ],
)
def test_numbers_that_would_do_harm_later_are_damage(bundle, change):
    edit(bundle, change)
    refused(bundle, "manifest.json is damaged", "why:")


def with_crop(document, size):
    """The network agrees."""
    document["crop"].update(size=size)
    document["network"]["config"]["crop"] = dict(document["crop"])


def with_keypoints(document, number):
    output = next(output for output in document["outputs"] if output["name"] == "keypoints_2d")
    output["shape"][1] = number


@pytest.mark.parametrize("value", ["x" * 100_000, ["x" * 100_000], {"x" * 100_000: 1}, ["x"] * 100_000, 10**4000])
@pytest.mark.parametrize("place", ["created", "schema", "graphs", "file"])
def test_of_a_long_value_a_message_quotes_little(bundle, place, value):
    if place == "file":
        edit(bundle, lambda document: document["graphs"][0]["file"].update(file=value, sha256=value, bytes=value))
    else:
        edit(bundle, lambda document: document.update({place: [value]}))
    assert len(str(refused(bundle, "manifest.json"))) < 600 + len(str(bundle))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 2, "graphs": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_a_manifest_that_is_nested_deeply_is_damage(bundle, text):
    (bundle / "manifest.json").write_text(text)
    refused(bundle, "manifest.json is damaged")
