"""Metrics against numpy by hand, scipy's Procrustes analysis and pycocotools' evaluation."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from glnet.position_errors import mpjpe, pa_mpjpe, procrustes, pve
from glnet_train.scores.metrics import (
    COCO_SIGMAS,
    LSP_JOINTS,
    Scores,
    average_precision,
    keypoint_error,
    oks,
)

MM = 1000


def tensor(*arrays):
    found = [torch.from_numpy(np.asarray(array)) for array in arrays]
    return found if len(found) > 1 else found[0]


@pytest.fixture
def bodies(rng):
    """Found and true joints of 20 crops, metres, some metres in front of the camera."""
    truth = rng.normal([0.3, -0.2, 4], 0.4, size=(20, 17, 3))
    return truth + rng.normal(scale=0.05, size=truth.shape), truth


# Joints and vertices


def test_mpjpe_is_the_mean_distance_of_root_aligned_joints(bodies):
    found, truth = bodies
    expected = []
    for f, t in zip(found, truth, strict=True):
        expected.append(np.mean([np.sqrt((((f[j] - f[2]) - (t[j] - t[2])) ** 2).sum()) for j in range(17)]))
    np.testing.assert_allclose(mpjpe(*tensor(found, truth), root=2), np.array(expected) * MM, rtol=1e-12)


def test_mpjpe_counts_in_millimetres():
    truth = torch.zeros(1, 4, 3)
    found = truth.clone()
    found[0, 3, 1] = 0.1
    assert mpjpe(found, truth).tolist() == pytest.approx([25])


def test_mpjpe_ignores_where_the_body_stands(bodies):
    found, truth = tensor(*bodies)
    torch.testing.assert_close(mpjpe(found + torch.tensor([1.0, 2.0, 3.0]), truth), mpjpe(found, truth))
    assert (mpjpe(found + 1, truth, root=None) > 1000).all()


def test_joints_are_chosen_after_the_alignment(bodies):
    """As on 3DPW and Human3.6M: the pelvis (0) aligns, and is not among the fourteen joints that count."""
    assert 0 not in LSP_JOINTS
    found, truth = bodies
    f, t = (x - x[:, :1] for x in (found, truth))
    expected = np.linalg.norm((f - t)[:, list(LSP_JOINTS)], axis=-1).mean(1) * MM
    np.testing.assert_allclose(mpjpe(*tensor(found, truth), joints=LSP_JOINTS), expected)


def test_joints_without_label_do_not_count_even_if_they_are_nan(bodies, rng):
    found, truth = bodies
    known = rng.random((20, 17)) < 0.6
    known[:, 0] = True
    holed = np.where(known[..., None], truth, np.nan)
    expected_plain, expected_aligned = [], []
    for f, t, k in zip(found, truth, known, strict=True):
        f, t = f[k][None], t[k][None]
        expected_plain.append(mpjpe(*tensor(f, t)).item())
        expected_aligned.append(pa_mpjpe(*tensor(f, t)).item())
    f, t, k = tensor(found, holed, known)
    np.testing.assert_allclose(mpjpe(f, t, weights=k), expected_plain)
    np.testing.assert_allclose(pa_mpjpe(f, t, weights=k), expected_aligned)


def test_pve_subtracts_each_bodys_own_root(rng):
    truth = rng.normal(size=(3, 100, 3))
    found = truth + rng.normal(scale=0.02, size=truth.shape)
    roots = rng.normal(size=(2, 3, 3))
    expected = np.linalg.norm((found - roots[0][:, None]) - (truth - roots[1][:, None]), axis=-1).mean(1) * MM
    np.testing.assert_allclose(pve(*tensor(found, truth, roots[0], roots[1])), expected)


# Procrustes


def by_scipy(found, truth):
    """PA-MPJPE in mm, with scipy.linalg's orthogonal Procrustes; None where that would mirror the body."""
    f, t = found - found.mean(0), truth - truth.mean(0)
    rotation, stretch = orthogonal_procrustes(f, t)
    if np.linalg.det(rotation) < 0:
        return None
    return np.linalg.norm(f @ rotation * (stretch / (f**2).sum()) - t, axis=-1).mean() * MM


def test_pa_mpjpe_equals_scipys_orthogonal_procrustes(bodies, rng):
    found, truth = bodies
    turns, scales = Rotation.random(20, rng).as_matrix(), rng.uniform(0.3, 3, (20, 1, 1))
    found = found @ turns.transpose(0, 2, 1) * scales
    expected = [by_scipy(f, t) for f, t in zip(found, truth, strict=True)]
    assert None not in expected
    np.testing.assert_allclose(pa_mpjpe(*tensor(found, truth)), expected, rtol=1e-9)


def test_residual_equals_scipy_spatials_disparity(bodies):
    """scipy scales the truth to unit spread and reports the sum of squares that is left."""
    found, truth = bodies
    aligned = procrustes(*tensor(found, truth)).numpy()
    for t, f, a in zip(truth, found, aligned, strict=True):
        spread = ((t - t.mean(0)) ** 2).sum()
        assert ((a - t) ** 2).sum() / spread == pytest.approx(scipy_procrustes(t, f)[2], rel=1e-9)


def test_any_similarity_of_the_truth_is_perfect(bodies, rng):
    _, truth = bodies
    rotations = Rotation.random(20, rng).as_matrix()
    moved = np.einsum("nij,nkj->nki", rotations, truth) * rng.uniform(0.5, 2, (20, 1, 1)) + rng.normal(size=(20, 1, 3))
    np.testing.assert_allclose(pa_mpjpe(*tensor(moved, truth)), 0, atol=1e-9)


def test_reflections_are_not_used(bodies):
    """A mirrored body is wrong, though a reflection would align it perfectly."""
    _, truth = bodies
    mirrored = truth * [-1, 1, 1]
    assert all(by_scipy(m, t) is None for m, t in zip(mirrored, truth, strict=True))  # scipy alone would mirror
    errors = pa_mpjpe(*tensor(mirrored, truth))
    assert (errors > 50).all()
    # The best rotation and scale by brute force: no better than a local search starting from ours.
    aligned = procrustes(*tensor(mirrored, truth)).numpy()
    best = ((aligned - truth) ** 2).sum((1, 2))
    rng = np.random.default_rng(0)
    for _ in range(200):
        turns = Rotation.from_rotvec(rng.normal(scale=0.3, size=(20, 3))).as_matrix()
        middle = truth.mean(1, keepdims=True)
        turned = np.einsum("nij,nkj->nki", turns, aligned - middle) * rng.uniform(0.9, 1.1, (20, 1, 1)) + middle
        assert (((turned - truth) ** 2).sum((1, 2)) >= best).all()


def test_degenerate_bodies_give_finite_errors():
    truth = torch.randn(3, 14, 3, generator=torch.Generator().manual_seed(1))
    point = torch.ones(3, 14, 3)
    middle = truth.double() - truth.double().mean(1, keepdim=True)
    torch.testing.assert_close(pa_mpjpe(point, truth), middle.norm(dim=-1).mean(1) * MM)
    flat = truth.clone()
    flat[..., 2] = 0
    assert pa_mpjpe(flat, truth).isfinite().all()
    line = torch.zeros(3, 14, 3)
    line[..., 0] = torch.arange(14)
    assert pa_mpjpe(line, truth).isfinite().all()
    torch.testing.assert_close(pa_mpjpe(line, line * 3), torch.zeros(3).double())


def test_pa_mpjpe_takes_float32_and_half(bodies):
    found, truth = tensor(*bodies)
    torch.testing.assert_close(pa_mpjpe(found.float(), truth.float()), pa_mpjpe(found, truth), rtol=1e-4, atol=1e-3)
    assert pa_mpjpe(found.half(), truth.half()).dtype == torch.float64


# Keypoints


def test_keypoint_error_counts_visible_keypoints_only():
    truth = torch.tensor([[[0.0, 0], [10, 10], [5, 5]], [[1.0, 1], [2, 2], [3, 3]]])
    found = truth + torch.tensor([[[3.0, 4], [0, 1], [900, 900]], [[0.0, 0], [0, 0], [0, 0]]])
    visible = torch.tensor([[1, 1, 0], [0, 0, 0]])
    first, second = keypoint_error(found, truth, visible).tolist()
    assert first == pytest.approx(3)
    assert math.isnan(second)


@pytest.fixture
def people(rng):
    """60 COCO persons with one estimate each: truth n x 17 x 3, area, found n x 17 x 2, score. Some are not annotated."""
    count = 60
    truth = np.concatenate([rng.uniform(0, 300, (count, 17, 2)), rng.integers(0, 3, (count, 17, 1))], axis=-1)
    truth[5, :, 2] = truth[17, :, 2] = 0
    area = rng.uniform(500, 60000, count)
    # From perfect to hopeless, so that all thresholds have hits and misses.
    noise = rng.normal(size=(count, 17, 2)) * np.sqrt(area)[:, None, None] * rng.uniform(0, 0.25, (count, 1, 1))
    found = truth[..., :2] + noise
    found[3] = truth[3, :, :2]
    score = np.round(rng.random(count), 1)  # with ties
    return truth, area, found, score


def test_oks_equals_pycocotools(people, cocoeval):
    truth, area, found, score = people
    evaluation = cocoeval(truth, area, found, score)
    ours = oks(*tensor(found, truth[..., :2], truth[..., 2], area)).numpy()
    for person, value in enumerate(ours):
        if (truth[person, :, 2] > 0).any():
            assert value == pytest.approx(evaluation.ious[person + 1, 1][0, 0], rel=1e-12)
        else:
            assert np.isnan(value)
    np.testing.assert_allclose(COCO_SIGMAS, evaluation.params.kpt_oks_sigmas, rtol=1e-12)


@pytest.mark.parametrize("worse", [0.1, 0.4, 1.0, 50.0])
def test_average_precision_equals_pycocotools(people, cocoeval, worse):
    truth, area, found, score = people
    # Estimates of persons without annotation stay in their boxes, where COCO ignores them.
    annotated = (truth[..., 2] > 0).any(1)[:, None, None]
    found = truth[..., :2] + np.where(annotated, (found - truth[..., :2]) * worse, 0)
    evaluation = cocoeval(truth, area, found, score)
    ours = average_precision(oks(*tensor(found, truth[..., :2], truth[..., 2], area)), tensor(score))
    np.testing.assert_allclose(ours, evaluation.stats[[0, 1, 2, 5]], rtol=1e-12, atol=1e-12)
    if worse == 0.4:
        assert 0.1 < ours.ap < 0.9  # the comparison means something


def test_average_precision_by_hand():
    similarities = torch.tensor([0.92, 0.2, 0.82, torch.nan])
    # Ranked 0.92, 0.2, 0.82: at 0.50 precision is 1 up to recall 1/3, then 2/3 up to recall 2/3, then nothing.
    found = average_precision(similarities, torch.tensor([0.9, 0.5, 0.1, 1.0]))
    assert found.ap50 == found.ap75 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    # Two of three are found at the seven thresholds up to 0.80, one at 0.85 and 0.90, none at 0.95.
    assert found.ar == pytest.approx((7 * 2 / 3 + 2 * 1 / 3) / 10)
    assert found.ap == pytest.approx((7 * (34 + 22) + 2 * 34) / 101 / 10)


def test_perfect_estimates_have_precision_one_and_nobody_has_none():
    assert average_precision(torch.ones(7), torch.rand(7)) == (1, 1, 1, 1)
    assert average_precision(torch.zeros(7), torch.rand(7)) == (0, 0, 0, 0)
    assert all(math.isnan(value) for value in average_precision(torch.full((3,), torch.nan), torch.rand(3)))


# Collecting


def test_scores_average_over_crops_in_a_fixed_order_with_units_in_names():
    scores = Scores()
    scores.add(pve_mm=torch.tensor([3.0]), mpjpe_mm=torch.tensor([1.0]), keypoint_px=torch.tensor([torch.nan]))
    scores.add(mpjpe_mm=torch.tensor([2.0, 6.0]), pve_mm=torch.tensor([5.0, 4.0]), keypoint_px=torch.tensor([2.0, 4.0]))
    summary = scores.summary()
    assert summary.crops == 3
    assert summary.values == (("mpjpe_mm", 3.0), ("pve_mm", 4.0), ("keypoint_px", 3.0))
    assert list(summary.as_dict()) == ["crops", "mpjpe_mm", "pve_mm", "keypoint_px"]
    assert str(summary) == "3 crops  mpjpe_mm 3  pve_mm 4  keypoint_px 3"
    assert scores.values("mpjpe_mm").tolist() == [1, 2, 6]


def test_scores_of_several_processes_add_up_and_give_precision(people):
    truth, area, found, score = people
    similarities = oks(*tensor(found, truth[..., :2], truth[..., 2], area))
    together, first, second = Scores(), Scores(), Scores()
    together.add(oks=similarities, confidence=tensor(score))
    first.add(oks=similarities[:25], confidence=tensor(score[:25]))
    second.add(oks=similarities[25:], confidence=tensor(score[25:]))
    first.extend([Scores(), second])
    assert first.summary() == together.summary()
    assert dict(together.summary().values)["coco_ap"] == average_precision(similarities, tensor(score)).ap
    assert [name for name, _ in together.summary().values] == ["oks", "coco_ap", "coco_ap50", "coco_ap75", "coco_ar"]


def test_scores_refuse_what_does_not_fit():
    scores = Scores()
    with pytest.raises(ValueError, match="unknown"):
        scores.add(mpjpe=torch.ones(2))
    with pytest.raises(ValueError, match="one value per crop"):
        scores.add(mpjpe_mm=torch.ones(2), pve_mm=torch.ones(3))
    scores.add(mpjpe_mm=torch.ones(2))
    with pytest.raises(ValueError, match="earlier"):
        scores.add(pve_mm=torch.ones(2))


def test_empty_scores_have_an_empty_summary():
    assert Scores().summary().as_dict() == {"crops": 0}
