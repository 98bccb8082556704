"""The example of PyCUDA's arrays, on stand-ins."""

import importlib.util
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorrt_stand_in import BOXES, frame_of, put

from glnet_infer import MeshRecoverer

EXAMPLE = Path(__file__).parents[4] / "examples/pycuda_frames.py"


@pytest.fixture
def gpuarray(machine, monkeypatch):
    """A module like ``pycuda.gpuarray`` 2026.1 on the machine's GPU."""

    class GPUArray:
        def __init__(self, shape, dtype, allocator=None, base=None, gpudata=None, strides=None, order="C"):
            self.shape, self.dtype, self.gpudata = tuple(shape), np.dtype(dtype), gpudata
            self.strides = tuple(np.empty(self.shape, self.dtype).strides)

        @property
        def __cuda_array_interface__(self):
            return {
                "shape": self.shape, "strides": self.strides, "data": (int(self.gpudata), False),
                "typestr": self.dtype.str, "stream": None, "version": 3,
            }  # fmt: skip

        def get(self):
            size = int(np.prod(self.shape)) * self.dtype.itemsize
            return machine.at(self.gpudata, size).view(self.dtype).reshape(self.shape).copy()

        def __rmul__(self, factor):
            return to_gpu(np.float32(factor) * self.get())

    def to_gpu(array):
        return GPUArray(array.shape, array.dtype, gpudata=put(machine, array.view(np.uint8)))

    module = types.SimpleNamespace(GPUArray=GPUArray, to_gpu=to_gpu)
    package = types.ModuleType("pycuda")
    package.gpuarray, package.autoprimaryctx = module, types.ModuleType("pycuda.autoprimaryctx")
    for name in ("pycuda", "pycuda.gpuarray", "pycuda.autoprimaryctx"):
        monkeypatch.setitem(sys.modules, name, package if name == "pycuda" else getattr(package, name[7:]))
    return module


def test_the_example_gives_the_vertices_of_the_host(gpuarray, classic, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("pycuda_frames", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    frame = frame_of(seed=2)
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    example.main(str(classic.directory), str(tmp_path / "frame.png"), *(",".join(map(str, box)) for box in BOXES))
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        expected = recoverer(frame, BOXES).vertices
    said = capsys.readouterr().out
    assert said.startswith(f"{len(BOXES)} persons")
    np.testing.assert_allclose(eval(said.partition("(mm): ")[2]), 1000 * expected[:, 0], atol=0.051)  # printed to 0.1 mm
