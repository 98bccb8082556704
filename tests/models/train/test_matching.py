"""Dynamic matching: properties that the poster's cost must have (research notes, section 8)."""

import pytest
import torch

from glnet.estimate import EstimateLayout
from glnet_infer.errors import InputError
from glnet_train.objective.losses import focal_loss
from glnet_train.objective.matching import COSTS, Matching, matching_costs, positives

CROPS, GRID = 3, 16


@pytest.fixture
def layout(small_config):
    return EstimateLayout(small_config)


@pytest.fixture
def logits():
    return torch.randn(CROPS, GRID, GRID, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def estimates(layout):
    return torch.randn(CROPS, GRID * GRID, layout.size, generator=torch.Generator().manual_seed(1)) * 0.2


@pytest.fixture
def targets(layout, make_targets):
    return make_targets(layout, CROPS)


@pytest.mark.parametrize("count", [1, 10, 20, 50, 100])
def test_as_many_distinct_pixels_are_positive_as_asked_for(logits, estimates, targets, count):
    index = positives(logits, estimates, targets, Matching(positives=count))
    assert index.shape == (CROPS, count)
    assert all(len(set(row.tolist())) == count for row in index)


@pytest.mark.parametrize("costs", COSTS)
def test_a_pixel_that_gets_better_stays_positive(logits, estimates, targets, layout, costs):
    matching = Matching(positives=20, costs=costs)
    chosen = int(positives(logits, estimates, targets, matching)[0, -1])  # the worst of the positives
    truth = layout.join(targets.estimate)[0]
    nearer = estimates.clone()
    nearer[0, chosen] = truth + (nearer[0, chosen] - truth) * 0.5
    surer = logits.clone()
    surer[0, chosen // GRID, chosen % GRID] += 2
    assert chosen in positives(logits, nearer, targets, matching)[0]
    assert chosen in positives(surer, estimates, targets, matching)[0]


@pytest.mark.parametrize(("costs", "weight"), [*((costs, 1.0) for costs in COSTS), ("keypoints", 8.0)])
def test_costs_are_the_posters_formula_written_out(logits, estimates, targets, layout, costs, weight):
    cost = matching_costs(logits, estimates, targets, Matching(costs=costs, confidence_cost=weight))
    crop, y, x = 1, 5, 9
    p = 1 / (1 + torch.exp(-logits[crop, y, x].double()))
    expected = float(-weight * 0.25 * (1 - p) ** 2 * torch.log(p))
    found = layout.split(estimates[crop, y * GRID + x])
    known = {
        "keypoints": targets.keypoint_weights,
        "depths": targets.depth_weights,
        "rotation": targets.rotation_weights,
    }
    for name in list(known)[: costs.count("+") + 1]:
        weights = known[name][crop].double()
        error = (getattr(found, name) - getattr(targets.estimate, name)[crop]).double().abs()
        error = error.flatten(1).sum(1) if error.ndim > 1 else error
        expected += len(weights) * float((error * weights).sum() / weights.sum())
    assert float(cost[crop, y * GRID + x]) == pytest.approx(expected, rel=1e-5)  # float32 against float64


def test_keypoints_that_nobody_sees_do_not_count(logits, estimates, targets):
    hidden = targets.keypoint_weights.clone()
    hidden[:, 3] = 0
    hidden_targets = targets._replace(keypoint_weights=hidden)
    wrong = estimates.clone()
    wrong[..., 6:8] += 100
    matching = Matching()
    before = matching_costs(logits, estimates, hidden_targets, matching)
    assert torch.equal(before, matching_costs(logits, wrong, hidden_targets, matching))
    nobody = targets._replace(keypoint_weights=torch.zeros_like(hidden))
    assert matching_costs(logits, estimates, nobody, matching).isfinite().all()


def test_without_dynamic_matching_the_pixels_around_the_root_are_positive(logits, targets):
    keypoints = targets.estimate.keypoints.clone()
    keypoints[:, 0] = torch.tensor([2.5, -1.5]) / GRID  # cell (10, 6) of a grid whose middle is between 7 and 8
    moved = targets._replace(estimate=targets.estimate._replace(keypoints=keypoints))
    index = positives(logits, None, moved, Matching(positives=5))
    expected = {6 * GRID + 10, 6 * GRID + 9, 6 * GRID + 11, 5 * GRID + 10, 7 * GRID + 10}
    labelled = targets.keypoint_weights[:, 0] > 0
    assert labelled.tolist() == [True, False, True]
    assert all(set(row.tolist()) == expected for row in index[labelled])


def test_without_a_label_of_the_root_the_middle_of_the_person_takes_its_place(logits, targets):
    """COCO labels no pelvis; what stands in its place must not count."""
    keypoints = targets.estimate.keypoints.clone()
    keypoints[1, :5] = 100  # not labelled
    keypoints[1, 5:] = torch.tensor([-3.5, 4.5]) / GRID  # cell (4, 12)
    moved = targets._replace(estimate=targets.estimate._replace(keypoints=keypoints))
    matching = Matching(positives=1)
    assert positives(logits, None, moved, matching)[1].tolist() == [12 * GRID + 4]
    nobody = moved._replace(keypoint_weights=torch.zeros_like(moved.keypoint_weights))
    y, x = divmod(int(positives(logits, None, nobody, matching)[1]), GRID)
    assert {x, y} <= {GRID // 2 - 1, GRID // 2}  # the crop's middle


def test_the_matching_is_no_part_of_the_gradient(logits, estimates, targets):
    assert not positives(logits.requires_grad_(), estimates.requires_grad_(), targets, Matching()).requires_grad


def test_unknown_costs_and_no_positives_are_refused():
    with pytest.raises(InputError, match="matching costs"):
        Matching(costs="everything")
    with pytest.raises(InputError, match="positives"):
        Matching(positives=0)


def test_focal_loss_of_plain_entropy_is_cross_entropy(logits):
    index = torch.tensor([[3], [7], [200]])
    labels = torch.zeros(CROPS, GRID * GRID)
    labels[torch.arange(CROPS)[:, None], index] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.flatten(1), labels, reduction="sum")
    # With exponent 0 and balance 1/2, what is left is half the cross entropy per positive.
    assert float(focal_loss(logits, index, 0.5, 0.0)) == pytest.approx(float(expected) / 2 / CROPS, rel=1e-5)


def test_the_confidence_decides_where_it_weighs_all(logits, estimates, targets):
    index = positives(logits, estimates, targets, Matching(positives=5, confidence_cost=1e6))
    surest = logits.flatten(1).topk(5).indices
    assert torch.equal(index.sort(1).values, surest.sort(1).values)


@pytest.mark.parametrize(("share", "kinds"), [(0, "ddd"), (0.5, "sdd"), (0.6, "ssd"), (1, "sss")])
def test_a_training_begins_with_static_matching(share, kinds):
    matching = Matching(static_share=share)
    assert "".join("s" if matching.is_static(done) else "d" for done in (0.0, 0.5, 0.999)) == kinds


@pytest.mark.parametrize(
    "change", [{"static_share": -0.1}, {"static_share": 1.1}, {"confidence_cost": -1.0}, {"confidence_cost": float("nan")}]
)
def test_shares_and_weights_that_cannot_be_are_refused(change):
    with pytest.raises(InputError):
        Matching(**change)
