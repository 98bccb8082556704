"""The comparison of a graph with PyTorch reports exactly the errors that were put in."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch

from glnet_export.parity import ParityBounds, ParityReport, compare
from glnet_export.textures import textured_crops
from glnet_infer import ExportError

CROPS = 6
"""More than one batch of the comparison, and a remainder."""

VERTICES = 12_408
FLOAT32_MM = 2e-3
"""Positions are metres in float32: a perturbed one is rounded to 5e-4 mm at 8 m."""


class Perturbed:
    """A backend that runs PyTorch and then changes the outputs; ``rows`` are the crops' numbers over all batches."""

    name = "perturbed"

    def __init__(self, recovery, change):
        self.recovery, self.change, self.seen, self.cameras = recovery, change, 0, []

    def run(self, crops, cameras):
        outputs = self.recovery(torch.from_numpy(crops), torch.from_numpy(cameras))._asdict()
        arrays = {name: value.numpy().copy() for name, value in outputs.items()}
        rows = np.arange(self.seen, self.seen + len(crops))
        self.seen += len(crops)
        self.cameras.append(cameras)
        self.change(arrays, rows)
        return arrays

    def close(self):
        pass


@pytest.fixture(scope="module")
def pictures():
    return textured_crops(CROPS, 256, seed=4)


@pytest.fixture(scope="module")
def recovery(small_recovery):
    """The module, which computes every batch only once in all these tests."""
    known = {}

    def remembered(crops, cameras):
        key = crops.numpy().tobytes(), cameras.numpy().tobytes()
        if key not in known:
            with torch.inference_mode():
                known[key] = small_recovery(crops, cameras)
        return known[key]

    return remembered


@pytest.fixture
def measure(recovery, pictures):
    def run(change):
        return compare(recovery, Perturbed(recovery, change), pictures)

    return run


def nothing(arrays, rows):
    pass


def figures(report, **others):
    """Every figure is what is said here, and zero where nothing is said."""
    expected = {"crops": CROPS, "pixel_agreement": 1.0} | others
    for name, value in report.to_document().items():
        # 1e-4 degrees: the angle between a float32 rotation and itself.
        tolerance = 1e-4 if name == "rotations_deg" and name not in others else FLOAT32_MM
        assert value == pytest.approx(expected.get(name, 0.0), abs=tolerance), name


def test_equal_outputs_have_no_error(measure):
    report = measure(nothing)
    figures(report)
    assert report.vertices_mm == report.joints_mm == report.keypoints_px == 0.0
    assert report.misses(ParityBounds()) == []


def test_a_millimetre_in_every_vertex(measure):
    def change(arrays, rows):
        arrays["vertices"][..., 1] += 1e-3

    figures(measure(change), vertices_mm=1.0, vertices_mean_mm=1.0)


def test_three_millimetres_in_one_vertex_of_the_last_crop(measure):
    def change(arrays, rows):
        arrays["vertices"][rows == CROPS - 1, 77, 2] += 3e-3

    report = measure(change)
    figures(report, vertices_mm=3.0)
    assert report.vertices_mean_mm == pytest.approx(3.0 / (CROPS * VERTICES), rel=1e-3)


def test_a_quarter_of_the_crops_may_jump_where_a_network_does(recovery, pictures):
    def change(arrays, rows):
        arrays["vertices"][..., 1] += 1e-3
        arrays["vertices"][rows == 2, 77, 2] += 9e-3

    steady = compare(recovery, Perturbed(recovery, change), pictures)
    assert steady.left_out == 0 and steady.vertices_mm == pytest.approx(math.hypot(1, 9), abs=FLOAT32_MM)
    report = compare(recovery, Perturbed(recovery, change), pictures, jumps=True)
    figures(report, vertices_mm=1.0, vertices_mean_mm=1.0, left_out=1, jump_mm=math.hypot(1, 9))
    assert "1 crops left out, up to 9.06 mm" in str(report)
    (miss,) = dataclasses.replace(GOOD, left_out=4, jump_mm=51.0).misses(ParityBounds())
    assert miss.startswith("jump_mm")

    def broken(arrays, rows):
        arrays["vertices"][rows == 2] = np.nan

    assert compare(recovery, Perturbed(recovery, broken), pictures, jumps=True).misses(ParityBounds())


def test_errors_along_several_axes_are_distances(measure):
    def change(arrays, rows):
        arrays["vertices"] += np.float32([2e-3, 3e-3, 6e-3])

    figures(measure(change), vertices_mm=7.0, vertices_mean_mm=7.0)


def test_two_millimetres_in_one_joint(measure):
    def change(arrays, rows):
        arrays["joints"][rows == 2, 5, 0] -= 2e-3

    figures(measure(change), joints_mm=2.0)


def test_half_a_pixel_in_one_keypoint(measure):
    def change(arrays, rows):
        arrays["keypoints_2d"][rows == 1, 30] += np.float32([0.3, 0.4])  # beyond the skeleton's 29

    figures(measure(change), keypoints_px=0.5)


@pytest.mark.parametrize("degrees", [0.1, 1.0, 120.0])
def test_degrees_in_one_rotation(measure, degrees):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])

    def change(arrays, rows):
        arrays["rotations"][rows == 4, 13] = arrays["rotations"][rows == 4, 13] @ turn

    figures(measure(change), rotations_deg=degrees)


def test_another_pixel_counts_as_disagreement_and_its_distances_do_not(measure):
    def change(arrays, rows):
        chosen = rows == 4
        arrays["reference_pixel"][chosen, 1] += 1
        for name in ("vertices", "joints", "keypoints_2d", "rotations"):
            arrays[name][chosen] += 1

    figures(measure(change), pixel_agreement=5 / 6)


def test_no_common_pixel_is_an_error(measure):
    def change(arrays, rows):
        arrays["reference_pixel"][:, 0] += 1

    with pytest.raises(ExportError, match="not compared") as error:
        measure(change)
    assert f"none of {CROPS}" in error.value.why and error.value.fix


@pytest.mark.parametrize(
    "name, figure",
    [
        ("vertices", "vertices_mm"),
        ("joints", "joints_mm"),
        ("keypoints_2d", "keypoints_px"),
        ("rotations", "rotations_deg"),
    ],
)
def test_a_single_nan_misses_its_bound(measure, name, figure):
    def change(arrays, rows):
        arrays[name][rows == 3, 11] = np.nan

    misses = measure(change).misses(ParityBounds())
    assert len(misses) == 1 and misses[0].startswith(f"{figure} is nan")


@pytest.mark.parametrize(
    "name", ["vertices", "joints", "keypoints_2d", "rotations", "betas", "translation", "confidence", "reference_pixel"]
)
def test_an_error_in_any_output_of_the_graph_shows_in_the_report(measure, name):
    # An output that nobody compares could be anything, and the bundle would still be called checked.
    def change(arrays, rows):
        arrays[name][rows == 0] += 1

    assert measure(change) != measure(nothing)


def test_cameras_differ_from_crop_to_crop_and_repeat_with_the_seed(recovery, pictures):
    backends = [Perturbed(recovery, nothing) for _ in range(3)]
    for backend, seed in zip(backends, (0, 0, 1), strict=True):
        compare(recovery, backend, pictures, seed=seed)
    first, again, other = (np.concatenate(backend.cameras) for backend in backends)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (CROPS, 4) and first.dtype == np.float32
    assert len(np.unique(first[:, 0])) == len(np.unique(first[:, 2])) == CROPS
    assert max(len(batch) for batch in backends[0].cameras) > min(len(batch) for batch in backends[0].cameras)


GOOD = ParityReport(16, 1.0, 0.05, 0.01, 0.05, 0.01, 0.05, 1e-3, 0.05, 1e-4)


def test_figures_at_their_bounds_are_within():
    assert GOOD.misses(ParityBounds()) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"vertices_mm": 0.0501}, "vertices_mm is 0.0501, bound 0.05"),
        ({"joints_mm": 12.0}, "joints_mm is 12, bound 0.05"),
        ({"keypoints_px": 0.02}, "keypoints_px is 0.02, bound 0.01"),
        ({"rotations_deg": 180.0}, "rotations_deg is 180, bound 0.05"),
        ({"pixel_agreement": 0.9375}, "pixel_agreement is 0.9375, bound 1"),
        ({"vertices_mm": math.nan}, "vertices_mm is nan, bound 0.05"),
        ({"joints_mm": math.nan}, "joints_mm is nan"),
        ({"keypoints_px": math.nan}, "keypoints_px is nan"),
        ({"rotations_deg": math.nan}, "rotations_deg is nan"),
        ({"pixel_agreement": math.nan}, "pixel_agreement is nan"),
        ({"vertices_mm": math.inf}, "vertices_mm is inf"),
    ],
)
def test_a_miss_names_figure_value_and_bound(change, words):
    (miss,) = dataclasses.replace(GOOD, **change).misses(ParityBounds())
    assert miss.startswith(words)


def test_all_misses_are_named():
    report = ParityReport(16, 0.0, *[1.0] * 8, left_out=4, jump_mm=60)
    assert [miss.split()[0] for miss in report.misses(ParityBounds())] == [
        field.name for field in dataclasses.fields(ParityBounds)
    ]
    loose = ParityBounds(*[2.0] * 7, pixel_agreement=0, jump_mm=60)
    assert report.misses(loose) == []


def test_the_bundles_manifest_reports_a_comparison_within_its_bounds(shared_bundle):
    parity = json.loads((shared_bundle / "manifest.json").read_text())["graphs"][0]["parity"]
    assert parity["backend"] == "onnxruntime-cpu" and parity["crops"] >= 16
    assert parity["bounds"] == dataclasses.asdict(ParityBounds())
    for name, bound in parity["bounds"].items():
        assert parity[name] >= bound if name == "pixel_agreement" else 0 <= parity[name] <= bound, name
    assert 0 < parity["vertices_mean_mm"] <= parity["vertices_mm"]  # two implementations never agree to the last bit


def test_pictures_are_all_different_and_repeat_with_the_seed(pictures):
    assert pictures.shape == (CROPS, 256, 256, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, textured_crops(CROPS, 256, seed=4))
    assert not np.array_equal(pictures, textured_crops(CROPS, 256, seed=5))
    assert all(np.abs(a.astype(int) - b).mean() > 10 for a, b in itertools.pairwise(pictures))
    assert pictures.std(axis=(1, 2)).min() > 10  # grey levels: none is flat
