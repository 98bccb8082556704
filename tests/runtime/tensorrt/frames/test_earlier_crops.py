"""Crop engines of earlier versions, which sample large persons without averaging, are never used."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import BOXES, SIDE, bundle_of, frame_of, on_gpu, refused

from glnet_infer import InputError, MeshRecoverer
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops


def forget(directory, *, graph):
    """Make a manifest one of before: graphs said nothing of averages, and the first manifests had no crop graph."""
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    for record in document["graphs"]:
        del record["reductions"]
    if not graph:
        document["graphs"] = document["graphs"][:1]
        for engine in document["engines"]:
            engine["crop"]["graph"] = ""
    path.write_text(json.dumps(document))


@pytest.fixture(params=["no word of averages", "no graph", "other averages"])
def earlier(request, machine, tmp_path):
    other = request.param == "other averages"
    bundle = bundle_of(tmp_path / "bundle", **({"reductions": (1, 2)} if other else {}))
    if not other:
        forget(bundle.directory, graph=request.param != "no graph")
    return bundle.directory


def test_crops_are_cut_on_the_cpu_and_that_is_said(earlier, machine):
    with pytest.warns(RuntimeWarning, match="cut on the CPU: crop.tensorrt.engine .* without averaging") as said:
        recoverer = MeshRecoverer(earlier, "tensorrt")
    assert len(said) == 1
    with recoverer:
        frame = frame_of()
        found = recoverer(frame, BOXES)
    assert not machine.named("cut") and len(machine.named("deserialize")) == 1  # the engine is not even loaded
    squares = CropSquares.around(BOXES, CropSpec(SIDE))
    assert squares.reductions.max() > 1
    expected = stand_in.results(cut_crops(frame, squares), squares.cameras(found.intrinsics))
    np.testing.assert_array_equal(found.vertices, expected["vertices"])


@pytest.mark.filterwarnings("ignore:crops are cut on the CPU")
def test_frames_of_the_gpu_are_refused(earlier, machine):
    with MeshRecoverer(earlier, "tensorrt") as recoverer:
        refused(lambda: recoverer(on_gpu(machine, frame_of()), BOXES), "without averaging", "export", kind=InputError)


def test_a_crop_engine_of_this_version_is_used_without_a_word(machine, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with MeshRecoverer(bundle_of(tmp_path / "bundle").directory, "tensorrt") as recoverer:
            recoverer(frame_of(), BOXES)
    assert len(machine.named("cut")) == 1


def test_a_manifest_says_what_its_crop_graph_averages(machine, tmp_path):
    manifest = Manifest.read(bundle_of(tmp_path / "bundle").directory)
    assert manifest.cuts_as_defined("crop.onnx") and not manifest.cuts_as_defined("model.onnx")
    (engine,) = manifest.engines
    assert manifest.cuts_as_defined(engine.crop.graph) and not manifest.cuts_as_defined("")
    graphs = tuple(dataclasses.replace(graph, reductions=(1,)) for graph in manifest.graphs)
    assert not dataclasses.replace(manifest, graphs=graphs).cuts_as_defined("crop.onnx")
