"""Stand-ins for TensorRT's module and for cuda-core, to drive the engine runtime where there is no GPU.

They keep the names and the habits of the real ones: failures come as None or False with the reason in the log, nothing on a
stream happens before it is waited for, a graph holds on to its context's shapes, and memory has bounds and an end. What
begins with an underscore is the stand-in's own.
"""

import enum
import hashlib
import itertools
import json
import threading
import types

import numpy as np

from glnet_infer.bundle import Bundle, record_file
from glnet_infer.manifest import (
    CROP_INPUTS,
    CROP_OUTPUTS,
    GRAPH_INPUTS,
    BodyRecord,
    CropEngineRecord,
    CropSpec,
    EngineRecord,
    FileRecord,
    GraphRecord,
    Manifest,
    NetworkRecord,
    graph_outputs,
)

SIDE, VERTICES, KEYPOINTS = 32, 5, 3
OUTPUTS = graph_outputs(VERTICES, KEYPOINTS)
SHAPES = {"crops": (SIDE, SIDE, 3), "cameras": (4,), **{spec.name: spec.shape[1:] for spec in OUTPUTS}}
TYPES = {"uint8": "UINT8", "float32": "FLOAT", "int32": "INT32"}
SCRATCH = 4096  # bytes that a context works in
STEP = 256  # bytes up to which TensorRT may round an output
FRAME = (96, 64)  # width and height of the largest frame that the crop engine takes


class Machine:
    """What the stand-ins share: a GPU's memory and streams, a list of what happened, and what shall go wrong."""

    def __init__(self):
        self.events = []
        self.trouble = set()
        self.memory = {}  # address: (kind, array)
        self.streams = {}
        self.contexts = []
        self.configs = []
        self.foreign = []  # work of other libraries on their own streams, which nobody has waited for: (stream, work)
        self.current = threading.local()
        self.during_execution = lambda: None

    def fails(self, what):
        return what in self.trouble

    def at(self, address, size):
        """The bytes at an address, if they belong to one live buffer."""
        for start, (_, array) in self.memory.items():
            if start <= address and address + size <= start + array.size:
                return array[address - start : address - start + size]
        raise RuntimeError(f"CUDA_ERROR_ILLEGAL_ADDRESS: {size} bytes at {address:#x}")

    def new(self, kind, size):
        """The address of fresh memory, aligned as CUDA's is."""
        array = np.full(size + 256, 0xCD, np.uint8)
        array = array[-array.ctypes.data % 256 :][:size]
        self.memory[array.ctypes.data] = (kind, array)
        return array.ctypes.data

    def sizes(self, kind):
        return sorted(array.size for found, array in self.memory.values() if found == kind)

    def need_current(self):
        if not getattr(self.current, "device", None):
            raise RuntimeError("CUDA_ERROR_INVALID_CONTEXT: no device is current in this thread")

    def wait(self, consumer, producer):
        """What another library queued on a stream of its own comes before what our stream does next."""
        self.events.append(("wait", producer))
        work = [work for stream, work in self.foreign if stream == producer]
        self.foreign = [pair for pair in self.foreign if pair[0] != producer]
        for each in work:
            self.streams[consumer]._queue(each)

    def named(self, *names):
        return [event for event in self.events if event[0] in names]


def results(crops, cameras):
    """What the stand-in's engine computes: every value of a row depends on the whole row and on its own place."""
    base = crops.reshape(len(crops), -1).mean(1, dtype=np.float64) + cameras.astype(np.float64) @ [1, 2, 3, 4]
    outputs = {}
    for number, spec in enumerate(OUTPUTS):
        size = int(np.prod(spec.shape[1:]))
        values = base[:, None] * (number + 1) + np.arange(size)
        outputs[spec.name] = values.reshape(len(crops), *spec.shape[1:]).astype(spec.dtype)
    return outputs


def cut(frame, squares):
    """What the stand-in's crop engine computes: GridSample, bilinear, zeros outside, corners not aligned."""
    height, width = frame.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = frame[..., ::-1]
    unit = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    crops = np.empty((len(squares), SIDE, SIDE, 3), np.uint8)
    for crop, (x, y, half_x, half_y) in zip(crops, squares.astype(np.float64), strict=True):
        columns = np.clip((x + unit * half_x + 1) * width / 2 + 0.5, 0, width + 0.999)
        rows = np.clip((y + unit * half_y + 1) * height / 2 + 0.5, 0, height + 0.999)
        left, upper = columns.astype(int), rows.astype(int)
        right_share, lower_share = (columns - left)[None, :, None], (rows - upper)[:, None, None]
        wide = padded[:, left] * (1 - right_share) + padded[:, left + 1] * right_share
        crop[:] = np.rint(wide[upper] * (1 - lower_share) + wide[upper + 1] * lower_share)
    return crops


# cuda-core


def cuda_core(machine):
    """A module like ``cuda.core`` 1.2."""
    module = types.ModuleType("cuda.core")

    class Buffer:
        def __init__(self):
            raise RuntimeError("Buffer objects cannot be instantiated directly.")

        @staticmethod
        def from_handle(ptr, size, mr=None, owner=None, *, stream=None):
            return _buffer(ptr, size, owner)

        @property
        def handle(self):
            return self._address

        @property
        def size(self):
            return self._size

        def copy_from(self, src, *, stream, options=None):
            if src.size != self.size:
                raise ValueError(f"buffer sizes mismatch between src and dst (sizes are: src={src.size}, dst={self.size})")
            if machine.fails("copy"):
                raise RuntimeError("CUDA_ERROR_UNKNOWN: copy refused")
            target, source, size = self._address, src._address, self.size
            kinds = [_kind(machine, address) for address in (source, target)]
            machine.events.append(("copy", *kinds, size))

            def copy():
                machine.at(target, size)[:] = machine.at(source, size)

            stream._queue(copy)

        def close(self, stream=None):
            if self._owner is None:
                machine.memory.pop(self._address, None)

    def _buffer(address, size, owner=None):
        buffer = Buffer.__new__(Buffer)
        buffer._address, buffer._size, buffer._owner = address, size, owner
        return buffer

    def _new(kind, size):
        machine.need_current()
        if machine.fails(f"allocate {kind}"):
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        return _buffer(machine.new(kind, size), size)

    class DeviceMemoryResource:
        def __init__(self, device_id, options=None):
            pass

        def allocate(self, size, *, stream):
            return _new("device", size)

    class LegacyPinnedMemoryResource:
        def allocate(self, size, *, stream=None):
            return _new("host", size)

    class Stream:
        def __init__(self):
            raise RuntimeError("Stream objects cannot be instantiated directly.")

        @property
        def handle(self):
            return self._handle

        def sync(self):
            if self._captured is not None:
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: sync while capturing")
            machine.events.append(("sync", self._handle))
            pending, self._pending = self._pending, []
            if machine.fails("sync"):
                raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED: a kernel failed")
            for work in pending:
                work()

        def create_graph_builder(self):
            builder = GraphBuilder.__new__(GraphBuilder)
            builder._stream, builder._work, builder._open = self, None, False
            return builder

        def close(self):
            machine.streams.pop(self._handle, None)

        def _queue(self, work):
            (self._pending if self._captured is None else self._captured).append(work)

    handles = itertools.count(101)

    class Device:
        def __init__(self, device_id=None):
            if machine.fails("device"):
                raise RuntimeError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")

        def set_current(self, ctx=None):
            machine.current.device = True

        def create_stream(self, obj=None, options=None):
            machine.need_current()
            stream = Stream.__new__(Stream)
            stream._handle, stream._pending, stream._captured = next(handles), [], None
            machine.streams[stream._handle] = stream
            return stream

    class GraphBuilder:
        def __init__(self):
            raise NotImplementedError("directly creating a Graph object can be ambiguous")

        def begin_building(self, mode="relaxed"):
            assert mode in ("global", "thread_local", "relaxed")
            if self._stream._pending:
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_IMPLICIT: the stream is still at work")
            machine.events.append(("begin", mode))
            self._stream._captured, self._open = [], True
            return self

        def end_building(self):
            machine.events.append(("end",))
            self._work, self._stream._captured, self._open = self._stream._captured, None, False
            if machine.fails("capture"):
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: capture refused")
            return self

        def complete(self, options=None):
            graph = Graph.__new__(Graph)
            graph._work = self._work
            return graph

        def close(self):
            if self._open:
                self._stream._captured, self._open = None, False

    class Graph:
        def launch(self, stream):
            if machine.fails("launch"):
                raise RuntimeError("CUDA_ERROR_INVALID_VALUE: launch refused")
            machine.events.append(("launch",))
            for work in self._work:
                stream._queue(work)

        def close(self):
            self._work = None

    class StridedMemoryView:
        """As the real one: DLPack before the other interface, and the consumer's stream waits for the producer's."""

        @classmethod
        def from_any_interface(cls, obj, stream_ptr=None):
            view = cls.__new__(cls)
            if hasattr(obj, "__dlpack__"):
                view._take(**obj.__dlpack__(stream=stream_ptr, max_version=(1, 0)))
                return view
            interface = obj.__cuda_array_interface__
            if interface["version"] < 3:
                raise BufferError("only CUDA Array Interface v3 or above is supported")
            if interface.get("mask") is not None:
                raise BufferError("mask is not supported")
            if interface.get("stream") is not None:
                assert interface["stream"] > 0
                machine.wait(stream_ptr, interface["stream"])
            address, readonly = interface["data"]
            dtype = np.dtype(interface["typestr"])
            strides = interface.get("strides")
            counts = strides and tuple(stride // dtype.itemsize for stride in strides)
            view._take(address, interface["shape"], dtype, counts, 0, readonly)
            return view

        @classmethod
        def from_buffer(cls, buffer, shape, strides=None, *, itemsize=None, dtype=None, is_readonly=False):
            assert buffer.size == int(np.prod(shape)) * dtype.itemsize
            view = cls.__new__(cls)
            view._take(int(buffer.handle), shape, dtype, strides, 0, is_readonly)
            return view

        def _take(self, address, shape, dtype, strides, device_id, readonly):
            machine.need_current()
            kind = _kind(machine, address)
            self.ptr, self._shape, self._dtype, self._strides = address, tuple(shape), dtype, strides
            self.device_id, self.readonly = device_id, readonly
            self.is_device_accessible = kind == "device"

        @property
        def shape(self):
            return self._shape

        @property
        def strides(self):
            return self._strides

        @property
        def dtype(self):
            return self._dtype

        def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
            return {
                "address": self.ptr, "shape": self._shape, "dtype": self._dtype, "strides": self._strides,
                "device_id": self.device_id, "readonly": self.readonly,
            }  # fmt: skip

        def __dlpack_device__(self):
            return 2, self.device_id

    for kind in (Buffer, Device, DeviceMemoryResource, LegacyPinnedMemoryResource, Stream):
        setattr(module, kind.__name__, kind)
    module._graph_classes = (GraphBuilder, Graph)
    module.utils = types.SimpleNamespace(StridedMemoryView=StridedMemoryView)
    return module


def _kind(machine, address):
    for start, (kind, array) in machine.memory.items():
        if start <= address < start + array.size:
            return kind
    raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {address:#x} is nobody's memory")


# TensorRT


def tensorrt(machine, name="tensorrt", version="10.16.1.11"):
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
            config._cache = None
            machine.configs.append(config)
            return config

    class IRuntimeConfig:
        if is_rtx:
            cuda_graph_strategy = None

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
            elif self._given is trt.ExecutionContextAllocationStrategy.USER_MANAGED and (
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
                squares = machine.at(addresses["squares"], count * 16).view(np.float32).reshape(count, 4)
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


def public_names(kind):
    """What a stand-in's class offers of the real one."""
    return sorted(name for name in vars(kind) if not name.startswith("_"))


# Bundles


def plan(profile=(1, 4, 6), **changes):
    """An engine's file as the stand-in reads it; changes are of tensors, by name."""
    tensors = []
    for spec in (*GRAPH_INPUTS, *OUTPUTS):
        mode = "INPUT" if spec in GRAPH_INPUTS else "OUTPUT"
        tensor = {"name": spec.name, "mode": mode, "dtype": TYPES[spec.dtype], "shape": [-1, *SHAPES[spec.name]]}
        tensor |= {
            "location": "DEVICE",
            "profile": [[n, *SHAPES[spec.name]] for n in profile],
            **changes.get(spec.name, {}),
        }
        if not tensor.get("gone"):
            tensors.append(tensor)
    tensors += changes.get("extra", [])
    return json.dumps({"tensors": tensors, "profile": list(profile)}).encode()


def crop_plan(profile=(1, 4, 6), largest=FRAME, **changes):
    """The crop engine's file, likewise."""
    width, height = largest
    shapes = {
        "frame": ([-1, -1, 3], [[16, 16, 3], [min(height, 20), min(width, 20), 3], [height, width, 3]]),
        "squares": ([-1, 4], [[n, 4] for n in profile]),
        "crops": ([-1, SIDE, SIDE, 3], []),
    }
    tensors = []
    for spec in (*CROP_INPUTS, *CROP_OUTPUTS):
        mode = "INPUT" if spec in CROP_INPUTS else "OUTPUT"
        shape, sizes = shapes[spec.name]
        tensor = {"name": spec.name, "mode": mode, "dtype": TYPES[spec.dtype], "shape": shape, "profile": sizes}
        tensors.append(tensor | {"location": "DEVICE", **changes.get(spec.name, {})})
    return json.dumps({"tensors": tensors, "profile": list(profile)}).encode()


def crop_record(directory, content=None, profile=(1, 4, 6), largest=FRAME, flavor="tensorrt"):
    """Write a crop engine into a directory; its record."""
    path = directory / f"crop.{flavor}.engine"
    path.write_bytes(crop_plan(profile, largest) if content is None else content)
    return CropEngineRecord(record_file(path), largest)


def engine_record(directory, content=None, profile=(1, 4, 6), **values):
    """Write an engine into a directory; its record."""
    flavor = values.get("flavor", "tensorrt")
    path = directory / f"model.{flavor}.engine"
    path.write_bytes(plan(profile) if content is None else content)
    default = {
        "file": record_file(path),
        "flavor": flavor,
        "version": "10.16.1.11" if flavor == "tensorrt" else "1.7.1.116",
        "compute_capabilities": ("8.9",),
        "built_on": "NVIDIA L4",
        "precision": "mixed",
        "profile": tuple(profile),
        "tensors": {spec.name: spec.dtype for spec in (*GRAPH_INPUTS, *OUTPUTS)},
        "layers": {"half": 60, "float": 9, "source": "network"},
        "state": "run",
        "parity": {},
        "seconds": 3.5,
    }
    return EngineRecord(**{**default, **values})


def make_bundle(directory, *records):
    """A bundle without a graph that could be run: its files and its manifest agree, which is all that opening it asks."""
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(b"no graph")
    np.savez(directory / "topology.npz", faces=np.zeros((1, 3), np.int32))
    nothing = FileRecord("body.npz", hashlib.sha256(b"").hexdigest(), 0)
    manifest = Manifest(
        created="2026-01-01",
        versions={},
        network=NetworkRecord("small", "random", "3", "", {}),
        body=BodyRecord("demo", VERTICES, nothing, record_file(directory / "topology.npz")),
        crop=CropSpec(size=SIDE),
        graph=GraphRecord(record_file(directory / "model.onnx"), 20, "mixed", 1),
        parity={},
        engines=records,
        outputs=OUTPUTS,
    )
    manifest.write(directory)
    return Bundle.open(directory)
