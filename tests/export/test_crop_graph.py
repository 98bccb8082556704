"""The crop graph is ``glnet_infer.crops`` to a grey level, by ONNX Runtime; TensorRT for RTX compiles it for real."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy import ndimage

from glnet_export.crop_graph import write_crop_graph
from glnet_export.engines.build import build_crop, fill_profile, frame_shapes, parse
from glnet_export.engines.crop_parity import exact_crops
from glnet_export.engines.options import EngineOptions, parse_frame
from glnet_export.engines.toolkit import choose
from glnet_infer import ExportError
from glnet_infer.backends.tensorrt.products import log_of
from glnet_infer.bundle import check_file
from glnet_infer.contract import CROP_REDUCTIONS, CropSpec
from glnet_infer.crops import CropSquares, cut_crops

SIZE = 256
UNROUNDED = "crops_float"
WIDE, NARROW = CropSpec(SIZE), CropSpec(SIZE, padding=1.1, aspect=0.75)
"""GLNet's crops, and CLIFF's, whose squares are of the boxes' heights more often."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("crop") / "crop.onnx"
    write_crop_graph(path, SIZE)
    return path


@pytest.fixture(scope="module")
def session(graph):
    """The graph, which gives its samples before they are rounded too."""
    model = onnx.load(graph)
    model.graph.output.append(onnx.helper.make_tensor_value_info(UNROUNDED, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def boxes_in(width, height, seed=0, spec=WIDE):
    """Inside, over every edge, tiny, larger than the frame, a few anywhere, and some for each reduction of the frame."""
    generator = np.random.default_rng(seed)
    inside = [0.3, 0.1, 0.5, 0.9]
    over = [[-0.1, 0.5, 0.2, 1.2], [0.9, -0.2, 1.3, 0.3], [0.4, 0.8, 0.6, 1.5], [-0.5, 0.1, 0.1, 0.3]]
    huge = [[0, 0, 1, 1], [-2, -2, 3, 3], [-50, -60, 70, 40]]
    corners = np.sort(generator.uniform(-0.2, 1.2, (4, 2, 2)), axis=1).reshape(4, 4)
    anywhere = np.concatenate([corners[:, :2], np.maximum(corners[:, 2:], corners[:, :2] + 0.05)], axis=1)
    sides = SIZE / spec.padding * spec.aspect * np.array([[1.9], [2.0], [3.9], [4.1], [15.9], [16.1]])
    middles = np.array([0.7, 0.4]) * [width, height]
    of_each = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
    tiny = [[width / 2, height / 2, width / 2 + 6, height / 2 + 11], [1.25, 1.5, 3.5, 3.25]]
    return np.concatenate([np.array([inside, *over, *huge, *anywhere]) * [width, height, width, height], tiny, of_each])


def texture(width, height, seed=0):
    """Waves of all lengths and hard edges, in other phases in each channel."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frame = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        waves = sum(np.sin(x * a + y * b) for a, b in generator.uniform(-0.6, 0.6, (4, 2)))
        frame[..., channel] = np.clip(128 + 40 * waves + 60 * ((x // 37 + y // 23) % 2), 0, 255)
    return frame


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("frame_of, spec", [(noise, WIDE), (texture, WIDE), (texture, NARROW)])
@pytest.mark.parametrize("width, height", [(1920, 1080), (3840, 2160), (1080, 1920), (61, 37), (16, 16)])
def test_the_graph_cuts_the_crops_that_opencv_cuts(session, frame_of, spec, width, height):
    frame = frame_of(width, height)
    squares = CropSquares.around(boxes_in(width, height, spec=spec), spec)
    crops, unrounded = session.run(["crops", UNROUNDED], {"frame": frame, "squares": squares.in_frame(width, height)})
    expected = cut_crops(frame, squares)
    assert crops.dtype == np.uint8 and crops.shape == expected.shape
    assert np.abs(crops.astype(int) - expected).max() <= 1
    whole = squares.reductions == 1
    # Half a grey level of rounding, and twice the 0.09 by which OpenCV differed on four sets of instructions.
    assert np.abs(unrounded - expected)[whole].max() <= 0.7
    assert (crops != expected)[whole].mean() < 0.01  # halves that fall either way
    # OpenCV's averages are rounded too.
    assert set(squares.reductions) == set(CROP_REDUCTIONS)
    assert np.abs(unrounded - expected).max() <= 1.2
    exact = exact_crops(frame, squares)
    assert np.abs(crops - exact).max() <= 1 and (crops != exact).mean() < 0.01


@pytest.mark.parametrize("width, height", [(1920, 1080), (61, 37), (16, 16)])
def test_what_engines_are_judged_by_is_bilinear_interpolation_of_averages(width, height):
    """Against scipy's, black outside."""
    frame, size = noise(width, height), 32
    squares = CropSquares.around(boxes_in(width, height), CropSpec(size))
    steps = (np.arange(size) + 0.5) / size - 0.5
    expected = np.empty((len(squares.sides), size, size, 3))
    for crop, (x, y), side, k in zip(expected, squares.centers, squares.sides, squares.reductions, strict=True):
        places = np.meshgrid((y + steps * side) / k - 0.5, (x + steps * side) / k - 0.5, indexing="ij")
        for channel in range(3):
            plane = averages(frame[..., 2 - channel], k)
            crop[..., channel] = ndimage.map_coordinates(plane, places, order=1, mode="grid-constant")
    assert np.abs(exact_crops(frame, squares) - expected).max() <= 0.5 + 1e-6  # it is rounded


def averages(plane, k):
    """Scipy's running means, of which every k-th is a square of pixels from the corner on."""
    whole = np.pad(plane.astype(float), ((0, -plane.shape[0] % k), (0, -plane.shape[1] % k)))
    return ndimage.uniform_filter(whole, k, mode="constant", origin=-(k // 2) if k > 1 else 0)[::k, ::k]


def test_one_crop_is_the_same_alone_and_among_others(session):
    frame = noise(320, 240)
    squares = CropSquares.around(boxes_in(320, 240), CropSpec(SIZE)).in_frame(320, 240)
    (together,) = session.run(["crops"], {"frame": frame, "squares": squares})
    for index, square in enumerate(squares):
        (alone,) = session.run(["crops"], {"frame": frame, "squares": square[None]})
        np.testing.assert_array_equal(alone[0], together[index])


def test_channels_are_turned_around(session):
    frame = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    squares = CropSquares.around(np.array([[20.0, 20, 40, 40]]), CropSpec(SIZE)).in_frame(64, 64)
    (crops,) = session.run(["crops"], {"frame": frame, "squares": squares})
    assert (crops == (30, 20, 10)).all()


def test_squares_in_the_frame():
    squares = CropSquares.around(np.array([[100.0, 50, 200, 150]]), CropSpec(SIZE, padding=1.0))
    nowhere = [9, 9, 0, 0]
    np.testing.assert_allclose(squares.in_frame(400, 200), [[[-0.25, 0, 0.25, 0.5], *[nowhere] * 4]])
    assert squares.in_frame(400, 200).dtype == np.float32
    # A crop pixel is 4.5 image pixels; of the frame's squares of four pixels the last reach beyond, to 404 and 204.
    large = CropSquares.around(np.array([[100.0, 50, 100 + 4.5 * SIZE, 150]]), CropSpec(SIZE, padding=1.0))
    place = [(100 + 2.25 * SIZE) / 202 - 1, 100 / 102 - 1, 4.5 * SIZE / 404, 4.5 * SIZE / 204]
    np.testing.assert_allclose(large.in_frame(401, 203), [[nowhere, nowhere, place, nowhere, nowhere]], rtol=1e-6)
    assert CropSquares.around(np.zeros((0, 4)), CropSpec(SIZE)).in_frame(400, 200).shape == (0, 5, 4)


def test_there_is_one_sampling_of_each_reduction_in_float32(graph):
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GridSample") == len(CROP_REDUCTIONS) and len(operators) <= 60
    assert not {"If", "Loop", "Shape", "NonZero"} & set(operators)  # nothing depends on values
    assert [node.op_type for node in model.graph.node if "frame" in node.input] == ["Cast"]
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    samplings = [node for node in model.graph.node if node.op_type in ("GridSample", "AveragePool")]
    assert {types[name] for node in samplings for name in node.input} == {onnx.TensorProto.FLOAT}


# The engine


@pytest.fixture
def rtx(monkeypatch):
    module = pytest.importorskip("tensorrt_rtx", reason="compiles without a GPU; install it with the extra rtx")
    for place in ("toolkit", "build"):
        monkeypatch.setattr(f"glnet_export.engines.{place}.gpus", list)
    return module


def options(**changes):
    return dataclasses.replace(EngineOptions("tensorrt-rtx", ("8.9",)), **changes)


def test_tensorrt_compiles_it(rtx, graph, tmp_path):
    progress = []
    wanted = options(profile=(1, 2, 8), largest_frame=(1280, 720))
    record = build_crop(graph, tmp_path, choose(wanted), wanted, progress=lambda *each: progress.append(each))
    assert [path.name for path in tmp_path.iterdir()] == ["crop.rtx-sm89.engine"]
    assert check_file(tmp_path, record.file).stat().st_size > 10_000 and record.largest_frame == (1280, 720)
    assert progress and progress[-1][1] > 0.5
    plan = (tmp_path / record.file.file).read_bytes()
    malformed = int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    assert not rtx.Runtime(log_of(rtx).logger).get_engine_validity(plan)[1] & malformed


def test_the_profile_is_of_frames_and_crops(rtx, graph):
    builder = rtx.Builder(log_of(rtx).logger)
    network, profile = builder.create_network(0), builder.create_optimization_profile()
    parse(choose(options()), network, graph)
    fill_profile(profile, network, (1, 2, 8), {"frame": frame_shapes((3840, 2160))})
    assert [tuple(shape) for shape in profile.get_shape("squares")] == [(1, 5, 4), (2, 5, 4), (8, 5, 4)]
    assert [tuple(shape) for shape in profile.get_shape("frame")] == [(16, 16, 3), (1080, 1920, 3), (2160, 3840, 3)]
    assert frame_shapes((640, 1200))[1:] == ((1080, 640, 3), (1200, 640, 3))


def test_what_the_listener_of_progress_raises_stops_the_build(rtx, graph, tmp_path):
    def broken(phase, fraction):
        raise BrokenPipeError("nobody looks at the bar")

    with pytest.raises(BrokenPipeError):
        build_crop(graph, tmp_path, choose(options()), options(), progress=broken)
    assert list(tmp_path.iterdir()) == []


def test_another_graph_is_refused(rtx, graph, tmp_path):
    model = onnx.load(graph)
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
    other, folder = tmp_path / "other.onnx", tmp_path / "folder"
    onnx.save(model, other)
    folder.mkdir()
    with pytest.raises(ExportError, match="other inputs or outputs") as error:
        build_crop(other, folder, choose(options()), options())
    assert "frame uint8" in error.value.why and list(folder.iterdir()) == []


@pytest.mark.parametrize("text, frame", [("3840x2160", (3840, 2160)), (" 16X16384 ", (16, 16384))])
def test_frames_are_read(text, frame):
    assert parse_frame(text) == frame


@pytest.mark.parametrize("text", ["", "4k", "1920", "1920x", "1920,1080", "15x1080", "1920x16385", "-64x64", "64x64x3"])
def test_other_frames_are_refused(text):
    with pytest.raises(ValueError, match=r"WIDTHxHEIGHT|from 16 to 16384"):
        parse_frame(text)
