"""The table of detectors: one place, and a door for other packages."""

import subprocess
import sys

import numpy as np
import pytest
from plugins import write_plugin

from glnet_infer import BackendError, InputError
from glnet_infer.detection import detector_names, kinds, open_detector, registry

PLUGIN = """
import numpy as np
from glnet_infer.detection import Detections, DetectorKind

def left_half(threshold, threads):
    def detect(image):
        height, width = image.shape[:2]
        return Detections(np.array([[0.0, 0, width / 2, height]]), np.array([threshold], np.float32))
    return detect

kind = DetectorKind("left", "the left half", left_half)
other_name = DetectorKind("another", "", left_half)
no_kind = left_half
"""
IMAGE = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture
def plugins(tmp_path):
    """A distribution with entry points of all kinds, good and bad; the folder to put on the path."""
    points = {
        "left": "left_detector:kind",
        "broken": "no_such_module:kind",
        "no-kind": "left_detector:no_kind",
        "misnamed": "left_detector:other_name",
        "nanodet": "left_detector:kind",
        "none": "left_detector:kind",
    }
    return write_plugin(tmp_path, "left_detector", PLUGIN, "glnet_infer.detectors", points)


@pytest.fixture
def with_plugins(plugins, monkeypatch):
    monkeypatch.syspath_prepend(str(plugins))
    kinds.cache_clear()
    yield
    kinds.cache_clear()


def test_another_packages_detector_is_opened_by_its_name(with_plugins):
    assert set(detector_names()) > {"nanodet", "none", "left"}
    found = open_detector("left", threshold=0.25)(IMAGE)
    assert found.boxes.tolist() == [[0, 0, 32, 48]] and found.scores.tolist() == [0.25]


@pytest.mark.parametrize(
    "name, why", [("broken", "no_such_module"), ("no-kind", "not a DetectorKind"), ("misnamed", "calls itself 'another'")]
)
def test_a_broken_one_is_refused_alone(with_plugins, name, why):
    with pytest.raises(BackendError, match="cannot be loaded") as error:
        open_detector(name)
    assert why in error.value.why and ("left_detector" in error.value.fix or name == "broken")
    assert len(open_detector("none")(IMAGE)) == 1


def test_no_package_takes_over_a_name_of_ours(with_plugins):
    assert all(kinds()[kind.name] is kind for kind in registry.BUILT_IN)


def test_help_reads_the_table(plugins):
    code = f"import sys; sys.path.insert(0, {str(plugins)!r}); from glnet_infer.commands.infer import app; app(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("nanodet", "left", "FILE.onnx"))


def test_none_is_one_person_who_fills_the_image():
    found = open_detector("none")(IMAGE)
    assert found.boxes.tolist() == [[0, 0, 64, 48]] and found.scores.tolist() == [1]
    with pytest.raises(InputError, match="NoneType"):
        open_detector("none")(None)


@pytest.mark.parametrize("name", ["yolo", "", "detector.pt", "nanodet:x", "left"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(InputError, match="There is no detector") as error:
        open_detector(name)
    assert repr(name) in error.value.what and "nanodet (NanoDet-g" in error.value.fix
    assert "none (one person fills the image), or FILE.onnx" in error.value.fix
