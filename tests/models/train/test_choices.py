"""What a network could have answered, against every pixel's answer decoded on its own and measured with NumPy."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glnet.backend import TorchBackend
from glnet_render import SyntheticSource
from glnet_render.placement import project
from glnet_train.commands.main import app
from glnet_train.scores import choices, evaluate, score_choices

CROPS, SEED = 6, 3


@pytest.fixture(scope="module")
def found(small_recovery, demo_body):
    return score_choices(small_recovery, demo_body, CROPS, seed=SEED)


@pytest.fixture(scope="module")
def pixels(small_recovery, demo_body):
    """Every pixel's estimate and keypoints, crop pixels; confidences, true joints and keypoints, and which are seen."""
    network = small_recovery.network
    sample = SyntheticSource(demo_body, small_recovery.crop, seed=SEED).sample(CROPS)
    truth = demo_body.pose(sample.rotations, sample.betas)
    with torch.no_grad():
        prediction = network(sample.crops)
        keypoints, vectors = [], []
        for pixel in range(network.config.grid**2):
            vector = network.estimates(prediction, torch.full((CROPS, 1), pixel)).squeeze(1)
            vectors.append(vector)
            keypoints.append(
                (network.layout.split(vector).keypoints[:, :29].double().numpy() + 0.5) * small_recovery.crop.size
            )
    places = (project(truth.joints + sample.translation[:, None], sample.cameras) + 0.5) * small_recovery.crop.size
    return {
        "keypoints": np.stack(keypoints, axis=1),
        "vectors": torch.stack(vectors, dim=1),
        "recovery": small_recovery,
        "cameras": sample.cameras,
        "confidence": prediction.logits.flatten(1).numpy(),
        "true joints": truth.joints[:, :24].double().numpy(),
        "places": places.double().numpy(),
        "visible": sample.visibility.numpy(),
        "grid": network.config.grid,
    }


def keypoint_errors(pixels, chosen):
    """Errors of a pixel for each crop: visible keypoints in pixels."""
    off = np.linalg.norm(pixels["keypoints"][np.arange(CROPS), chosen] - pixels["places"], axis=-1)
    return np.average(off, axis=1, weights=pixels["visible"])


def measured(pixels, chosen):
    """The same, and before them errors of joints in millimetres."""
    return joint_errors(pixels, pixels["vectors"][np.arange(CROPS), chosen]), keypoint_errors(pixels, chosen)


def joint_errors(pixels, vectors):
    """Errors of estimates' joints, millimetres."""
    recovery, truth = pixels["recovery"], pixels["true joints"]
    with torch.no_grad():
        decoded = recovery.decoder(recovery.network.layout.split(vectors), pixels["cameras"])
    joints = decoded.joints[:, :24].double().numpy()
    relative = joints - joints[:, :1] - (truth - truth[:, :1])
    return 1000 * np.linalg.norm(relative, axis=-1).mean(1)


def assert_equal(scores, expected):
    """Float32's rounding of positions, metres from the camera, in another order of sums."""
    np.testing.assert_allclose(scores.values("mpjpe_mm"), expected[0], atol=0.02, rtol=0)
    np.testing.assert_allclose(scores.values("keypoint_px"), expected[1], atol=1e-3, rtol=0)


def test_the_chosen_pixel_is_the_most_confident_one(found, pixels, small_recovery, demo_body):
    assert_equal(found["chosen"], measured(pixels, pixels["confidence"].argmax(1)))
    other = evaluate(TorchBackend(small_recovery), demo_body, small_recovery.crop, CROPS, seed=SEED).scores
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "keypoint_px"):
        np.testing.assert_allclose(found["chosen"].values(name), other.values(name), atol=0.02, rtol=0)


def test_the_pixel_at_the_root_is_the_one_below_the_true_joint(found, pixels):
    stride = 4  # of the grid, in crop pixels
    cells = np.clip(pixels["places"][:, 0] // stride, 0, pixels["grid"] - 1).astype(int)
    assert_equal(found["root"], measured(pixels, cells[:, 1] * pixels["grid"] + cells[:, 0]))


def test_the_best_pixel_has_the_nearest_keypoints(found, pixels):
    errors = np.stack([keypoint_errors(pixels, pixel) for pixel in range(pixels["grid"] ** 2)], axis=1)
    assert_equal(found["best"], measured(pixels, errors.argmin(1)))
    assert (errors.argmin(1) != pixels["confidence"].argmax(1)).any()


def test_the_mean_is_of_the_surest_pixels_estimates(found, pixels):
    surest = np.argsort(-pixels["confidence"], axis=1)[:, :20]
    vectors = torch.stack([pixels["vectors"][crop, surest[crop]].double().mean(0) for crop in range(CROPS)]).float()
    np.testing.assert_allclose(found["mean"].values("mpjpe_mm"), joint_errors(pixels, vectors), atol=0.02, rtol=0)
    mean = np.take_along_axis(pixels["keypoints"], surest[..., None, None], axis=1).mean(1)
    off = np.linalg.norm(mean - pixels["places"], axis=-1)
    expected = np.average(off, axis=1, weights=pixels["visible"])
    np.testing.assert_allclose(found["mean"].values("keypoint_px"), expected, atol=1e-3, rtol=0)


def test_the_coarse_estimate_is_the_one_before_all_residuals(found, small_recovery, demo_body):
    sample = SyntheticSource(demo_body, small_recovery.crop, seed=SEED).sample(CROPS)
    with torch.no_grad():
        coarse = small_recovery.network(sample.crops).coarse
        joints = small_recovery.decoder(small_recovery.network.layout.split(coarse), sample.cameras).joints[:, :24]
    truth = demo_body.pose(sample.rotations, sample.betas).joints[:, :24]
    relative = (joints - joints[:, :1] - truth + truth[:, :1]).double().numpy()
    expected = 1000 * np.linalg.norm(relative, axis=-1).mean(1)
    np.testing.assert_allclose(found["coarse"].values("mpjpe_mm"), expected, atol=0.02, rtol=0)


def test_a_person_of_whom_no_joint_is_seen_is_measured_by_all(small_recovery, demo_body, pixels, monkeypatch):
    def hidden(*arguments, **options):
        source = SyntheticSource(*arguments, **options)
        monkeypatch.setattr(source, "sample", lambda count, draw=source.sample: _unseen(draw(count)))
        return source

    monkeypatch.setattr(choices, "SyntheticSource", hidden)
    found = score_choices(small_recovery, demo_body, CROPS, seed=SEED)
    off = np.linalg.norm(pixels["keypoints"] - pixels["places"][:, None], axis=-1).mean(2)
    best = pixels["vectors"][np.arange(CROPS), off.argmin(1)]
    np.testing.assert_allclose(found["best"].values("mpjpe_mm"), joint_errors(pixels, best), atol=0.02, rtol=0)
    assert found["best"].values("keypoint_px").isnan().all()


def _unseen(sample):
    return sample._replace(visibility=torch.zeros_like(sample.visibility))


def test_the_command_scores_checkpoints_alone(small_checkpoint, tmp_path):
    arguments = ["eval", str(small_checkpoint), "--crops", "4", "--choices"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    document = json.loads(result.stdout)
    assert list(document["choices"]) == ["chosen", "coarse", "root", "best", "mean"]
    assert document["choices"]["chosen"]["mpjpe_mm"] == pytest.approx(document["found"]["mpjpe_mm"], abs=0.02)
    assert "mean of surest" in CliRunner().invoke(app, arguments).stdout
    for refused in (["eval", str(tmp_path), "--choices"], [*arguments, "--data", str(tmp_path / "list.json")]):
        result = CliRunner().invoke(app, refused)
        assert result.exit_code == 2 and "--choices" in result.output
