"""The training objective: what it pulls on, and what it leaves alone."""

import dataclasses

import numpy as np
import pytest
import torch

from glnet.config import GLNetConfig
from glnet.decoding import Decoder, standing_estimate
from glnet.estimate import default_cameras
from glnet.network import GLNet
from glnet.parts import PARTS
from glnet_render.targets import BACKGROUND, UNKNOWN, Targets, unknown_surface
from glnet_train.objective.guidance import PLACE_WEIGHT, Guidance
from glnet_train.objective.losses import LossWeights, Objective, weighted_mean
from glnet_train.objective.matching import Matching, positives

CROPS = 2

DYNAMIC = 0.9
"""Share of a training that is done, at which matching is dynamic by default."""


def _objective(config, body, matching=None):
    torch.manual_seed(0)
    network = GLNet(config)
    decoder = Decoder(config, body)
    network.initialize(standing_estimate(decoder, config.keypoints))
    return network, Objective(network, decoder, matching or Matching(), LossWeights())


def _targets(network, decoder):
    """The standing body, a little to the right, everything labelled."""
    estimate = standing_estimate(decoder, network.config.keypoints)
    estimate = type(estimate)(*(part.repeat(CROPS, *([1] * (part.ndim - 1))) for part in estimate))
    estimate = estimate._replace(keypoints=estimate.keypoints + 0.05)
    cameras = default_cameras(CROPS)
    segments, places = unknown_surface(CROPS, network.config.grid)
    return Targets(
        estimate=estimate,
        keypoint_weights=torch.ones(CROPS, network.config.keypoints),
        depth_weights=torch.ones(CROPS, network.config.keypoints),
        rotation_weights=torch.ones(CROPS, estimate.rotation.shape[1]),
        shape_weights=torch.ones(CROPS, 1),
        scale_weights=torch.ones(CROPS, 1),
        rotations=decoder.pose(estimate, cameras),
        pose_weights=torch.ones(CROPS, 24),
        cameras=cameras,
        segments=segments,
        places=places,
    )


@pytest.fixture
def crops():
    return torch.randint(0, 255, (CROPS, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_regression_pulls_on_positive_pixels_alone(small_config, demo_body, crops):
    network, objective = _objective(small_config, demo_body)
    targets = _targets(network, objective.decoder)
    prediction = network(crops)
    features = prediction.pixel_features.detach().requires_grad_()
    terms = objective(prediction._replace(pixel_features=features), targets, DYNAMIC)
    sum(value for name, value in terms.items() if not name.startswith(("coarse", "confidence"))).backward()
    touched = features.grad.flatten(2).abs().sum(1) > 0
    index = positives(prediction.logits, network.all_estimates(prediction), targets, objective.matching)
    expected = torch.zeros_like(touched).scatter(1, index, True)
    assert torch.equal(touched, expected)


@pytest.mark.parametrize("local_encoding", [False, True])
@pytest.mark.parametrize("done", [0.0, DYNAMIC])
@pytest.mark.parametrize("swing_twist", [False, True])
def test_every_switch_combination_of_the_posters_table_2_trains(
    small_config, demo_body, crops, local_encoding, done, swing_twist
):
    config = dataclasses.replace(small_config, local_encoding=local_encoding, swing_twist=swing_twist)
    network, objective = _objective(config, demo_body)
    targets = _targets(network, objective.decoder)
    terms = objective(network(crops), targets, done)
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert not without
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_a_perfect_prediction_costs_nothing_but_confidence(small_config, demo_body, crops):
    network, objective = _objective(small_config, demo_body)
    targets = _targets(network, objective.decoder)
    vector = network.layout.join(targets.estimate)
    for parameter in network.heads.parameters():  # no residuals: pixels say what the coarse estimate says
        torch.nn.init.zeros_(parameter)
    terms = objective(network(crops)._replace(coarse=vector), targets, DYNAMIC)
    # Float32 through the kinematics: rotation matrices to about 1e-6, squared.
    assert all(float(value.detach()) < 1e-8 for name, value in terms.items() if name != "confidence")


def test_unknown_labels_do_not_pull(small_config, demo_body, crops):
    network, objective = _objective(small_config, demo_body)
    targets = _targets(network, objective.decoder)
    unknown = targets._replace(
        depth_weights=torch.zeros_like(targets.depth_weights),
        rotation_weights=torch.zeros_like(targets.rotation_weights),
        shape_weights=torch.zeros_like(targets.shape_weights),
        scale_weights=torch.zeros_like(targets.scale_weights),
        pose_weights=torch.zeros_like(targets.pose_weights),
    )
    terms = objective(network(crops), unknown, DYNAMIC)
    assert all(float(terms[name].detach()) == 0 for name in ("depths", "twists", "betas", "scale", "pose"))
    assert float(terms["keypoints"].detach()) > 0


def test_weighted_mean_of_nothing_is_zero_with_a_gradient_of_zero():
    errors = torch.ones(4, requires_grad=True)
    value = weighted_mean(errors, torch.zeros(4))
    value.backward()
    assert float(value.detach()) == 0
    assert torch.equal(errors.grad, torch.zeros(4))


def test_guidance_by_facing_prefers_the_true_direction(small_config, demo_body, crops):
    """Cross entropy over directions: least where the person faces, and relative to the ray through the crop's centre."""
    network, objective = _objective(small_config, demo_body)
    targets = _targets(network, objective.decoder)  # stands and faces the camera: -z
    guidance = Guidance(small_config)
    prediction = network(crops)
    index = torch.zeros(CROPS, 20, dtype=torch.long)
    losses = {}
    for name, direction in {"camera": (0, 0, -1), "away": (0, 0, 1), "left": (1, 0, 0)}.items():
        with torch.no_grad():
            guidance.facing.weight.zero_()
            guidance.facing.bias.copy_(10 * guidance.directions @ torch.tensor(direction, dtype=torch.float32))
        losses[name] = float(guidance(prediction, targets, index)["facing"].detach())
    assert losses["camera"] < losses["left"] < losses["away"]
    # Seen along a ray that leans to the right, whoever faces the image plane turns to the crop's right.
    aside = targets._replace(cameras=torch.tensor([[1.0, 1.0, -1.0, 0.0]]).expand(CROPS, -1))
    assert float(guidance(prediction, aside, index)["facing"].detach()) < losses["left"]
    unknown = targets._replace(pose_weights=torch.zeros_like(targets.pose_weights))
    assert float(guidance(prediction, unknown, index)["facing"].detach()) == 0


def test_guidance_directions_are_unit_vectors_spread_evenly():
    directions = Guidance(GLNetConfig(pixel_channels=4)).directions
    np.testing.assert_allclose(directions.norm(dim=1), 1, atol=1e-6)
    nearest = (directions @ directions.T - 2 * torch.eye(len(directions))).amax(1).clamp(max=1).acos().rad2deg()
    assert float(nearest.min()) > 20 and float(nearest.max()) < 40  # degrees to the next one


def test_guidance_by_surface_asks_for_segment_and_place_where_they_are_known(small_config, demo_body, crops):
    network, objective = _objective(small_config, demo_body)
    guidance = Guidance(small_config)
    with torch.no_grad():  # the same answer everywhere: segment 7, at (1, 2, 3) m, 0.5 m behind the root
        guidance.surface.weight.zero_()
        guidance.surface.bias.zero_()
        guidance.surface.bias[7] = 20
        guidance.surface.bias[-4:] = torch.tensor([1.0, 2.0, 3.0, 0.5])
    targets = _targets(network, objective.decoder)
    prediction, index = network(crops), torch.zeros(CROPS, 20, dtype=torch.long)

    def losses(segments, places):
        terms = guidance(prediction, targets._replace(segments=segments, places=places), index)
        return float(terms["segments"].detach()), float(terms["places"].detach())

    nowhere, zeros = targets.segments, targets.places
    assert losses(nowhere, zeros) == (0, 0)
    person = nowhere.clone()
    person[0, 10:20, 10:20] = 7
    right = zeros + torch.tensor([1.0, 2.0, 3.0, 0.5])
    assert losses(person, right) == pytest.approx((0, 0), abs=1e-6)
    assert losses(person, right + torch.tensor([0.1, 0, 0, 0.1])) == pytest.approx((0, PLACE_WEIGHT * 0.2), abs=1e-5)
    assert losses(person.where(person == UNKNOWN, 8), right)[0] == pytest.approx(20, abs=0.01)
    # A large background counts as much as a small person: each half.
    around = person.where(person != UNKNOWN, BACKGROUND)
    assert losses(around, right) == pytest.approx((10, 0), abs=0.01)


def test_part_points_are_pulled_to_the_middle_of_their_part(small_config, demo_body, crops):
    """At the true middles the loss is zero; one cell beside them, it is a half (the mean over x and y)."""
    network, objective = _objective(small_config, demo_body)
    guidance, targets = Guidance(small_config), _targets(network, objective.decoder)
    prediction, index = network(crops), torch.arange(20).repeat(CROPS, 1)
    cells = (targets.estimate.keypoints[:, :29] + 0.5) * small_config.grid - 0.5
    middles = torch.stack([cells[:, list(joints)].mean(1) for joints in PARTS.values()], dim=1)
    points = middles[:, :, None, None].expand_as(prediction.points)
    for shift, expected in ((0.0, 0.0), (1.0, 0.5)):
        moved = prediction._replace(points=points + torch.tensor([shift, 0.0]))
        assert float(guidance(moved, targets, index)["part points"].detach()) == pytest.approx(expected, abs=1e-5)
    # A joint without a label does not move the middle: the part is judged by the others.
    hidden = targets.keypoint_weights.clone()
    hidden[:, [joint for joint in range(29) if joint not in (20, 21)]] = 0
    wrists = cells[:, [20, 21]]
    moved = points.clone()
    moved[:, 2], moved[:, 3] = wrists[:, 0, None, None], wrists[:, 1, None, None]
    found = guidance(prediction._replace(points=moved), targets._replace(keypoint_weights=hidden), index)
    assert float(found["part points"].detach()) == pytest.approx(0, abs=1e-5)
