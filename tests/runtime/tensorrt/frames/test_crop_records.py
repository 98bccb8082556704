"""What the manifest records of a crop engine."""

import json

import pytest
from tensorrt_stand_in import FRAME

from glnet_infer import BundleError
from glnet_infer.bundle.manifest import Manifest


def test_records_survive_the_file(classic):
    assert Manifest.read(classic.directory) == classic.manifest
    assert classic.manifest.engines[0].crop.largest_frame == FRAME


def changed(bundle, change):
    path = bundle.directory / "manifest.json"
    document = json.loads(path.read_text())
    change(document["engines"][0])
    path.write_text(json.dumps(document))
    return Manifest.read(bundle.directory)


@pytest.mark.parametrize("change", [lambda entry: entry.pop("crop"), lambda entry: entry.update(crop=None)])
def test_manifests_of_earlier_versions_have_none(classic, change):
    assert changed(classic, change).engines[0].crop is None


def test_records_may_hold_more(classic):
    assert changed(classic, lambda entry: entry["crop"].update(from_the_future=1)) == classic.manifest


@pytest.mark.parametrize(
    "key, value",
    [
        ("largest_frame", [96]),
        ("largest_frame", [96, 64, 3]),
        ("largest_frame", [96, 15]),
        ("largest_frame", [96.0, 64]),
        ("largest_frame", ["96", "64"]),
        ("largest_frame", None),
        ("file", {"file": "../crop.engine", "sha256": "", "bytes": 1}),
        ("file", None),
    ],
)
def test_records_that_cannot_be_used(classic, key, value):
    with pytest.raises(BundleError, match="is damaged"):
        changed(classic, lambda entry: entry["crop"].update({key: value}))
