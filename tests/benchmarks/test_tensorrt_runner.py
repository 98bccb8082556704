"""TensorRT's rows on stand-ins for TensorRT and cuda-core."""

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import batch, engine_record, install_machine, install_tensorrt, make_bundle

from glnet_bench.machine.clocks import HostClock
from glnet_bench.runners.base import Options
from glnet_bench.runners.registry import open_product, open_runner
from glnet_bench.runners.tensorrt_runner import open_tensorrt
from glnet_infer import BackendError

FLAVORS = ("tensorrt", "tensorrt-rtx")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with an L4, cuda-core and both TensorRTs."""
    machine = install_machine(monkeypatch, tmp_path / "cache")
    for name in ("tensorrt", "tensorrt_rtx"):
        install_tensorrt(monkeypatch, machine, name)
    return machine


@pytest.fixture
def bundle(tmp_path):
    directory = tmp_path / "bundle"
    directory.mkdir()
    return make_bundle(directory, *(engine_record(directory, flavor=flavor) for flavor in FLAVORS))


def only(bundle, flavor):
    import dataclasses

    engines = tuple(record for record in bundle.manifest.engines if record.flavor == flavor)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, engines=engines))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_timed_steps_give_what_the_product_gives(machine, bundle, flavor):
    runner = open_tensorrt(only(bundle, flavor), HostClock())
    assert (runner.name, runner.device, runner.precision, runner.most_crops) == (flavor, "cuda", "mixed", 6)
    assert not runner.times_itself
    for count in (1, 3, 6, 3):
        crops, cameras = batch(count, seed=count)
        timed, product = runner.staged.run(crops, cameras), runner.backend.run(crops, cameras)
        for name, values in stand_in.results(crops, cameras).items():
            np.testing.assert_array_equal(timed[name], values)
            np.testing.assert_array_equal(product[name], values)
        assert set(runner.staged.times) == {"upload", "network", "download"}
    runner.close()
    runner.close()
    assert not machine.memory


def test_the_engine_alone_is_replayed_from_a_graph(machine, bundle):
    runner = open_tensorrt(only(bundle, "tensorrt"), HostClock())
    crops, cameras = batch(4, seed=4)
    runner.staged.run(crops, cameras)
    machine.events.clear()
    runner.staged.run(crops, cameras)
    # Two copies to the GPU, one launch, eight copies back: the graph holds no copies, or upload could not be told apart.
    assert [event[0] for event in machine.events] == ["copy"] * 2 + ["launch"] + ["copy"] * 8 + ["sync"]
    runner.close()


@pytest.mark.parametrize("trouble", ["deserialize_cuda_engine", "create_execution_context", "allocate host"])
def test_a_runner_that_does_not_open_leaves_no_memory(machine, bundle, trouble):
    machine.trouble.add(trouble)
    with pytest.raises(BackendError):
        open_tensorrt(only(bundle, "tensorrt"), HostClock())
    assert not machine.memory


def test_each_flavor_is_opened_by_its_name_or_refused(machine, bundle, monkeypatch):
    with pytest.raises(BackendError, match="no tensorrt-rtx engine"):
        open_runner("tensorrt-rtx", only(bundle, "tensorrt"), Options())
    monkeypatch.setattr("glnet_bench.runners.tensorrt_runner.CudaEvents", lambda driver, stream: HostClock())
    monkeypatch.setattr(
        "glnet_bench.runners.tensorrt_runner.CudaDriver", lambda: type("Driver", (), {"start": lambda self: self})()
    )
    for flavor in FLAVORS:
        runner = open_runner(flavor, bundle, Options())
        assert f"model.{flavor}.engine" in runner.description
        runner.close()


def test_the_product_is_opened_without_what_times_it(machine, bundle):
    """Or its start and its memory would be told twice."""
    for flavor in FLAVORS:
        machine.events.clear()
        with open_product(flavor, bundle, Options()) as backend:
            assert backend.name == flavor and len(machine.named("deserialize")) == 1
    with pytest.raises(BackendError, match="no tensorrt-rtx engine"):
        open_product("tensorrt-rtx", only(bundle, "tensorrt"), Options())
