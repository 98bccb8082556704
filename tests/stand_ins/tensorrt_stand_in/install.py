"""Puts the stand-ins where the library looks for a GPU, for cuda-core and for TensorRT."""

import sys

import glnet_infer.devices
from glnet_infer.devices import Gpu
from tensorrt_stand_in.cuda import cuda_core, cuda_driver
from tensorrt_stand_in.machine import Machine
from tensorrt_stand_in.trt import RTX_VERSION, VERSION, tensorrt


def install_machine(monkeypatch, cache):
    """A machine with an L4 and cuda-core; what is really installed, and the user's own cache, stay out of it."""
    machine = Machine()
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cuda.core", cuda_core(machine))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", cuda_driver(machine))
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA L4", "8.9")])
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return machine


def install_tensorrt(monkeypatch, machine, name="tensorrt", version=None):
    """Put a TensorRT on the machine, under its module's name; the module."""
    version = version or (RTX_VERSION if name == "tensorrt_rtx" else VERSION)
    module = tensorrt(machine, name, version)
    monkeypatch.setitem(sys.modules, name, module)
    return module
