"""Ceilings and the floor that follows from them."""

import contextlib
import sys
import types

import pytest

from glnet_bench.floor import ceilings
from glnet_bench.floor.ceilings import Ceilings, best, floor, measure_cpu
from glnet_bench.floor.operations import GraphCost, NodeCost
from glnet_infer import BackendError

MACHINE = Ceilings(operations=1e12, half_operations=4e12, bandwidth=1e11, how="by hand")


def cost(*nodes, weights=0, interface=0):
    return GraphCost(
        crops=1,
        operations=sum(node.operations for node in nodes if not node.half),
        half_operations=sum(node.operations for node in nodes if node.half),
        weights=weights,
        interface=interface,
        moved=sum(node.moved for node in nodes),
        by_operator={},
        not_counted=(),
        nodes=nodes,
    )


def test_a_graph_of_much_arithmetic_is_bound_by_it():
    times = floor(cost(NodeCost("Conv", 10**12, 10**6, False), weights=10**6), MACHINE)
    assert times.bound == times.by_layer == pytest.approx(1000)


def test_half_precision_has_its_own_ceiling():
    nodes = NodeCost("Conv", 4 * 10**9, 0, True), NodeCost("MatMul", 10**9, 0, False)
    assert floor(cost(*nodes), MACHINE).bound == pytest.approx(2)


def test_a_graph_of_many_bytes_is_bound_by_them():
    times = floor(cost(NodeCost("Gemm", 10, 10**9, False), weights=10**9), MACHINE)
    assert times.bound == times.by_layer == pytest.approx(10)


def test_each_layer_has_its_own_limit():
    heavy, wide = NodeCost("Conv", 10**10, 0, False), NodeCost("Conv", 0, 10**9, False)
    times = floor(cost(heavy, wide, interface=10), MACHINE)
    assert times.bound == pytest.approx(10)  # features may stay in caches
    assert times.by_layer == pytest.approx(20)


def test_there_is_no_floor_without_the_ceiling():
    machine = Ceilings(1e12, None, 1e11, "by hand")
    with pytest.raises(BackendError, match="no floor"):
        floor(cost(NodeCost("Conv", 1, 0, True)), machine)


def test_the_best_call_counts_and_the_first_does_not():
    now, times = [0.0], iter([0.1, 5, 3, 4, 2, 6, 7])

    def call():
        now[0] += next(times)

    assert best(call, 0, clock=lambda: now[0]) == pytest.approx(2)


def test_best_goes_on_for_its_time():
    now, calls = [0.0], []

    def call():
        now[0] += 0.01
        calls.append(now[0])

    best(call, 0.5, clock=lambda: now[0])
    assert 50 <= len(calls) - 1 <= 51


def test_a_cpus_ceilings_are_measured(monkeypatch):
    monkeypatch.setattr(ceilings, "best", lambda call: (call(), 0.5)[1])
    found = measure_cpu(2, sides=(8, 16), size=1 << 16)
    assert found.operations == 2 * 16**3 / 0.5
    assert found.bandwidth == 2 * (1 << 16) / 0.5
    assert found.half_operations is None
    assert "16 x 16 x 16" in found.how and "2 threads" in found.how


def test_a_gpu_product_that_would_run_on_the_cpu_is_refused(monkeypatch):
    """ONNX Runtime takes the CPU where CUDA's libraries are missing, and goes on."""

    class Session:
        def __init__(self, model, options, providers, enable_fallback):
            self.get_providers = lambda: ["CPUExecutionProvider"]
            self.get_inputs = self.get_outputs = list

    said = types.SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        InferenceSession=Session,
        SessionOptions=types.SimpleNamespace,
        preload_dlls=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", said)
    monkeypatch.setattr(ceilings, "load_cuda", lambda module: "libcudnn.so.9 not found" if module is said else "")
    with pytest.raises(BackendError) as error:
        ceilings._onnxruntime_product(8, half=False)
    assert error.value.why == "libcudnn.so.9 not found"


class Gpu:
    """A driver whose copies take their time by its own clock: slow at rest, fast after products."""

    def __init__(self, log):
        self.log, self.open = log, []

    def start(self):
        return self

    def new_stream(self):
        self.open.append("stream")
        return 1

    def new_event(self):
        self.open.append("event")
        return len(self.open)

    def free_stream(self, stream):
        self.open.remove("stream")

    def free_event(self, event):
        self.open.remove("event")

    @contextlib.contextmanager
    def memory(self, size):
        yield 1

    def copy(self, target, source, size, stream):
        self.log.append("copy")

    def record(self, event, stream):
        pass

    def elapsed(self, begin, end):
        return 2.0 if "product" in self.log else 20.0  # milliseconds

    def wait(self, event):
        pass


@pytest.fixture
def driver():
    return Gpu([])


@pytest.fixture
def gpu(monkeypatch, driver):
    monkeypatch.setattr(ceilings, "CudaDriver", lambda: driver)
    monkeypatch.setattr(ceilings, "best", lambda call: (call(), 0.5)[1])
    monkeypatch.setattr(ceilings, "least", lambda timed: timed())
    yield driver.log
    assert not driver.open  # streams and events are freed


def test_a_gpu_copies_after_its_products(gpu, monkeypatch):
    """At rest its memory's clock is low."""
    monkeypatch.setattr(ceilings, "_torch_product", lambda side, half: lambda: gpu.append("product"))
    found = ceilings.measure_gpu(with_torch=True, sides=(8, 16), size=1 << 20)
    assert found.bandwidth == pytest.approx(2 * (1 << 20) / 0.002)
    assert found.operations == found.half_operations == 2 * 16**3 / 0.5
    assert "PyTorch products of side 16 and 16, copy of 1 MiB" in found.how


def test_a_bandwidth_is_kept_where_nothing_multiplies(gpu, monkeypatch):
    def missing(side, half):
        raise BackendError("It is built without CUDA.")

    monkeypatch.setattr(ceilings, "_onnxruntime_product", missing)
    found = ceilings.measure_gpu(with_torch=False, sides=(8,), size=1 << 20)
    assert found.bandwidth == pytest.approx(2 * (1 << 20) / 0.02)
    assert found.operations is found.half_operations is None
    assert "ONNX Runtime: It is built without CUDA." in found.how
    with pytest.raises(BackendError, match="no floor"):
        floor(cost(NodeCost("Conv", 1, 0, False)), found)


def test_what_times_itself_is_repeated_for_its_time():
    now, calls = [0.0], []

    def timed():
        now[0] += 0.01
        calls.append(9 - len(calls))
        return max(calls[-1], 3)

    assert ceilings.least(timed, 0.5, clock=lambda: now[0]) == 3
    assert 50 <= len(calls) - 1 <= 51


def test_a_copy_that_fails_leaves_no_events(gpu, driver, monkeypatch):
    def refuse(*_):
        raise BackendError("out of memory")

    monkeypatch.setattr(ceilings, "_torch_product", lambda side, half: lambda: None)
    driver.copy = refuse
    with pytest.raises(BackendError, match="out of memory"):
        ceilings.measure_gpu(with_torch=True, sides=(8,), size=1 << 20)


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    def no_library(name):
        raise OSError(f"{name}: not found")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        ceilings.measure_gpu(with_torch=False)
