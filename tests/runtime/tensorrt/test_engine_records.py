"""What the manifest records of an engine."""

import json

import pytest

from glnet_infer import BundleError
from glnet_infer.bundle.manifest import Manifest


def test_engine_records_survive_the_file(either):
    assert Manifest.read(either.directory) == either.manifest
    [record] = Manifest.read(either.directory).engines
    assert record.profile == (1, 4, 6) and record.compute_capabilities == ("8.9",)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("file", {"file": "../model.engine", "sha256": "", "bytes": 1}, "not a file name"),
        ("file", None, ""),
        ("flavor", "trt", "flavor"),
        ("flavor", None, "flavor"),
        ("version", "", "version"),
        ("version", 10.16, "version"),
        ("compute_capabilities", [], "compute_capabilities"),
        ("compute_capabilities", ["89"], "compute_capabilities"),
        ("compute_capabilities", "8.9", "compute_capabilities"),
        ("compute_capabilities", [8.9], "compute_capabilities"),
        ("precision", "fp16", "precision"),
        ("profile", [1, 4], "profile"),
        ("lean", 1, "lean"),
        ("lean", "yes", "lean"),
        ("profile", [0, 4, 8], "profile"),
        ("profile", [4, 1, 8], "profile"),
        ("profile", [1, 16, 8], "profile"),
        ("profile", [1, 4, 8.0], "profile"),
        ("profile", ["1", "4", "8"], "profile"),
        ("state", "tested", "state"),
    ],
)
def test_engine_records_that_cannot_be_used(classic, key, value, words):
    path = classic.directory / "manifest.json"
    document = json.loads(path.read_text())
    document["engines"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is damaged") as error:
        Manifest.read(classic.directory)
    assert words in error.value.why


def test_engine_records_may_hold_more_and_must_not_hold_less(classic):
    path = classic.directory / "manifest.json"
    document = json.loads(path.read_text())
    document["engines"][0]["from_the_future"] = 1
    path.write_text(json.dumps(document))
    assert Manifest.read(classic.directory) == classic.manifest
    del document["engines"][0]["parity"]
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="parity"):
        Manifest.read(classic.directory)
