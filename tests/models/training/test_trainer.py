"""The training loop: it goes on where it stopped, it learns, and it scores checkpoints and bundles alike."""

import dataclasses
import itertools
import json

import pytest
import torch
from typer.testing import CliRunner

from glnet.backend import TorchBackend
from glnet.checkpoint import Checkpoint
from glnet.config import CropSpec
from glnet.recovery import MeshRecovery
from glnet.training.cli import app
from glnet.training.evaluation import evaluate
from glnet.training.matching import Matching
from glnet.training.recipe import Recipe
from glnet.training.trainer import Trainer
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.errors import CheckpointError


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-for-bit equality needs a fixed order of sums; and threads of a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, name="tiny", crop=CropSpec(size=64), keypoint_origin="pixel", keypoints=29)


RECIPE = Recipe(steps=8, batch=4, warmup=2, block=8, blocks=2, refresh=3, curriculum=2, precision="float32")


def weights(trainer):
    return [value.clone() for module in (trainer.network, trainer.averaged) for value in module.state_dict().values()]


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(config, demo_body, tmp_path):
    whole = Trainer(config, RECIPE, demo_body)
    expected = [terms["loss"] for terms in whole.run(8)]
    first = Trainer(config, RECIPE, demo_body)
    found = [terms["loss"] for terms in first.run(5)]
    first.save(tmp_path / "state.pt")
    second = Trainer.load(tmp_path / "state.pt", demo_body)
    found += [terms["loss"] for terms in second.run(8)]
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))


def test_another_seed_is_another_training(config, demo_body):
    losses = [
        [terms["loss"] for terms in Trainer(config, dataclasses.replace(RECIPE, seed=seed), demo_body).run(2)]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


def test_the_recipes_matching_survives_a_resume(config, demo_body, tmp_path):
    trainer = Trainer(config, RECIPE, demo_body, matching=Matching(dynamic=False, positives=3))
    trainer.save(tmp_path / "state.pt")
    assert Trainer.load(tmp_path / "state.pt", demo_body).matching == Matching(dynamic=False, positives=3)


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "a checkpoint"])
def test_what_is_no_training_state_is_refused(content, config, demo_body, small_checkpoint, tmp_path):
    path = small_checkpoint
    if content is not None:
        path = tmp_path / "state.pt"
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="training state"):
        Trainer.load(path, demo_body)


def test_the_learning_rate_rises_then_falls():
    recipe = Recipe(steps=100, warmup=10)
    rates = [recipe.rate(step) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[100] == pytest.approx(0.01)


def test_a_few_steps_lower_the_loss():
    """The product's own smoke test, shorter: a loss that falls by two fifths."""
    result = CliRunner().invoke(app, ["smoke", "--steps", "30"])
    assert result.exit_code == 0, result.output
    first, last = (float(word) for word in result.stdout.split()[1::2])
    assert last < 0.6 * first


def test_a_checkpoint_and_its_bundle_score_alike(small_recovery, demo_body, shared_bundle):
    size = small_recovery.network.config.crop.size
    scores = [
        evaluate(backend, demo_body, size, 20).scores.summary().as_dict()
        for backend in (TorchBackend(small_recovery), open_backend("onnxruntime-cpu", Bundle.open(shared_bundle)))
    ]
    # Parity of the export is 0.05 mm; metrics are means.
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    assert scores[0]["crops"] == 20


def test_the_truth_scores_zero(small_config, demo_body):
    """A backend that knows the answer has no error, so labels, metrics and frames fit together."""
    from glnet.training.synthetic import SyntheticSource

    config = dataclasses.replace(small_config, crop=CropSpec(size=64), keypoints=29)
    decoder = MeshRecovery(_network(config), demo_body).decoder
    source = SyntheticSource(demo_body, 64, seed=7)

    class Oracle:
        name = "oracle"

        def run(self, crops, cameras):
            sample = source.sample(len(crops))
            estimate = decoder.encode(sample.rotations, sample.betas, sample.translation, sample.cameras)
            decoded = decoder(estimate, sample.cameras)
            count = len(crops)
            outputs = {
                "vertices": decoded.vertices,
                "joints": decoded.joints,
                "keypoints_2d": (estimate.keypoints + 0.5) * 64,
                "rotations": decoded.rotations,
                "betas": estimate.betas,
                "translation": decoded.translation,
                "confidence": torch.ones(count),
                "reference_pixel": torch.zeros(count, 2, dtype=torch.int32),
            }
            return {name: value.numpy() for name, value in outputs.items()}

        def close(self):
            pass

    result = evaluate(Oracle(), demo_body, 64, 20, seed=7)
    found, standing = result.scores.summary().as_dict(), result.baseline.summary().as_dict()
    assert found["mpjpe_mm"] < 0.1 and found["pve_mm"] < 0.1 and found["keypoint_px"] < 0.01
    assert standing["mpjpe_mm"] > 200  # people stand, sit and lie in all directions


def _network(config):
    from glnet.network import GLNet

    return GLNet(config)


def test_training_from_the_command_line_is_resumed_and_scored(config, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    arguments = ["fit", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.json"), "--steps", "2", "--batch", "2"]
    arguments += ["--pool", "1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0 and "going on from step 2" in again.stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    checkpoint = tmp_path / "run" / "checkpoint.pth"
    assert Checkpoint.load(checkpoint).config == config
    result = CliRunner().invoke(app, ["eval", str(checkpoint), "--crops", "4", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["found"]["crops"] == 4
