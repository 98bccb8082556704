"""The stand-ins themselves: they offer what the real modules have, and cut what the library cuts."""

import ast
import importlib.metadata
import types

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import BOXES, HEIGHT, SIDE, WIDTH, frame_of

from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops


def test_the_stand_in_cuts_what_the_library_cuts():
    frame, squares = frame_of(), CropSquares.around(BOXES, CropSpec(SIDE))
    found = stand_in.cut(frame, squares.in_frame(WIDTH, HEIGHT)).astype(int)
    assert np.abs(found - cut_crops(frame, squares)).max() <= 1


def test_the_stand_in_offers_what_the_real_tensorrt_has(real_rtx, machine):
    for name in ("tensorrt", "tensorrt_rtx"):
        module = stand_in.tensorrt(machine, name)
        kinds = stand_in.public_names(module)
        assert {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "ILogger"} <= set(kinds)
        for kind in kinds:
            real, fake = getattr(real_rtx, kind), getattr(module, kind)
            for attribute in stand_in.public_names(fake):
                assert hasattr(real, attribute), f"{kind}.{attribute}"
        assert all(hasattr(real_rtx.ILogger.Severity, severity.name) for severity in module.ILogger.Severity)
        for severity in module.ILogger.Severity:
            assert int(severity) == int(getattr(real_rtx.ILogger.Severity, severity.name))
        for kind in ("DataType", "TensorIOMode", "TensorLocation", "ExecutionContextAllocationStrategy"):
            assert all(hasattr(getattr(real_rtx, kind), member.name) for member in getattr(module, kind))
    for kind in ("CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy"):  # of the last, TensorRT for RTX
        assert all(hasattr(getattr(real_rtx, kind), member.name) for member in getattr(module, kind))


def test_the_stand_in_offers_what_the_real_driver_bindings_have(machine):
    real, fake = pytest.importorskip("cuda.bindings.driver"), stand_in.cuda_driver(machine)
    for name in stand_in.public_names(fake):
        assert hasattr(real, name), name
    for kind in ("CUresult", "CUpointer_attribute"):
        for member in getattr(fake, kind):
            assert int(getattr(getattr(real, kind), member.name)) == int(member)


def test_the_stand_in_offers_what_the_real_cuda_core_has(machine):
    """By its type stubs: without a driver and its bindings it cannot be imported."""
    try:
        files = importlib.metadata.files("cuda-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cuda-core is not installed")
    real = {}
    for file in files:
        if file.suffix in (".py", ".pyi") and "cu13" in file.parts and "system" not in file.parts:
            for node in ast.parse(file.locate().read_text()).body:
                if isinstance(node, ast.ClassDef):
                    real[node.name] = node
    assert {"ptr", "device_id", "readonly", "is_device_accessible"} <= {
        item.target.id for item in real["StridedMemoryView"].body if isinstance(item, ast.AnnAssign)
    }
    module = stand_in.cuda_core(machine)
    classes = [getattr(module, name) for name in stand_in.public_names(module) if name != "utils"]
    classes += [*module._graph_classes, module.utils.StridedMemoryView]
    assert len(classes) == 9
    for fake in classes:
        methods = _methods(real, fake.__name__)
        for name in stand_in.public_names(fake):
            assert name in methods, f"{fake.__name__}.{name}"
            attribute = vars(fake)[name]
            if isinstance(attribute, classmethod):
                attribute = attribute.__func__
            if isinstance(attribute, types.FunctionType):
                arguments = methods[name].args
                code = attribute.__code__
                taken = code.co_varnames[: code.co_argcount]
                assert taken == tuple(argument.arg for argument in arguments.args), name
                only_by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
                assert only_by_name == tuple(argument.arg for argument in arguments.kwonlyargs), name


def _methods(real, name):
    """A stub class's own and inherited functions."""
    node = real[name]
    methods = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in real:
            methods |= _methods(real, base.id)
    return methods | {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
