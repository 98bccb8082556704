"""What several export tests share."""

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
