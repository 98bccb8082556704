"""The training loop: it goes on where it stopped, it learns, and it scores checkpoints and bundles alike."""

import dataclasses
import functools
import itertools
import json
import signal

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glnet.backend import TorchBackend
from glnet.checkpoint import Checkpoint
from glnet.config import CropSpec
from glnet.decoding import GLNetRecovery
from glnet.hrnet import HRNet
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.errors import CheckpointError, InputError, TrainingError
from glnet_render.seeds import BLOCKS, BYSTANDERS, HELD_OUT, PICTURES, PRECISION, STEPS, derived
from glnet_train.commands.main import app
from glnet_train.fit.loop import run_training
from glnet_train.fit.state import read_state
from glnet_train.fit.trainer import Trainer
from glnet_train.objective.matching import Matching
from glnet_train.recipe import Recipe
from glnet_train.scores import evaluate


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-for-bit equality needs a fixed order of sums, whatever the environment asks for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


RECIPE = Recipe(steps=8, batch=4, warmup=2, block=8, blocks=2, refresh=3, curriculum=2, precision="float32")


def weights(trainer):
    return [value.clone() for module in (trainer.network, trainer.averaged) for value in module.state_dict().values()]


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(config, demo_body, tmp_path):
    whole = Trainer(config, RECIPE, demo_body)
    expected = [terms["loss"] for terms in whole.run(8)]
    first = Trainer(config, RECIPE, demo_body)
    found = [terms["loss"] for terms in first.run(5)]
    first.save(tmp_path / "state.pt")
    second = Trainer.load(read_state(tmp_path / "state.pt"), demo_body)
    found += [terms["loss"] for terms in second.run(8)]
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))


def test_going_on_with_another_number_of_processes_is_warned_of(config, demo_body, tmp_path):
    trainer = Trainer(config, RECIPE, demo_body)
    trainer.save(tmp_path / "state.pt")
    state = read_state(tmp_path / "state.pt")
    with pytest.warns(RuntimeWarning, match="2 processes made this training, and 1 go on"):
        Trainer.load({**state, "processes": 2}, demo_body)


def test_another_seed_is_another_training(config, demo_body):
    losses = [
        [terms["loss"] for terms in Trainer(config, dataclasses.replace(RECIPE, seed=seed), demo_body).run(2)]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


def test_another_seed_renders_other_crops_and_draws_others(config, demo_body):
    batches = [Trainer(config, dataclasses.replace(RECIPE, seed=seed), demo_body).batches.at(5) for seed in (0, 1, 1)]
    assert not torch.equal(batches[0].crops, batches[1].crops)
    assert torch.equal(batches[1].crops, batches[2].crops)


def test_seeds_of_training_are_never_those_of_held_out_crops():
    seeds = {
        derived(seed, purpose, number) for seed in (0, 1, 65536) for purpose in (BLOCKS, STEPS) for number in range(1000)
    }
    assert len(seeds) > 5990  # 6,000 of 2 billion: a clash is a matter of one in a hundred
    # PyTorch's generator on a CPU takes the low 32 bits.
    assert not {seed & 0xFFFFFFFF for seed in seeds} & {value & 0xFFFFFFFF for value in (HELD_OUT, PICTURES, PRECISION)}
    assert all(seed < 1 << 31 <= HELD_OUT < 1 << 32 for seed in seeds)
    assert 1 << 31 <= derived(HELD_OUT, BYSTANDERS, 0) < 1 << 32


def test_a_training_that_diverges_stops_and_keeps_its_last_state(config, demo_body, tmp_path):
    trainer = Trainer(config, RECIPE, demo_body)
    next(trainer.run(8))
    trainer.save(tmp_path / "state.pt")
    good = weights(trainer)
    with torch.no_grad():
        trainer.network.coarse.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="diverged at step 2"):
        next(trainer.run(8))
    again = Trainer.load(read_state(tmp_path / "state.pt"), demo_body)
    assert all(torch.equal(a, b) for a, b in zip(weights(again), good, strict=True))


def test_a_training_starts_from_weights_of_another_crop_size(config, demo_body):
    first = Trainer(config, RECIPE, demo_body)
    larger = dataclasses.replace(config, name="larger", crop=CropSpec(size=96))
    second = Trainer(larger, RECIPE, demo_body, initial=first.checkpoint())
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))
    assert all(np.isfinite(terms["loss"]) for terms in second.run(1))


@pytest.mark.parametrize("change", [{"point_origin": "coarse"}, {"depth_range": 1.0}, {"body": "smpl"}])
def test_weights_that_mean_something_else_are_no_start(config, demo_body, change):
    first = Trainer(config, RECIPE, demo_body).checkpoint()
    with pytest.raises(CheckpointError, match="another " + next(iter(change))):
        Trainer(dataclasses.replace(config, **change), RECIPE, demo_body, initial=first)


def test_heads_start_anew_where_keypoints_have_another_origin(config, demo_body):
    first = Trainer(config, RECIPE, demo_body)
    next(first.run(1))
    second = Trainer(dataclasses.replace(config, keypoint_origin="part"), RECIPE, demo_body, initial=first.checkpoint())
    averaged, weights = first.averaged.state_dict(), second.network.state_dict()
    heads = [name for name in weights if name.startswith("heads.")]
    assert heads and not any(torch.equal(weights[name], averaged[name]) for name in heads)
    assert all(torch.equal(weights[name], averaged[name]) for name in weights if name not in heads)


def test_keypoints_that_shall_start_half_way_to_the_coarse_ones_begin_with_the_mean_of_both(config, demo_body):
    first = Trainer(dataclasses.replace(config, keypoint_origin="part"), RECIPE, demo_body)
    for _ in first.run(3):
        pass
    between = dataclasses.replace(config, keypoint_origin="coarse+part")
    second = Trainer(between, RECIPE, demo_body, initial=first.checkpoint())
    crops, index = first.batches.at(3).crops, torch.arange(256)[None].repeat(RECIPE.batch, 1)  # 16 x 16 pixels
    with torch.no_grad():
        prediction = first.averaged(crops)
        coarse = prediction.coarse[:, None]
        before, after = (trainer.averaged.estimates(prediction, index) for trainer in (first, second))
    keypoints = first.network.layout.sizes[0]
    mean = (before[..., :keypoints] + coarse[..., :keypoints]) / 2
    torch.testing.assert_close(after[..., :keypoints], mean, atol=1e-6, rtol=0)  # crop sides
    torch.testing.assert_close(after[..., keypoints:], before[..., keypoints:])
    assert (before[..., :keypoints] - coarse[..., :keypoints]).abs().max() > 0.01


@pytest.fixture
def grow(config, demo_body):
    """A training and another that goes on from it with a larger network, whose predictions are the same at first."""

    def grow(larger):
        first = Trainer(config, RECIPE, demo_body)
        second = Trainer(larger, RECIPE, demo_body, initial=first.checkpoint())
        crops = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, found = first.averaged(crops), second.averaged(crops)
        for name in ("pixel_features", "coarse", "logits"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))
        return first, second

    return grow


def test_resolutions_that_pixels_did_not_see_start_at_zero(config, demo_body, grow):
    first, second = grow(dataclasses.replace(config, pixel_source="all"))
    next(second.run(1))
    assert all(layer.weight.abs().max() > 0 for layer in second.network.local_encoding.coarser)
    back = Trainer(config, RECIPE, demo_body, initial=Checkpoint.of(second.network))
    assert set(back.network.state_dict()) == set(first.network.state_dict())


def test_modules_that_the_backbone_did_not_have_start_as_identities(config, demo_body, grow):
    _, second = grow(dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, modules=(2, 1, 3))))
    for _ in second.run(3):
        pass
    new = second.network.backbone.stage4[2]
    assert all(norm.weight.abs().max() > 0 for norm in new.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    with pytest.raises(CheckpointError, match="number of the backbone's modules"):
        Trainer(config, RECIPE, demo_body, initial=Checkpoint.of(second.network))


def test_in_bfloat16_coarse_estimates_and_confidences_are_float32(config, demo_body):
    """Autocast must not touch what the network keeps in float32."""
    trainer = Trainer(config, RECIPE, demo_body)
    crops = trainer.batches.at(0).crops
    seen = {}
    trainer.network.coarse.register_forward_hook(lambda _, given, result: seen.update(given=given[0], coarse=result))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction = trainer.network(crops)
    assert prediction.coarse.dtype == prediction.logits.dtype == torch.float32
    assert prediction.pixel_features.dtype == torch.bfloat16
    exact = torch.nn.functional.linear(seen["given"].double(), *(p.double() for p in trainer.network.coarse.parameters()))
    assert (seen["coarse"] - exact).abs().max() < 1e-5


def test_in_bfloat16_part_points_are_float32(config, demo_body):
    """They are what keypoints start at; bfloat16 has three digits."""
    trainer = Trainer(dataclasses.replace(config, point_origin="coarse", keypoint_origin="part"), RECIPE, demo_body)
    network, crops = trainer.network, trainer.batches.at(0).crops
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction = network(crops)
    keypoints = network.layout.split(prediction.coarse.double()).keypoints[:, :29]
    expected = ((network.local_encoding.membership.double() @ keypoints) + 0.5) * config.grid - 0.5
    # Offsets are zero at the start.
    assert (prediction.points - expected[:, :, None, None]).abs().max() < 1e-4  # cells


def test_a_training_stops_between_blocks_of_its_first_crops(config, demo_body, tmp_path, monkeypatch):
    """Rendering them takes minutes; what was stopped there goes on as if nothing had been."""
    recipe = dataclasses.replace(RECIPE, steps=2)
    whole = Trainer(config, recipe, demo_body)
    expected = [terms["loss"] for terms in whole.run(2)]
    stopped = Trainer(config, recipe, demo_body)
    render, rendered = stopped.source.sample, []

    def interrupted(count):
        rendered.append(count)
        signal.raise_signal(signal.SIGINT)
        return render(count)

    monkeypatch.setattr(stopped.source, "sample", interrupted)
    assert run_training(stopped, tmp_path, save_every=100)
    assert rendered == [recipe.block] and stopped.step == 0
    resumed = Trainer.load(read_state(tmp_path / "state.pt"), demo_body)
    assert [terms["loss"] for terms in resumed.run(2)] == expected


def test_a_finished_training_renders_nothing(config, demo_body, monkeypatch):
    training = Trainer(config, RECIPE, demo_body)
    monkeypatch.setattr(training.source, "sample", None)
    training.step = RECIPE.steps
    assert not list(training.prepare()) and not list(training.run(RECIPE.steps))


def test_more_positives_than_pixels_are_refused(config, demo_body):
    with pytest.raises(InputError, match="257 positives"):
        Trainer(config, RECIPE, demo_body, matching=Matching(positives=257))  # 16 x 16 pixels


@pytest.mark.parametrize(("share", "calls"), [(0.0, 4), (0.5, 2), (1.0, 0)])
def test_pixels_are_compared_once_matching_is_dynamic(config, demo_body, monkeypatch, share, calls):
    trainer = Trainer(config, dataclasses.replace(RECIPE, steps=4), demo_body, matching=Matching(static_share=share))
    compared = []
    estimates = trainer.network.all_estimates
    monkeypatch.setattr(trainer.network, "all_estimates", lambda *given: compared.append(trainer.step) or estimates(*given))
    for _ in trainer.run(4):
        pass
    assert compared == list(range(4))[4 - calls :]


def test_the_recipes_matching_survives_a_resume(config, demo_body, tmp_path):
    trainer = Trainer(config, RECIPE, demo_body, matching=Matching(static_share=1.0, positives=3))
    trainer.save(tmp_path / "state.pt")
    assert Trainer.load(read_state(tmp_path / "state.pt"), demo_body).matching == Matching(static_share=1.0, positives=3)


def test_a_training_goes_on_with_the_photographs_that_it_was_begun_with(config, demo_body, tmp_path):
    folders = [tmp_path / name for name in ("first", "copied", "others")]
    for folder, side in zip(folders, (90, 90, 70), strict=True):
        folder.mkdir()
        cv2.imwrite(str(folder / "wall.png"), np.full((side, 100, 3), 90, np.uint8))
    state = tmp_path / "state.pt"
    Trainer(config, RECIPE, demo_body, backgrounds=folders[0]).save(state)
    Trainer.load(read_state(state), demo_body, folders[1])  # wherever they lie now
    with pytest.raises(InputError, match="not those") as error:
        Trainer.load(read_state(state), demo_body, folders[2])
    with pytest.raises(InputError, match="none are given"):
        Trainer.load(read_state(state), demo_body)
    assert "--backgrounds" in error.value.fix
    Trainer(config, RECIPE, demo_body).save(state)
    with pytest.raises(InputError, match="begun without any"):
        Trainer.load(read_state(state), demo_body, folders[0])


def test_the_learning_rate_rises_then_falls():
    recipe = Recipe(steps=100, warmup=10)
    rates = [recipe.rate(step) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[100] == pytest.approx(0.01)


def test_a_few_steps_lower_the_loss(config, demo_body):
    """As in ``glnet-train smoke`` with its real network, a loss that falls by two fifths; here it falls by half."""
    recipe = dataclasses.replace(RECIPE, steps=40, learning_rate=4e-3, warmup=5, block=16, blocks=1, refresh=40)
    losses = [terms["loss"] for terms in Trainer(config, recipe, demo_body).run(40)]
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


def test_a_loss_that_does_not_fall_fails_the_smoke_test():
    result = CliRunner().invoke(app, ["smoke", "--steps", "2"])
    assert result.exit_code == TrainingError.exit_code and "did not fall enough" in result.stderr
    assert "tested together: pip install" in result.stderr


def test_a_checkpoint_and_its_bundle_score_alike(small_recovery, demo_body, shared_bundle):
    crop = small_recovery.network.config.crop
    scores = [
        evaluate(backend, demo_body, crop, 20).scores.summary().as_dict()
        for backend in (TorchBackend(small_recovery), open_backend("onnxruntime-cpu", Bundle.open(shared_bundle)))
    ]
    # Parity of the export is 0.05 mm; metrics are means.
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    assert scores[0]["crops"] == 20


@pytest.mark.parametrize("bystanders", [0.0, 0.5])
def test_the_truth_scores_zero(small_config, demo_body, bystanders):
    """A backend that knows the answer has no error, so labels, metrics and frames fit together."""
    from glnet_render import Spread, SyntheticSource

    config = dataclasses.replace(small_config, crop=CropSpec(size=64), keypoints=29)
    decoder = GLNetRecovery(_network(config), demo_body).decoder
    spread = Spread(bystanders=bystanders)
    source = SyntheticSource(demo_body, CropSpec(64), seed=7, spread=spread)

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

    result = evaluate(Oracle(), demo_body, CropSpec(64), 20, seed=7, spread=spread)
    found, standing = result.scores.summary().as_dict(), result.baseline.summary().as_dict()
    assert found["mpjpe_mm"] < 0.1 and found["pve_mm"] < 0.1 and found["keypoint_px"] < 0.01
    assert standing["mpjpe_mm"] > 200  # people stand, sit and lie in all directions


def _network(config):
    from glnet.network import GLNet

    return GLNet(config)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 256 crops are rendered before a first step; here of 8."""
    monkeypatch.setattr("glnet_train.recipe.Recipe", functools.partial(Recipe, block=8))


@pytest.mark.usefixtures("small_blocks")
def test_a_training_starts_from_public_weights(config, tmp_path):
    backbone = HRNet(config.backbone)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in backbone.state_dict().items()}}, tmp_path / "hrnet.pth"
    )
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    arguments = ["--config", str(tmp_path / "tiny.json"), "--steps", "1", "--batch", "2", "--pool", "1"]
    arguments += ["--initial", str(tmp_path / "hrnet.pth"), "--learning-rate", "1e-12"]
    started = CliRunner().invoke(app, ["fit", str(tmp_path / "run"), *arguments])
    assert started.exit_code == 0, started.output
    assert "'module.' taken off their names" in started.stderr and "normalised by mean 0.406" in started.stderr
    state = Checkpoint.load(tmp_path / "run" / "checkpoint.pth").state
    torch.testing.assert_close(state["backbone.conv1.weight"], backbone.conv1.weight.detach())
    bare = tmp_path / "bare.pth"
    torch.save(state, bare)
    again = CliRunner().invoke(app, ["fit", str(tmp_path / "again"), *arguments, "--initial", str(bare)])
    assert again.exit_code == 0 and "normalised" not in again.stderr, again.output
    torch.testing.assert_close(
        Checkpoint.load(tmp_path / "again" / "checkpoint.pth").state["coarse.bias"], state["coarse.bias"]
    )
