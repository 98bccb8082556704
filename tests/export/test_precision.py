"""The cost of half precision, as PyTorch on a CPU measures it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.estimate import default_cameras
from glnet.random_init import settle_batch_norms
from glnet_export.mixed import half_layers, mixed_copy
from glnet_export.precision import EmulatedHalf, PrecisionBounds, PrecisionReport, compare_precisions
from glnet_export.textures import textured_crops
from glnet_infer.errors import ExportError


@pytest.fixture(scope="module")
def recovery(small_recovery):
    """Random weights whose pixels differ from each other, so that an estimate depends on the features."""
    recovery = copy.deepcopy(small_recovery)
    torch.manual_seed(1)
    with torch.no_grad():
        for head in (recovery.network.heads.pixel, recovery.network.heads.parts, recovery.network.confidence):
            head.weight.normal_(std=3e-3)
    settle_batch_norms(recovery.network, crops(8))
    return recovery.eval()


def crops(count):
    return torch.from_numpy(textured_crops(count, 256, seed=4))


@pytest.mark.parametrize("emulated", [False, True])
def test_the_report_is_what_a_plain_comparison_gives(recovery, emulated):
    mixed = mixed_copy(recovery)
    report = compare_precisions(recovery, mixed, crops(10), default_cameras(10), emulated=emulated)
    with torch.no_grad():
        full = recovery(crops(10), default_cameras(10))
        with EmulatedHalf() if emulated else torch.no_grad():
            half = mixed(crops(10), default_cameras(10))
    agree = (full.reference_pixel == half.reference_pixel).all(1)
    full, half = (type(result)(*(part[agree] for part in result)) for result in (full, half))
    points = [(result.vertices - result.joints[:, :1]).double().numpy() for result in (full, half)]
    distances = 1000 * np.linalg.norm(points[0] - points[1], axis=-1)
    # 2 %: batches of 8 and 10 sum their convolutions in another order, which half precision shows.
    assert report.vertices_mean_mm == pytest.approx(distances.mean(), rel=0.02)
    assert report.vertices_p99_mm == pytest.approx(np.percentile(distances, 99), rel=0.1)
    assert report.vertices_max_mm == pytest.approx(distances.max(), rel=0.2)
    joints = [(result.joints - result.joints[:, :1]).double().numpy() for result in (full, half)]
    assert report.joints_max_mm == pytest.approx(1000 * np.linalg.norm(joints[0] - joints[1], axis=-1).max(), rel=0.2)
    keypoints = np.linalg.norm((full.keypoints_2d - half.keypoints_2d).numpy(), axis=-1)
    assert report.keypoints_max_px == pytest.approx(keypoints.max(), rel=0.2)
    turns = Rotation.from_matrix(full.rotations.double().flatten(0, 1).numpy())
    angles = (turns.inv() * Rotation.from_matrix(half.rotations.double().flatten(0, 1).numpy())).magnitude()
    assert report.rotations_max_deg == pytest.approx(np.degrees(angles.max()), rel=0.2)
    assert report.pixel_agreement == pytest.approx(float(agree.double().mean()), abs=0.11)
    assert report.crops == 10 and 0 < report.distance_max_share < 0.01
    assert len(report.tied) == round((1 - report.pixel_agreement) * 10)


def test_emulated_half_precision_is_as_far_from_float32_as_the_real_one(recovery):
    mixed = mixed_copy(recovery)
    pictures = crops(4)
    with torch.no_grad():
        full, real = recovery.network(pictures), mixed.network(pictures)
        with EmulatedHalf():
            emulated = mixed.network(pictures)
    assert emulated.pixel_features.dtype == real.pixel_features.dtype == torch.float16
    assert emulated.logits.dtype == torch.float32
    errors = [
        float((each.pixel_features.float() - full.pixel_features).square().mean().sqrt()) for each in (real, emulated)
    ]
    apart = float((real.pixel_features.float() - emulated.pixel_features.float()).square().mean().sqrt())
    # Both round every result; they differ by the order of sums alone, so each is nearer to the other than to float32.
    assert errors[1] == pytest.approx(errors[0], rel=0.25)
    assert apart < errors[0]


def test_other_choices_of_pixels_are_told(recovery):
    """With a confidence that prefers another pixel in half precision alone."""
    partial = copy.deepcopy(recovery)
    precision = {}
    partial.network.local_encoding.pixel.register_forward_hook(lambda *call: precision.update(seen=call[-1].dtype))

    def prefer(_layer, _inputs, logits):
        if precision["seen"] == torch.float16:
            logits[1::2, :, 3, 4] = 100

    partial.network.confidence.register_forward_hook(prefer)
    report = compare_precisions(partial, mixed_copy(partial), crops(8), default_cameras(8))
    with torch.no_grad():
        logits = recovery.network(crops(8)).logits
    assert report.pixel_agreement == 4 / 8
    moved, margins = zip(*report.tied, strict=True)
    expected = (logits.flatten(1).amax(1) - logits[:, 3, 4])[1::2]
    np.testing.assert_allclose(margins, expected, atol=1e-4)
    assert report.small_effect == pytest.approx(1 - sum(move >= 2 for move in moved) / 8)


def test_modules_can_be_kept_in_float32(recovery):
    """With all of them kept, the image and what passes between modules are all that is rounded."""
    everything = ["backbone", "local_encoding.*"]
    copies = [mixed_copy(recovery, keep) for keep in ([], ["backbone.stage4", "backbone.stage4.0"], everything)]
    counts = [half_layers(each) for each in copies]
    assert counts[0] > counts[1] > counts[2] == 0
    with torch.no_grad():
        full, *features = (each.network(crops(4)).pixel_features.float() for each in (recovery, *copies))
        assert all(each(crops(1), default_cameras(1)).vertices.isfinite().all() for each in copies)
    errors = [float((each - full).square().mean()) for each in features]
    assert errors[2] < errors[0]


def test_names_of_modules_that_are_not_there_are_refused(recovery):
    with pytest.raises(ExportError, match=r"stage9.*"):
        mixed_copy(recovery, ["backbone.stage9*"])


def test_reports_beyond_the_bounds_say_so(recovery):
    report = compare_precisions(recovery, mixed_copy(recovery), crops(2), default_cameras(2))
    assert not report.misses(PrecisionBounds(vertices_mean_mm=100, small_effect=0))
    bad = dataclasses.replace(report, vertices_mean_mm=float("nan"), small_effect=0.5)
    assert len(bad.misses(PrecisionBounds())) == 2


def test_the_table_has_every_figure_and_its_bound():
    report = PrecisionReport(
        crops=2,
        vertices_mean_mm=0.3,
        vertices_p99_mm=1.25,
        vertices_max_mm=8,
        joints_max_mm=7,
        keypoints_max_px=0.2,
        rotations_max_deg=3,
        distance_max_share=0.001,
        pixel_agreement=0.5,
        tied=((235.0, 0.002),),
        small_effect=0.5,
    )
    lines = [line.split() for line in report.table(PrecisionBounds()).splitlines()]
    assert lines == [
        ["vertices,", "mean", "0.300", "mm", "at", "most", "1"],
        ["vertices,", "99th", "percentile", "1.25", "mm"],
        ["vertices,", "largest", "8.00", "mm"],
        ["joints,", "largest", "7.00", "mm"],
        ["keypoints,", "largest", "0.200", "px"],
        ["rotations,", "largest", "3.00", "degrees"],
        ["distance,", "largest", "0.100%"],
        ["same", "pixel", "50.0%"],
        ["moved", "by", "under", "2", "mm", "50.0%", "at", "least", "95%"],
        ["another", "pixel", "235.00", "mm", "logits", "0.0020", "apart"],
    ]
    assert "at" not in report.table().split()
