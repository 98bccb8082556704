"""Stand-ins for TensorRT and TensorRT for RTX."""

import enum
import json
import types

import numpy as np

from glnet_infer.contract import GRAPH_INPUTS
from tensorrt_stand_in.computing import OUTPUTS, SHAPES, SQUARE, cut, results

VERSION, RTX_VERSION = "10.16.1.11", "1.7.1.116"
SCRATCH = 4096  # bytes that a context works in
STEP = 256  # bytes up to which TensorRT may round an output


def tensorrt(machine, name="tensorrt", version=VERSION):
    """A module like ``tensorrt`` 10.16 or, under the name ``tensorrt_rtx``, like TensorRT for RTX 1.7."""
    trt = types.ModuleType(name)
    trt.__version__ = version
    is_rtx = name == "tensorrt_rtx"

    trt.TensorIOMode = enum.Enum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
    trt.TensorLocation = enum.Enum("TensorLocation", {"DEVICE": 0, "HOST": 1})
    trt.DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "BF16", "INT64"])
    trt.ExecutionContextAllocationStrategy = enum.Enum(
        "ExecutionContextAllocationStrategy", {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}
    )
    if is_rtx:
        trt.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})
        trt.DynamicShapesKernelSpecializationStrategy = enum.Enum(
            "DynamicShapesKernelSpecializationStrategy", {"LAZY": 0, "EAGER": 1, "NONE": 2}
        )

    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class ILogger:
        pass

    ILogger.Severity = Severity
    process_logger = []  # TensorRT keeps the first

    def said(text, severity=Severity.ERROR):
        process_logger[0].log(severity, text)

    def refused(what):
        """Whether something shall fail; the reason goes to the log as TensorRT's do."""
        if machine.fails(what):
            said(f"IStandIn::{what}: Error Code 3: API Usage Error ({what} was told to fail)")
        return machine.fails(what)

    class Runtime:
        def __init__(self, logger):
            assert isinstance(logger, ILogger)
            if not process_logger:
                process_logger.append(logger)

        def deserialize_cuda_engine(self, serialized_engine):
            machine.need_current()
            said("Loaded engine size: 0 MiB", Severity.INFO)
            if refused("deserialize_cuda_engine"):
                return None
            machine.events.append(("deserialize",))
            engine = ICudaEngine.__new__(ICudaEngine)
            engine._plan = json.loads(bytes(serialized_engine))
            if engine._plan.get("lean", False) != (name == "tensorrt_lean"):
                said("Unexpected call to stub loadRunner")
                return None
            return engine

    class ICudaEngine:
        @property
        def num_io_tensors(self):
            return len(self._plan["tensors"])

        @property
        def device_memory_size_v2(self):
            return SCRATCH

        def get_tensor_name(self, index):
            return self._plan["tensors"][index]["name"]

        def _tensor(self, name):
            return next(tensor for tensor in self._plan["tensors"] if tensor["name"] == name)

        def get_tensor_mode(self, name):
            return trt.TensorIOMode[self._tensor(name)["mode"]]

        def get_tensor_dtype(self, name):
            return trt.DataType[self._tensor(name)["dtype"]]

        def get_tensor_location(self, name):
            return trt.TensorLocation[self._tensor(name)["location"]]

        def get_tensor_shape(self, name):
            return tuple(self._tensor(name)["shape"])

        def get_tensor_profile_shape(self, name, profile_index):
            return [tuple(shape) for shape in self._tensor(name)["profile"]]

        def create_execution_context(self, strategy=None):
            machine.need_current()
            if refused("create_execution_context"):
                return None
            given = getattr(strategy, "_strategy", strategy)
            if is_rtx and given is not trt.ExecutionContextAllocationStrategy.USER_MANAGED:
                said("create_execution_context: the engine was built with REQUIRE_USER_ALLOCATION")
                return None
            context = IExecutionContext.__new__(IExecutionContext)
            context._engine, context._given = self, strategy
            context._shapes, context._addresses, context._scratch, context._is_warm = {}, {}, None, False
            machine.contexts.append(context)
            return context

        def create_runtime_config(self):
            if refused("create_runtime_config"):
                return None
            config = IRuntimeConfig.__new__(IRuntimeConfig)
            if is_rtx:
                config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            config._cache, config._strategy = None, trt.ExecutionContextAllocationStrategy.STATIC
            machine.configs.append(config)
            return config

    class IRuntimeConfig:
        def set_execution_context_allocation_strategy(self, strategy=trt.ExecutionContextAllocationStrategy.STATIC):
            self._strategy = strategy

        if is_rtx:
            cuda_graph_strategy = None
            dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.LAZY

            def create_runtime_cache(self):
                cache = IRuntimeCache.__new__(IRuntimeCache)
                cache._kernels = b""
                return cache

            def set_runtime_cache(self, cache=None):
                self._cache = cache
                return not refused("set_runtime_cache")

    class IRuntimeCache:
        def deserialize(self, blob):
            machine.need_current()
            if not bytes(blob).startswith(f"kernels of {version}".encode()):
                said("the runtime cache is of another version", Severity.WARNING)
                return False
            self._kernels = bytes(blob)
            return True

        def serialize(self):
            machine.need_current()
            return bytearray(self._kernels)

    class IExecutionContext:
        def set_device_memory(self, memory, size):
            assert memory % 16 == 0
            self._scratch = (memory, size)

        def _is_given_memory(self):
            strategy = getattr(self._given, "_strategy", self._given)
            return strategy is trt.ExecutionContextAllocationStrategy.USER_MANAGED

        def _names(self, mode):
            return [tensor["name"] for tensor in self._engine._plan["tensors"] if tensor["mode"] == mode]

        def _crops(self):
            shapes = [self._shapes[name] for name in ("crops", "squares") if name in self._shapes]
            return shapes[0][0] if shapes else -1

        def set_input_shape(self, name, shape):
            least, _, most = self._engine.get_tensor_profile_shape(name, 0)
            if refused("set_input_shape") or refused(f"set_input_shape of {name}"):
                return False
            if len(shape) != len(most) or any(not a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
                said(f"set_input_shape: {shape} of {name} is outside the profile")
                return False
            machine.events.append(("shape", name, shape[0]))
            if self._shapes.get(name) != tuple(shape):
                self._is_warm = False
            self._shapes[name] = tuple(shape)
            return True

        def infer_shapes(self):
            if machine.fails("infer_shapes raises"):
                raise RuntimeError("infer_shapes: the very words")
            if machine.fails("infer_shapes"):
                return ["cameras"]
            return [name for name in self._names("INPUT") if name not in self._shapes]

        def get_tensor_shape(self, name):
            crops = self._crops()
            if name in self._shapes:
                return self._shapes[name]
            if machine.fails("get_tensor_shape") and name == "joints":
                return (crops, 7, 3)
            return (crops, *self._engine.get_tensor_shape(name)[1:])

        def get_max_output_size(self, name):
            if not self._shapes:
                return -1
            tensor = self._engine._tensor(name)
            size = self._engine._plan["profile"][2] * int(np.prod(tensor["shape"][1:])) * (1 if name == "crops" else 4)
            size += name == "crops"
            return -(-size // STEP) * STEP

        def set_tensor_address(self, name, memory):
            if refused("set_tensor_address"):
                return False
            if name == "frame" and memory % 256:
                said(f"set_tensor_address: {memory:#x} is not aligned to 256 bytes")
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle):
            machine.need_current()
            if refused("execute_async_v3"):
                return False
            stream = machine.streams.get(stream_handle)
            captures = stream is not None and stream._captured is not None
            names = [tensor["name"] for tensor in self._engine._plan["tensors"]]
            problem = ""
            if stream is None:
                problem = "this is not a stream"
            elif set(self._shapes) != set(self._names("INPUT")) or set(self._addresses) != set(names):
                problem = "shapes or addresses are missing"
            elif self._is_given_memory() and (
                self._scratch is None or self._scratch[1] < SCRATCH or machine.at(*self._scratch).size < SCRATCH
            ):
                problem = "it has no memory to work in"
            elif captures and not self._is_warm:
                problem = "work at new shapes cannot be captured"
            elif captures and is_rtx and self._given.cuda_graph_strategy is trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE:
                problem = "it captures by itself"
            if problem:
                said(f"IExecutionContext::enqueueV3: {problem}")
                return False
            crops, shapes = self._crops(), dict(self._shapes)
            if "frame" in names:
                return self._cut(stream, shapes, captures)
            machine.events.append(("execute", crops, "captured" if captures else "queued"))
            if is_rtx and self._given._cache is not None:
                self._given._cache._kernels = f"kernels of {version} for {crops}".encode()
            addresses = dict(self._addresses)

            def work():
                machine.during_execution()
                inputs = {
                    spec.name: machine.at(addresses[spec.name], crops * _bytes(spec))
                    .view(spec.dtype)
                    .reshape(crops, *SHAPES[spec.name])
                    for spec in GRAPH_INPUTS
                }
                values = results(**inputs)
                for spec in OUTPUTS:
                    room = machine.at(addresses[spec.name], max(self.get_max_output_size(spec.name), 0))
                    room[:] = 0xEE  # TensorRT may write up to there
                    data = values[spec.name].view(np.uint8).ravel()
                    if self._shapes == shapes:
                        room[: data.size] = data

            stream._queue(work)
            self._is_warm = self._is_warm or not captures
            return True

        def _cut(self, stream, shapes, captures):
            if machine.fails("cut"):
                said("IStandIn::cut: Error Code 1: cut was told to fail")
                return False
            machine.events.append(("cut", shapes["squares"][0], shapes["frame"][:2]))
            if is_rtx and self._given._cache is not None:
                self._given._cache._kernels = f"kernels of {version} for crops".encode()
            addresses = dict(self._addresses)

            def work():
                frame = machine.at(addresses["frame"], int(np.prod(shapes["frame"]))).reshape(shapes["frame"])
                count = shapes["squares"][0]
                squares = (
                    machine.at(addresses["squares"], count * int(np.prod(SQUARE)) * 4)
                    .view(np.float32)
                    .reshape(count, *SQUARE)
                )
                room = machine.at(addresses["crops"], max(self.get_max_output_size("crops"), 0))
                room[:] = 0xEE
                crops = cut(frame, squares)
                room[: crops.size] = crops.ravel()

            stream._queue(work)
            return True

    for kind in (ILogger, Runtime, ICudaEngine, IExecutionContext, IRuntimeConfig):
        setattr(trt, kind.__name__, kind)
    if is_rtx:
        trt.IRuntimeCache = IRuntimeCache
    return trt


def _bytes(spec):
    return int(np.prod(SHAPES[spec.name])) * np.dtype(spec.dtype).itemsize
