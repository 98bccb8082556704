"""Batches of crops on stand-ins for TensorRT and cuda-core: every row in its place, buckets, contexts and graphs."""

import sys

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import (
    OUTPUTS,
    SCRATCH,
    SIDE,
    STEP,
    batch,
    bundle_of,
    crop_plan,
    engine_record,
    make_bundle,
    refused,
    right,
)

from glnet_infer import MeshRecoverer
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.backends.tensorrt.execution import buckets

NAMES = ["crops", "cameras", *(spec.name for spec in OUTPUTS)]


# Results


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 20])
def test_padding_and_pieces_leave_every_row_in_its_place(either, count):
    with TensorRtBackend(either) as backend:
        for seed in range(2):  # the second time the graphs are there
            crops, cameras = batch(count, seed)
            right(backend.run(crops, cameras), crops, cameras)


def test_results_do_not_change_with_the_next_run(classic):
    with TensorRtBackend(classic) as backend:
        crops, cameras = batch(3)
        outputs = backend.run(crops, cameras)
        backend.run(*batch(3, seed=1))
        right(outputs, crops, cameras)


def test_a_view_of_other_memory_order_is_run_as_it_reads(classic):
    crops, cameras = batch(8)
    with TensorRtBackend(classic) as backend:
        right(backend.run(crops[::2, :, ::-1], cameras[::2]), crops[::2, :, ::-1], cameras[::2])


def test_no_crops_are_no_rows(classic):
    with TensorRtBackend(classic) as backend:
        outputs = backend.run(*batch(0))
    assert {name: values.shape for name, values in outputs.items()} == {spec.name: (0, *spec.shape[1:]) for spec in OUTPUTS}


def test_a_recoverer_runs_it(classic, machine):
    with MeshRecoverer(classic.directory, "tensorrt", batch_size=5) as recoverer:
        meshes = recoverer(np.zeros((40, 60, 3), np.uint8), [[0, 0, 20, 30]] * 7)
        assert recoverer.backend == meshes.backend == "tensorrt" and len(meshes) == 7
    assert [event[1] for event in machine.named("execute") if event[2] == "captured"] == [6, 2]


@pytest.mark.parametrize(
    "crops, cameras, words",
    [
        (np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 4), np.float32), ["crops is uint8 (2, 16, 16, 3)", "32 x 32 x 3"]),
        (np.zeros((2, SIDE, SIDE, 3), np.float32), np.ones((2, 4), np.float32), ["crops is float32", "uint8"]),
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), np.ones((2, 4)), ["cameras is float64", "float32"]),
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), np.ones((1, 4), np.float32), ["cameras is float32 (1, 4)"]),
    ],
)
def test_arrays_that_are_not_the_graphs_inputs(classic, crops, cameras, words):
    with TensorRtBackend(classic) as backend:
        refused(lambda: backend.run(crops, cameras), "failed on 2 crops", *words)


# Buckets and graphs


@pytest.mark.parametrize(
    "least, most, expected",
    [
        (1, 1, (1,)),
        (1, 2, (1, 2)),
        (1, 6, (1, 2, 4, 6)),
        (1, 16, (1, 2, 4, 8, 16)),
        (3, 16, (4, 8, 16)),
        (4, 4, (4,)),
        (5, 6, (6,)),
        (1, 33, (1, 2, 4, 8, 16, 32, 33)),
    ],
)
def test_buckets_are_powers_of_two_and_the_largest(least, most, expected):
    assert buckets(least, most) == expected


@pytest.mark.parametrize("count, bucket", [(1, [1]), (2, [2]), (3, [4]), (4, [4]), (5, [6]), (6, [6]), (7, [6, 1])])
def test_a_batch_runs_in_the_smallest_bucket_that_holds_it(either, machine, count, bucket):
    with TensorRtBackend(either) as backend:
        assert backend.buckets == (1, 2, 4, 6)
        backend.run(*batch(count))
    assert [event[1] for event in machine.named("execute") if event[2] == "queued"] == bucket


def test_a_profile_that_begins_later_pads_up_to_it(install, tmp_path, machine):
    install()
    bundle = make_bundle(tmp_path / "b", engine_record(tmp_path, profile=(3, 4, 5)))
    (tmp_path / "model.tensorrt.engine").rename(tmp_path / "b/model.tensorrt.engine")
    with TensorRtBackend(bundle) as backend:
        crops, cameras = batch(6)
        right(backend.run(crops, cameras), crops, cameras)
        assert backend.buckets == (4, 5)


@pytest.mark.parametrize("flavor, module", [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_an_engine_of_one_batch_size(install, tmp_path, flavor, module):
    install(module)
    profile = (4, 4, 4)
    bundle = bundle_of(tmp_path / "b", flavor, crop=crop_plan(profile), profile=profile)
    with TensorRtBackend(bundle) as backend:
        for count in (1, 4, 6):
            crops, cameras = batch(count)
            right(backend.run(crops, cameras), crops, cameras)
        assert backend.buckets == (4,)


def test_a_graph_is_captured_after_a_run_that_was_waited_for(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.events.clear()
        backend.run(*batch(3))
        first = [event[0] for event in machine.events if event[0] != "shape"]
        copies = ["copy"] * 2 + ["execute"] + ["copy"] * 8
        assert first == [*copies, "sync", "begin", *copies, "end", "launch", "sync"]
        assert machine.named("begin") == [("begin", "thread_local")]
        machine.events.clear()
        backend.run(*batch(4))
        assert [event[0] for event in machine.events] == ["launch", "sync"]


def test_inputs_go_up_and_outputs_come_down_by_the_buckets_bytes(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        machine.events.clear()
        backend.run(*batch(3))
    copies = machine.named("copy")
    assert copies[:2] == [("copy", "host", "device", 4 * SIDE * SIDE * 3), ("copy", "host", "device", 4 * 16)]
    sizes = [4 * int(np.prod(spec.shape[1:])) * 4 for spec in OUTPUTS]
    assert copies[2:] == [("copy", "device", "host", size) for size in sizes]


def test_every_bucket_has_a_context_of_its_own_in_shared_memory(classic, machine):
    with TensorRtBackend(classic) as backend:
        for count in (1, 6, 2, 1, 4, 6):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
        assert len(machine.contexts) == 4
        assert sorted(context._shapes["crops"][0] for context in machine.contexts) == [1, 2, 4, 6]
        assert len({context._scratch for context in machine.contexts}) == 1
        strategies = {context._given.name for context in machine.contexts}
    assert strategies == {"USER_MANAGED"} and machine.contexts[0]._scratch[1] == SCRATCH


def test_without_graphs_one_context_changes_its_shapes(classic, machine):
    with TensorRtBackend(classic, cuda_graphs=False) as backend:
        for count in (1, 6, 2, 1, 4):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
    assert len(machine.contexts) == 1 and not machine.named("begin", "launch")


def test_rtx_captures_by_itself(rtx, machine):
    with TensorRtBackend(rtx) as backend:
        for count in (1, 6, 2, 1):
            crops, cameras = batch(count, count)
            right(backend.run(crops, cameras), crops, cameras)
        assert backend.name == "tensorrt-rtx"
    assert [config.cuda_graph_strategy.name for config in machine.configs] == ["WHOLE_GRAPH_CAPTURE"]
    assert {context._given for context in machine.contexts} == set(machine.configs)
    assert not machine.named("begin", "launch")
    # One context for each size: TensorRT for RTX captures anew when a context's shapes change.
    assert sorted(context._shapes["crops"][0] for context in machine.contexts) == [1, 2, 6]
    assert len({context._scratch for context in machine.contexts}) == 1


def test_rtx_without_graphs(rtx, machine):
    with TensorRtBackend(rtx, cuda_graphs=False) as backend:
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)
    assert [config.cuda_graph_strategy.name for config in machine.configs] == ["DISABLED"]


def test_a_gpu_without_memory_pools(classic, machine):
    machine.trouble = {"pools"}
    with TensorRtBackend(classic) as backend:
        crops, cameras = batch(3)
        right(backend.run(crops, cameras), crops, cameras)
    assert not machine.memory


def test_an_older_tensorrt_without_runtime_configurations(classic, machine):
    del sys.modules["tensorrt"].ICudaEngine.create_runtime_config
    with TensorRtBackend(classic) as backend:
        crops, cameras = batch(3)
        right(backend.run(crops, cameras), crops, cameras)


def test_every_tensor_has_an_address_in_a_buffer_for_the_largest_batch(either, machine):
    with TensorRtBackend(either) as backend:
        backend.run(*batch(1))
        for context in machine.contexts:
            assert sorted(context._addresses) == sorted(NAMES)
            assert len(set(context._addresses.values())) == len(NAMES)
            for name, address in context._addresses.items():
                shape, step = stand_in.SHAPES[name], 1 if name in ("crops", "cameras") else STEP
                size = 6 * int(np.prod(shape)) * (1 if name == "crops" else 4)
                kind, array = machine.memory[address]
                # What TensorRT may write of an output is more than its own bytes.
                assert (kind, array.size) == ("device", -(-size // step) * step), name
        own = sorted(6 * int(np.prod(shape)) * (1 if name == "crops" else 4) for name, shape in stand_in.SHAPES.items())
        assert machine.sizes("host") == own


def test_padding_before_the_first_batch_is_an_ordinary_camera(classic):
    with TensorRtBackend(classic) as backend:
        cameras = backend._open().inputs["cameras"]
        assert np.array_equal(cameras, np.tile(np.float32([1000 / 256, 1000 / 256, 0, 0]), (6, 1)))
        assert not backend._open().inputs["crops"].any()
