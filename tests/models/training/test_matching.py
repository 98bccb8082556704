"""Dynamic matching: properties that the poster's cost must have (research notes, section 8)."""

import pytest
import torch

from glnet.estimate import EstimateLayout
from glnet.network import Prediction
from glnet.training.losses import focal_loss
from glnet.training.matching import Matching, matching_costs, positives
from glnet_infer.errors import CheckpointError

CROPS, GRID = 3, 16


@pytest.fixture
def layout(small_config):
    return EstimateLayout(small_config)


@pytest.fixture
def prediction(layout):
    generator = torch.Generator().manual_seed(0)
    return Prediction(
        coarse=torch.randn(CROPS, layout.size, generator=generator),
        pixels=torch.randn(CROPS, layout.size, GRID, GRID, generator=generator) * 0.2,
        logits=torch.randn(CROPS, GRID, GRID, generator=generator),
        points=None,
    )


@pytest.fixture
def targets(layout, make_targets):
    return make_targets(layout, CROPS)


@pytest.mark.parametrize("count", [1, 10, 20, 50, 100])
def test_as_many_distinct_pixels_are_positive_as_asked_for(prediction, targets, layout, count):
    index = positives(prediction, targets, layout, Matching(positives=count))
    assert index.shape == (CROPS, count)
    assert all(len(set(row.tolist())) == count for row in index)


@pytest.mark.parametrize("costs", ["keypoints", "keypoints+depth", "keypoints+depth+rotation"])
def test_a_pixel_that_gets_better_stays_positive(prediction, targets, layout, costs):
    matching = Matching(positives=20, costs=costs)
    chosen = positives(prediction, targets, layout, matching)[0, -1]  # the worst of the positives
    y, x = int(chosen) // GRID, int(chosen) % GRID
    truth = layout.join(targets.estimate)[0]
    nearer = prediction.pixels.clone()
    nearer[0, :, y, x] = truth + (nearer[0, :, y, x] - truth) * 0.5
    surer = prediction.logits.clone()
    surer[0, y, x] += 2
    for better in (prediction._replace(pixels=nearer), prediction._replace(logits=surer)):
        assert chosen in positives(better, targets, layout, matching)[0]


def test_costs_are_the_posters_formula_written_out(prediction, targets, layout):
    cost = matching_costs(prediction, targets, layout, Matching())
    crop, y, x = 1, 5, 9
    p = 1 / (1 + torch.exp(-prediction.logits[crop, y, x].double()))
    focal = -0.25 * (1 - p) ** 2 * torch.log(p)
    found = prediction.pixels[crop, : 2 * layout.keypoints, y, x].double().reshape(-1, 2)
    truth = targets.estimate.keypoints[crop].double()
    weights = targets.keypoint_weights[crop].double()
    errors = [float((a - b).abs().sum()) * float(w) for a, b, w in zip(found, truth, weights, strict=True)]
    expected = float(focal) + layout.keypoints * sum(errors) / float(weights.sum())
    assert float(cost[crop, y * GRID + x]) == pytest.approx(expected, rel=1e-5)  # float32 against float64


def test_keypoints_that_nobody_sees_do_not_count(prediction, targets, layout):
    hidden = targets.keypoint_weights.clone()
    hidden[:, 3] = 0
    hidden_targets = targets._replace(keypoint_weights=hidden)
    wrong = prediction.pixels.clone()
    wrong[:, 6:8] += 100
    matching = Matching()
    before = matching_costs(prediction, hidden_targets, layout, matching)
    assert torch.equal(before, matching_costs(prediction._replace(pixels=wrong), hidden_targets, layout, matching))
    nobody = targets._replace(keypoint_weights=torch.zeros_like(hidden))
    assert matching_costs(prediction, nobody, layout, matching).isfinite().all()


def test_without_dynamic_matching_the_pixels_around_the_root_are_positive(prediction, targets, layout):
    keypoints = targets.estimate.keypoints.clone()
    keypoints[:, 0] = torch.tensor([2.5, -1.5]) / GRID  # cell (10, 6) of a grid whose middle is between 7 and 8
    moved = targets._replace(estimate=targets.estimate._replace(keypoints=keypoints))
    index = positives(prediction, moved, layout, Matching(dynamic=False, positives=5))
    expected = {6 * GRID + 10, 6 * GRID + 9, 6 * GRID + 11, 5 * GRID + 10, 7 * GRID + 10}
    assert all(set(row.tolist()) == expected for row in index)


def test_the_matching_is_no_part_of_the_gradient(prediction, targets, layout):
    pixels = prediction.pixels.clone().requires_grad_()
    assert not positives(prediction._replace(pixels=pixels), targets, layout, Matching()).requires_grad


def test_unknown_costs_and_no_positives_are_refused():
    with pytest.raises(CheckpointError, match="matching costs"):
        Matching(costs="everything")
    with pytest.raises(CheckpointError, match="positives"):
        Matching(positives=0)


def test_focal_loss_of_plain_entropy_is_cross_entropy(prediction):
    index = torch.tensor([[3], [7], [200]])
    labels = torch.zeros(CROPS, GRID * GRID)
    labels[torch.arange(CROPS)[:, None], index] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(prediction.logits.flatten(1), labels, reduction="sum")
    # With exponent 0 and balance 1/2, what is left is half the cross entropy per positive.
    assert float(focal_loss(prediction.logits, index, 0.5, 0.0)) == pytest.approx(float(expected) / 2 / CROPS, rel=1e-5)
