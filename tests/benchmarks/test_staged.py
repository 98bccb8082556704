"""Times of a call's parts, with a stopwatch of the test's own."""

import numpy as np
import pytest

from glnet_bench.machine.clocks import HostClock
from glnet_bench.measure.cases import staged_call
from glnet_bench.runners import staged
from glnet_bench.runners.base import Runner, whole_calls
from glnet_bench.runners.staged import StagedCalls, WholeCalls
from glnet_infer.bundle import Bundle
from glnet_infer.contract import GRAPH_OUTPUTS


class Machine:
    """A host and a GPU with one clock, moved by work, in milliseconds."""

    what = "machine"

    def __init__(self):
        self.now = 5000.0

    def perf_counter(self):
        return self.now / 1000

    def mark(self):
        return self.now

    def milliseconds(self, start, end):
        return end - start

    # Steps:

    def upload(self, crops, cameras):
        self.count = len(crops)
        self.now += 2 * self.count

    def execute(self):
        self.now += 10 * self.count

    def download(self):
        self.now += 3
        return {"vertices": np.zeros((self.count, 5, 3))}

    def close(self):
        self.now = None


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(staged.time, "perf_counter", machine.perf_counter)
    return machine


def inputs(count):
    return np.zeros((count, 8, 8, 3), np.uint8), np.zeros((count, 4), np.float32)


def test_parts_of_a_call_add_up_to_it(machine):
    calls = StagedCalls("gpu", machine, machine)
    outputs = calls.run(*inputs(4))
    assert len(outputs["vertices"]) == 4
    assert calls.times == pytest.approx({"upload": 8, "network": 40, "download": 3})
    assert 1000 * (calls.ended - calls.began) == pytest.approx(51)


def test_parts_of_several_calls_are_summed_until_reset(machine):
    calls = StagedCalls("gpu", machine, machine)
    calls.run(*inputs(4))
    began = calls.began
    calls.run(*inputs(1))
    assert calls.times == pytest.approx({"upload": 10, "network": 50, "download": 6})
    assert calls.began == began
    calls.reset()
    calls.run(*inputs(1))
    assert calls.times["network"] == pytest.approx(10)
    assert calls.began > began


def test_on_a_cpu_the_call_is_the_network(machine):
    class Backend:
        name = "cpu"

        def run(self, crops, cameras):
            machine.now += 7
            return {}

    calls = WholeCalls(Backend())
    calls.run(*inputs(2))
    assert calls.times == pytest.approx({"network": 7})


def test_stages_add_up_to_the_whole_call(machine):
    calls = StagedCalls("gpu", machine, machine)

    class Scene:
        image, boxes = None, None

    def recoverer(image, boxes):
        machine.now += 4  # crop
        for count in (2, 1):
            calls.run(*inputs(count))
        machine.now += 6  # packing

    runner = Runner("gpu", calls, calls, "cuda", "mixed", "machine", "", 2, machine.close)
    times = staged_call(runner, recoverer, Scene)
    assert times == pytest.approx(
        {"end_to_end": 52, "crop": 4, "upload": 6, "network": 30, "download": 6, "packing": 6}, abs=1e-6
    )
    assert times["end_to_end"] == pytest.approx(sum(value for name, value in times.items() if name != "end_to_end"))


def test_the_hosts_clock_counts_in_nanoseconds():
    assert HostClock().milliseconds(1_000_000, 3_500_000) == 2.5


@pytest.mark.parametrize("size, batches", [(3, [3, 3, 1]), (None, [7])])
def test_both_backends_run_as_many_crops_at_once_as_the_product_does(shared_bundle, size, batches):
    class Backend:
        name = "counted"

        def __init__(self):
            self.seen = []

        def run(self, crops, cameras):
            self.seen.append(len(crops))
            sizes = {"N": len(crops), "V": 12_408, "K": 31}
            return {
                spec.name: np.zeros([sizes.get(side, side) for side in spec.shape], spec.dtype) for spec in GRAPH_OUTPUTS
            }

        def close(self):
            pass

    backend = Backend()
    if size is not None:
        backend.batch_size = size
    runner = whole_calls("onnxruntime-cpu", backend, "fp32", "counts")
    assert runner.at_once == (size or 16)
    boxes, opened = np.tile([[2.0, 2, 30, 40]], (7, 1)), Bundle.open(shared_bundle)
    for each in (runner.backend, runner.staged):
        backend.seen.clear()
        runner.recoverer(opened, each)(np.zeros((50, 40, 3), np.uint8), boxes)
        assert backend.seen == batches
