"""The table of backends: one place, and a door for other packages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plugins import write_plugin

from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends import backend_names, kinds, registry
from glnet_infer.bundle import Bundle

PLUGIN = """
import numpy as np
from glnet_infer.backends import BackendKind

class Zeros:
    name = "zeros"
    def __init__(self, bundle):
        self.specs = bundle.manifest.outputs
    def run(self, crops, cameras):
        return {spec.name: np.zeros((len(crops), *spec.shape[1:]), spec.dtype) for spec in self.specs}
    def close(self):
        pass

kind = BackendKind("zeros", "nothing at all", lambda bundle, threads: Zeros(bundle), lambda: "available", automatic=True)
other_name = BackendKind("another", "", lambda bundle, threads: Zeros(bundle), lambda: "")
no_kind = Zeros
"""


@pytest.fixture
def plugins(tmp_path):
    """A distribution with entry points of all kinds, good and bad; the folder to put on the path."""
    points = {
        "zeros": "zeros_backend:kind",
        "broken": "no_such_module:kind",
        "no-kind": "zeros_backend:no_kind",
        "misnamed": "zeros_backend:other_name",
        "onnxruntime-cpu": "zeros_backend:kind",
        "auto": "zeros_backend:kind",
    }
    return write_plugin(tmp_path, "zeros_backend", PLUGIN, "glnet_infer.backends", points)


@pytest.fixture
def with_plugins(plugins, monkeypatch):
    monkeypatch.syspath_prepend(str(plugins))
    kinds.cache_clear()
    yield
    kinds.cache_clear()


def test_another_packages_backend_runs_by_its_name(with_plugins, shared_bundle):
    assert set(backend_names()) > {"auto", "tensorrt", "onnxruntime-cpu", "zeros"}
    with MeshRecoverer(shared_bundle, "zeros") as recoverer:
        assert recoverer.backend == "zeros" and "zeros" in repr(recoverer)
        assert not recoverer(np.zeros((64, 64, 3), np.uint8)).vertices.any()


@pytest.mark.parametrize(
    "name, why", [("broken", "no_such_module"), ("no-kind", "not a BackendKind"), ("misnamed", "calls itself 'another'")]
)
def test_a_broken_one_is_refused_alone(with_plugins, shared_bundle, name, why):
    with pytest.raises(BackendError, match="cannot be loaded") as error:
        MeshRecoverer(shared_bundle, name)
    assert (why in error.value.why and "zeros_backend" in error.value.fix) or "no_such_module" in error.value.fix
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        assert recoverer.backend == "onnxruntime-cpu"


def test_no_package_takes_over_a_name_of_ours_or_auto(with_plugins, shared_bundle, monkeypatch):
    assert kinds()["onnxruntime-cpu"] in registry.BUILT_IN and "auto" not in kinds()
    monkeypatch.setattr("glnet_infer.devices.gpus", list)
    assert registry.choose_backend(Bundle.open(shared_bundle)).name == "onnxruntime-cpu"


def test_help_and_doctor_read_the_table(plugins):
    def run(code):
        path = f"import sys; sys.path.insert(0, {str(plugins)!r}); "
        done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = " ".join(run("from glnet_infer.commands.infer import app; app(['--help'])").split())
    text = text.replace("- ", "-")  # lines end at hyphens
    assert all(name in text for name in ("onnxruntime-cuda", "zeros"))
    report = json.loads(run("from glnet_infer.commands.doctor import app; app(['--json'])"))
    assert report["backends"]["zeros"] == "available" and "no_such_module" in report["backends"]["broken"]


@pytest.mark.parametrize("kind", registry.BUILT_IN, ids=lambda kind: kind.name)
def test_what_installs_a_backend_exists(kind):
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 or newer")

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert kind.extra in extras and kind.packages and kind.runs and kind.state()


def test_auto_ends_with_one_that_starts_surely():
    last = [kind for kind in registry.BUILT_IN if kind.automatic][-1]
    assert last.starts_surely and not last.needs_gpu
