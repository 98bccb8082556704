"""The layer between engines and CUDA: the same tests on the stand-in, always, and on a GPU, where there is one.

No TensorRT is needed: this is memory, pinned copies, streams, graphs, and arrays of other libraries.
"""

import ctypes

import numpy as np
import pytest
from tensorrt_stand_in import install_machine
from tensorrt_stand_in.arrays import on_gpu, read, tensor

from glnet_infer import BackendError, InputError
from glnet_infer.backends.tensorrt.device_memory import DeviceMemory
from glnet_infer.device_arrays import DeviceArray, Lease
from glnet_infer.devices import gpus

SIZE = 1 << 20  # bytes


class StandIn:
    """Arrays of other libraries on the machine of stand-ins."""

    def __init__(self, monkeypatch, tmp_path):
        self.machine = install_machine(monkeypatch, tmp_path)

    def interface(self, array):
        return on_gpu(self.machine, array)

    def dlpack(self, array):
        return tensor(self.machine, array)

    def read(self, array):
        return read(self.machine, array)

    def free_bytes(self):
        return -sum(self.machine.sizes("device")) - sum(self.machine.sizes("host"))


class RealGpu:
    """The same on a GPU, by torch."""

    def __init__(self):
        self.torch = pytest.importorskip("torch")
        pytest.importorskip("cuda.core")
        if not self.torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")

    def dlpack(self, array):
        with self.torch.cuda.stream(self.torch.cuda.Stream()):  # torch's own work on a stream of its own
            return self.torch.from_numpy(array).pin_memory().cuda(non_blocking=True).flip(0).flip(0).contiguous()

    def interface(self, array):
        kept = self.dlpack(array)

        class Interface:
            @property
            def __cuda_array_interface__(self):
                return kept.__cuda_array_interface__

        return Interface()

    def read(self, array):
        return self.torch.as_tensor(array, device="cuda").cpu().numpy()

    def free_bytes(self):
        return self.torch.cuda.mem_get_info()[0]


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch, tmp_path):
    if request.param == "stand-in":
        return StandIn(monkeypatch, tmp_path / "user-cache")
    if not gpus():
        pytest.skip("no NVIDIA GPU")
    return RealGpu()


@pytest.fixture
def memory(gpu):
    memory = DeviceMemory("rtx")
    with memory.active():
        yield memory
    memory.close()


@pytest.fixture
def content():
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


def fetched(memory, buffer, size=SIZE):
    """The first bytes of a buffer on the GPU."""
    staging, array = memory.allocate_staging(size)
    memory.copy(staging, memory.part(buffer, size))
    memory.synchronize()
    return array.copy()


def test_bytes_go_to_the_gpu_and_come_back(memory, content):
    staging, array = memory.allocate_staging(SIZE)
    assert not array.any()
    array[:] = content
    first, second = memory.allocate(SIZE), memory.allocate(SIZE)
    memory.copy(first, staging)
    memory.copy(second, first)
    assert np.array_equal(fetched(memory, second), content)
    assert np.array_equal(fetched(memory, second, 1000), content[:1000])


def test_a_graph_copies_what_is_there_when_it_is_launched(memory, content):
    staging, array = memory.allocate_staging(SIZE)
    back, result = memory.allocate_staging(SIZE)
    buffer = memory.allocate(SIZE)

    def work():
        memory.copy(buffer, staging)
        memory.copy(back, buffer)

    work()
    memory.synchronize()
    graph = memory.capture(work)
    assert not result.any()  # nothing runs while it is captured
    for shift in range(3):
        array[:] = np.roll(content, shift)
        memory.launch(graph)
        memory.synchronize()
        assert np.array_equal(result, np.roll(content, shift))


def test_a_capture_that_fails_leaves_a_stream_that_works(memory, content):
    def work():
        raise KeyError("of the caller")

    with pytest.raises(BackendError, match="capture a CUDA graph"):
        memory.capture(work)
    staging, array = memory.allocate_staging(SIZE)
    array[:] = content
    buffer = memory.allocate(SIZE)
    memory.copy(buffer, staging)
    assert np.array_equal(fetched(memory, buffer), content)


@pytest.mark.parametrize("speaks", ["interface", "dlpack"])
def test_frames_of_other_libraries_are_read_where_they_lie(gpu, memory, content, speaks):
    frame = content[: 300 * 400 * 3].reshape(300, 400, 3)
    view = memory.foreign(getattr(gpu, speaks)(frame))
    assert tuple(view.shape) == frame.shape and view.dtype == np.uint8 and view.strides in (None, (1200, 3, 1))
    buffer = memory.allocate(frame.size)
    memory.copy(buffer, memory.foreign_buffer(view, frame.size))
    assert np.array_equal(fetched(memory, buffer, frame.size).reshape(frame.shape), frame)


def test_an_array_of_the_host_is_refused(memory, content):
    with pytest.raises(InputError):
        memory.foreign(content)


def test_results_are_read_by_other_libraries_until_their_lease_ends(gpu, memory, content):
    staging, array = memory.allocate_staging(SIZE)
    array[:] = content
    buffer = memory.allocate(SIZE)
    memory.copy(buffer, staging)
    memory.synchronize()
    lease, shape, dtype = Lease(), (4, 1000, 3), np.dtype(np.int32)
    result = DeviceArray(int(buffer.handle), shape, dtype, lease, lambda: memory.strided(buffer, shape, dtype))
    assert np.array_equal(gpu.read(result), content[:48000].view(np.int32).reshape(shape))
    assert result.__dlpack_device__() == (2, 0)
    lease.end("the backend ran again")
    with pytest.raises(BackendError, match="no longer there"):
        result.__cuda_array_interface__  # noqa: B018


def test_the_callers_context_is_current_again(gpu):
    memory = DeviceMemory("rtx")
    _, before = memory._driver.cuCtxGetCurrent()
    with memory.active():
        pass
    _, after = memory._driver.cuCtxGetCurrent()
    assert int(before) == int(after)
    memory.close()


def test_closing_gives_the_memory_back(gpu):
    def use():
        memory = DeviceMemory("rtx")
        with memory.active():
            buffer, (staging, _) = memory.allocate(64 * SIZE), memory.allocate_staging(64 * SIZE)
            memory.copy(buffer, staging)
            memory.free(memory.allocate(SIZE))
            memory.synchronize()
        memory.close()
        memory.close()
        return gpu.free_bytes()

    use()  # the first one loads libraries
    free = [use() for _ in range(5)]
    assert free[0] - free[-1] < 4 * SIZE  # a leak of one round's buffers would be 64


def test_a_copy_larger_than_its_buffer_is_refused(memory):
    small, large = memory.allocate(16), memory.allocate(32)
    with pytest.raises(BackendError, match="CUDA failed to copy"):
        memory.copy(large, small)


def test_pinned_bytes_are_where_the_buffer_says(memory):
    staging, array = memory.allocate_staging(16)
    array[:] = np.arange(16)
    assert bytes((ctypes.c_uint8 * 16).from_address(int(staging.handle))) == bytes(range(16))
