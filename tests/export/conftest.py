"""What several export tests share."""

import dataclasses
import json
import shutil
import signal

import pytest
import torch


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """glnet-export handles SIGTERM; run inside the test process, it must not keep doing so."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def config_file(small_config, tmp_path_factory):
    """The small network's configuration as a JSON file."""
    path = tmp_path_factory.mktemp("config") / "small.json"
    path.write_text(json.dumps(small_config.to_dict()))
    return path


@pytest.fixture(scope="session")
def state_file(small_recovery, tmp_path_factory):
    """The small network's weights as a bare state dict."""
    path = tmp_path_factory.mktemp("state") / "weights.pth"
    torch.save(small_recovery.network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def add_int8(shared_bundle, small_recovery):
    """Makes a copy of the small bundle with int8 graphs, whose layers are chosen on two crops, and the crops' graph."""
    from glnet_export.crop_graph import CROP_GRAPH_NAME, write_crop_graph
    from glnet_export.engines.progress import StageReport, quietly
    from glnet_export.int8 import stage
    from glnet_export.int8.options import Int8Options
    from glnet_infer.bundle import record_file
    from glnet_infer.bundle.manifest import Manifest
    from glnet_infer.bundle.records import CROPS, GraphRecord
    from glnet_infer.contract import CROP_REDUCTIONS

    def add(path, max_growth, random=False):
        shutil.copytree(shared_bundle, path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "COMPARED", 2)
            patch.setattr(stage, "MOST", 16)
            graphs = stage.Int8Graph(small_recovery, random, Int8Options(crops=32, max_growth=max_growth), StageReport())
            manifest = graphs.add_graphs(path, Manifest.read(path), quietly, engines=True)
        opset, nodes = write_crop_graph(path / CROP_GRAPH_NAME, manifest.crop.size)
        crops = GraphRecord(record_file(path / CROP_GRAPH_NAME), CROPS, "fp32", opset, nodes, reductions=CROP_REDUCTIONS)
        dataclasses.replace(manifest, graphs=(*manifest.graphs, crops)).write(path)

    return add


@pytest.fixture(scope="session")
def int8_bundle(made_once, add_int8):
    """The small bundle with int8 graphs; tests must not change it."""
    return made_once("small-int8", lambda path: add_int8(path, 1))


@pytest.fixture
def traced(monkeypatch, shared_bundle):
    """Replaces the ten seconds of tracing by a copy of the shared bundle's graph; everything else stays real.

    Calling the fixture's value with another file puts that in place instead.
    """
    graph = [shared_bundle / "model.onnx"]
    monkeypatch.setattr("glnet_export.pipeline.trace", lambda _, path: shutil.copy(graph[0], path))

    def use(path):
        graph[0] = path

    return use
