"""Bundles that are missing, damaged or mixed up are refused with the file, the reason and the remedy."""

import hashlib
import json

import numpy as np
import pytest

from glnet_infer import BundleError
from glnet_infer.bundle import Bundle, check_file, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import FileRecord
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
    "key", ["schema", "created", "network", "body", "crop", "graph", "parity", "inputs", "outputs", "engines", "versions"]
)
def test_missing_key_is_named(bundle, key):
    edit(bundle, lambda document: document.pop(key))
    refused(bundle, "manifest.json is damaged", key, "export the checkpoint again")


@pytest.mark.parametrize(
    "part, key", [("graph", "file"), ("graph", "precision"), ("body", "topology"), ("network", "weights"), ("body", "name")]
)
def test_missing_key_inside_a_part_is_named(bundle, part, key):
    edit(bundle, lambda document: document[part].pop(key))
    refused(bundle, "manifest.json is damaged", key)


@pytest.mark.parametrize("part", ["network", "body", "crop", "graph", "inputs", "outputs", "engines"])
@pytest.mark.parametrize("value", [None, 7])
def test_a_part_of_another_kind_is_damage(bundle, part, value):
    edit(bundle, lambda document: document.update({part: value}))
    refused(bundle, "manifest.json is damaged", "why:")


def test_a_file_name_that_is_no_text_is_damage(bundle):
    edit(bundle, lambda document: document["graph"]["file"].update(file=7))
    refused(bundle, "manifest")


@pytest.mark.parametrize("schema", [0, 2, "1", None, True])
def test_another_schema_version_says_which_is_read(bundle, schema):
    edit(bundle, lambda document: document.update(schema=schema))
    error = refused(bundle, f"schema version {schema!r}", "reads version 1", "export the checkpoint again")
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
    edit(bundle, lambda document: document["graph"]["file"].update(file=name))
    refused(bundle, repr(name) if "/" in name else "", "export")


def test_file_record_is_name_size_and_sha256(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc" * 1_000_000)  # more than one block
    record = record_file(path)
    assert record == FileRecord("data.bin", hashlib.sha256(b"abc" * 1_000_000).hexdigest(), 3_000_000)
    assert check_file(tmp_path, record) == path
