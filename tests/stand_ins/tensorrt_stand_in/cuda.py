"""Stand-ins for cuda-core and for the driver's bindings that come with it."""

import itertools
import types
from enum import IntEnum

import numpy as np

from tensorrt_stand_in.machine import PRIMARY

OTHER_GPUS_STREAM = 77


def cuda_driver(machine):
    """A module like ``cuda.bindings.driver``."""
    module = types.ModuleType("cuda.bindings.driver")

    class CUresult(IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_INVALID_VALUE = 1

    class CUpointer_attribute(IntEnum):  # noqa: N801
        CU_POINTER_ATTRIBUTE_CONTEXT = 1
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9

    def cuCtxGetCurrent():  # noqa: N802
        return CUresult.CUDA_SUCCESS, machine.current_context()

    def cuCtxSetCurrent(ctx):  # noqa: N802
        machine.current.context = int(ctx)
        return (CUresult.CUDA_SUCCESS,)

    def cuPointerGetAttribute(attribute, ptr):  # noqa: N802
        place = machine.places.get(ptr, {})
        if place is None:
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        if attribute is CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT:
            return CUresult.CUDA_SUCCESS, place.get("context", PRIMARY)
        return CUresult.CUDA_SUCCESS, place.get("gpu", 0)

    for part in (CUresult, CUpointer_attribute, cuCtxGetCurrent, cuCtxSetCurrent, cuPointerGetAttribute):
        setattr(module, part.__name__, part)
    return module


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

    class DeviceMemoryResourceOptions:
        pass

    class DeviceMemoryResource:
        def __init__(self, device_id, options=None):
            assert options is not None, "the GPU's usual pool keeps what is freed"
            if machine.fails("pools"):
                raise RuntimeError("CUDA_ERROR_NOT_SUPPORTED: operation not supported")
            machine.pools.append(self)

        def close(self):
            machine.pools.remove(self)

        def allocate(self, size, *, stream):
            return _new("device", size)

    class LegacyDeviceMemory:
        def allocate(self, size, *, stream=None):
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

        @property
        def properties(self):
            return types.SimpleNamespace(memory_pools_supported=not machine.fails("pools"))

        @property
        def memory_resource(self):
            return LegacyDeviceMemory()

        def set_current(self, ctx=None):
            machine.current.context = PRIMARY

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
                assert interface["stream"] != OTHER_GPUS_STREAM, "an event of this GPU on another one's stream"
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

    for kind in (Buffer, Device, DeviceMemoryResource, DeviceMemoryResourceOptions, LegacyPinnedMemoryResource, Stream):
        setattr(module, kind.__name__, kind)
    module._graph_classes = (GraphBuilder, Graph)
    module.utils = types.SimpleNamespace(StridedMemoryView=StridedMemoryView)
    return module


def _kind(machine, address):
    for start, (kind, array) in machine.memory.items():
        if start <= address < start + array.size:
            return kind
    raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {address:#x} is nobody's memory")
