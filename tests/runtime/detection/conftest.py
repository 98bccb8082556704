"""What the tests of detectors share."""

import onnx
import pytest
from detector_graphs import constant_graph


@pytest.fixture
def fabricate(tmp_path):
    """Writes a graph that gives constants; its path."""

    def write(inputs, outputs, name="detector.onnx"):
        path = tmp_path / name
        onnx.save(constant_graph(inputs, outputs), path)
        return path

    return write
