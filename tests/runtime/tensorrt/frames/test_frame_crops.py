"""Crops cut on the GPU, on stand-ins for TensorRT and cuda-core."""

import contextlib

import numpy as np
import pytest
import tensorrt_stand_in as stand_in
from tensorrt_stand_in import (
    BOXES,
    FRAME,
    HEIGHT,
    OUTPUTS,
    SIDE,
    WIDTH,
    bundle_of,
    frame_of,
    inputs,
    read,
    refused,
    right,
    tensor,
    ways,
)

from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops

CROP_BYTES = SIDE * SIDE * 3


@pytest.mark.parametrize("count", [0, 1, 3, 6, 13])
def test_crops_are_handed_out_to_look_at(either, machine, count):
    frame, (squares, cameras) = frame_of(), inputs(count)
    there, expected = tensor(machine, frame), stand_in.cut(frame, squares)
    foreign = set(machine.memory)
    with TensorRtBackend(either) as backend:
        before = backend.run_frame(frame_of(seed=1), *inputs(2, seed=1))
        np.testing.assert_array_equal(backend.cut(frame, squares), expected)
        np.testing.assert_array_equal(backend.cut(backend.view(there), squares), expected)
        # Nothing was run, so earlier results are still there.
        np.testing.assert_array_equal(read(machine, before.device.vertices), before["vertices"])
        refused(lambda: backend.cut(frame, squares.astype(np.float64)), "squares is float64")
        refused(lambda: backend.cut(frame_of(15, 40), squares), "cannot cut crops from this frame")
        machine.trouble = {"cut"} if count else set()
        with contextlib.suppress(BackendError):
            backend.cut(frame, squares)
            assert count == 0
        machine.trouble = set()
        if count:
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
    assert set(machine.memory) == foreign


def test_more_crops_are_handed_out_than_the_first_time(classic):
    with TensorRtBackend(classic) as backend:
        for count in (1, 5):
            squares, _ = inputs(count)
            np.testing.assert_array_equal(backend.cut(frame_of(), squares), stand_in.cut(frame_of(), squares))


def test_no_crops_leave_nothing_under_way(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.events.clear()
        assert len(backend.cut(frame_of(), inputs(0)[0])) == 0
        assert machine.events == []


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 13])
def test_every_row_is_its_squares(either, machine, count, graphs):
    with TensorRtBackend(either, cuda_graphs=graphs) as backend:
        for seed in range(3):  # the second time the graphs are there
            frame, (squares, cameras) = frame_of(seed=seed), inputs(count, seed=seed)
            machine.events.clear()
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            buckets = [6] * (count // 6) + ([min(size for size in (1, 2, 4, 6) if size >= count % 6)] if count % 6 else [])
            assert [event[1:] for event in machine.named("cut")] == [(bucket, (HEIGHT, WIDTH)) for bucket in buckets]


def test_both_ways_take_turns(either):
    with TensorRtBackend(either) as backend:
        for seed, count in enumerate((2, 5, 2, 7, 1, 5)):
            frame, (squares, cameras) = frame_of(seed=seed), inputs(count, seed=seed)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            crops = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
            expected = stand_in.results(crops, cameras)
            for name, values in backend.run(crops, cameras).items():
                np.testing.assert_array_equal(values, expected[name])


def test_a_recoverer_cuts_on_the_gpu(either, machine):
    frame = frame_of()
    with MeshRecoverer(either.directory, "tensorrt", batch_size=2) as recoverer:
        found = recoverer(frame, BOXES)
    assert len(machine.named("cut")) == 1  # all boxes at once: the engine bounds the memory
    squares = CropSquares.around(BOXES, CropSpec(SIDE))
    expected = stand_in.results(cut_crops(frame, squares), squares.cameras(found.intrinsics))
    for name in ("vertices", "joints", "betas", "confidence"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0.01, atol=1)
    assert np.ptp(found.confidence) > 2  # rows differ by more than that


@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT + 1), (HEIGHT, WIDTH), (15, 40), (40, 15)])
def test_frames_that_the_engine_was_not_built_for_are_cut_on_the_cpu(classic, machine, size):
    frame, boxes = frame_of(*size), [[1.0, 2, 12, 14]]
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        found = recoverer(frame, boxes)
    assert not machine.named("cut")
    squares = CropSquares.around(np.array(boxes), CropSpec(SIDE))
    expected = stand_in.results(cut_crops(frame, squares), squares.cameras(found.intrinsics))
    np.testing.assert_array_equal(found.vertices, expected["vertices"])


@pytest.mark.parametrize("size", [FRAME, (16, 16), (WIDTH, 16)])
def test_frames_at_the_bounds_are_cut_on_the_gpu(classic, machine, size):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        recoverer(frame_of(*size), [[1.0, 2, 12, 14]])
    assert [event[2] for event in machine.named("cut")] == [size[::-1]]


def test_no_boxes_are_no_work(classic, machine):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        machine.events.clear()
        meshes = recoverer(frame_of(), np.zeros((0, 4)))
    assert len(meshes) == 0 and meshes.device is None and not machine.named("cut", "execute", "copy")


def test_without_a_crop_engine_crops_are_cut_on_the_cpu(machine, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", crop=False)
    with MeshRecoverer(bundle.directory, "tensorrt") as recoverer:
        assert len(recoverer(frame_of(), BOXES)) == 5
    assert not machine.named("cut")


def test_the_frame_goes_up_once_and_crops_never(classic, machine):
    with TensorRtBackend(classic) as backend:
        backend.run_frame(frame_of(), *inputs(13))
        machine.events.clear()
        backend.run_frame(frame_of(), *inputs(13))
        order = [event[0] for event in machine.events if event[0] != "shape"]
    frame, squares = ("host", "device", WIDTH * HEIGHT * 3), ("host", "device", 6 * 5 * 16)
    assert ways(machine) == [frame, squares, squares, ("host", "device", 5 * 16)]
    # One launch for each piece: cameras, engine and results are in the graph.
    assert order == ["copy", *["copy", "cut", "launch", "sync"] * 3]


def test_the_captured_graph_has_no_upload_of_crops(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.events.clear()
        backend.run_frame(frame_of(), *inputs(3))
        names = [event[0] for event in machine.events if event[0] != "shape"]
        first = names.index("begin")
        assert names[first : names.index("end") + 1] == ["begin", "copy", "execute", *["copy"] * len(OUTPUTS), "end"]
        assert names[first - 1] == "sync"  # the first run is plain, and waited for
        assert ("host", "device", 4 * CROP_BYTES) not in ways(machine)


def test_each_bucket_has_a_graph_and_a_context_for_each_way(classic, machine):
    with TensorRtBackend(classic) as backend:
        for _ in range(2):
            for count in (1, 3):
                squares, cameras = inputs(count)
                backend.run_frame(frame_of(), squares, cameras)
                backend.run(np.zeros((count, SIDE, SIDE, 3), np.uint8), cameras)
        assert len(machine.named("begin")) == 4
        mains = [context for context in machine.contexts if "frame" not in context._addresses]
        assert len(mains) == 5 and len(machine.contexts) == 6  # the session's first one, for the largest batch


def test_crops_are_written_where_the_main_engine_reads_them(either, machine):
    with TensorRtBackend(either) as backend:
        backend.run_frame(frame_of(), *inputs(3))
        assert len({context._addresses["crops"] for context in machine.contexts}) == 1
        kind, array = machine.memory[machine.contexts[0]._addresses["crops"]]
        assert kind == "device" and array.size > 6 * CROP_BYTES  # and what TensorRT may write beyond


def test_rtx_does_not_capture_the_crop_engine(machine, tmp_path):
    with TensorRtBackend(bundle_of(tmp_path / "bundle", "tensorrt-rtx")):
        assert [config.cuda_graph_strategy.name for config in machine.configs] == ["WHOLE_GRAPH_CAPTURE", "DISABLED"]


def test_rtx_keeps_the_kernels_of_both_engines(machine, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", "tensorrt-rtx")
    with TensorRtBackend(bundle) as backend:
        backend.run_frame(frame_of(), *inputs(2))
    (record,) = bundle.manifest.engines
    assert sorted(path.name for path in (bundle.directory / "cache").iterdir()) == sorted(
        f"{file.sha256[:16]}.nvidia-l4.cache" for file in (record.file, record.crop.file)
    )


def test_buffers_grow_with_the_frame_and_are_used_again(classic, machine):
    small, large = 40 * 30 * 3, WIDTH * HEIGHT * 3
    with TensorRtBackend(classic) as backend:
        before = {kind: machine.sizes(kind) for kind in ("device", "host")}
        for size, expected in (((40, 30), small), (FRAME, large), ((40, 30), large), ((20, 60), large)):
            frame, (squares, cameras) = frame_of(*size), inputs(2, *size)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
            for kind, sizes in before.items():
                assert machine.sizes(kind) == sorted([*sizes, expected])
    assert not machine.memory


def test_a_frame_of_other_memory_order_is_cut_as_it_reads(classic):
    frame = frame_of(2 * WIDTH, HEIGHT)[::-1, ::2]
    squares, cameras = inputs(2)
    with TensorRtBackend(classic) as backend:
        right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)


def test_padding_before_the_first_batch_is_the_whole_frame(classic):
    with TensorRtBackend(classic) as backend:
        squares = backend._cropper.squares
        assert (squares[:, 0] == (0, 0, 1, 1)).all() and (squares[:, 1:] == (9, 9, 0, 0)).all()


def test_clones_cut_with_one_engine(either, machine):
    with TensorRtBackend(either) as first, first.clone() as second:
        assert len(machine.named("deserialize")) == 2
        for seed, backend in enumerate((first, second, first)):
            frame, (squares, cameras) = frame_of(seed=seed), inputs(3, seed=seed)
            right(backend.run_frame(frame, squares, cameras), frame, squares, cameras)
    assert first._engine.crop._engine is None and not machine.memory and not machine.streams


def test_rtx_compiles_no_kernels_for_every_size_of_frame(machine, tmp_path):
    with TensorRtBackend(bundle_of(tmp_path / "bundle", "tensorrt-rtx")) as backend:
        backend.run_frame(frame_of(), *inputs(2))
    main, crop = (config.dynamic_shapes_kernel_specialization_strategy.name for config in machine.configs)
    assert (main, crop) == ("LAZY", "NONE")
