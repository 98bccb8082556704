"""``glnet-train`` as it is typed: what it refuses, what it leaves behind, what it prints."""

import dataclasses
import inspect
import json
import os

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glnet.body import Body, find_body, load_body
from glnet.checkpoint import Checkpoint
from glnet_infer.contract import CropSpec
from glnet_infer.errors import CheckpointError, InputError, OutputError
from glnet_render import Spread, SyntheticSource
from glnet_train.commands.main import app
from glnet_train.commands.training import fit_command
from glnet_train.objective.matching import Matching
from glnet_train.recipe import Recipe


def test_the_options_of_a_training_have_the_recipes_defaults():
    """They are written a second time, so that help comes without torch."""
    options = {name: each.default for name, each in inspect.signature(fit_command).parameters.items()}
    chosen = {**dataclasses.asdict(Recipe()), **dataclasses.asdict(Matching()), "pool": Recipe().blocks}
    shared = options.keys() & chosen.keys()
    assert len(shared) == 14
    assert {name: options[name] for name in shared} == {name: chosen[name] for name in shared}


def test_compact_checkpoints_are_half_as_large_and_recover_the_same(small_checkpoint, small_recovery, tmp_path):
    result = CliRunner().invoke(app, ["compact", str(small_checkpoint), "-o", str(tmp_path / "small.pth")])
    assert result.exit_code == 0, result.output
    compact = Checkpoint.load(tmp_path / "small.pth")
    assert (
        tmp_path / "small.pth"
    ).stat().st_size < 0.7 * small_checkpoint.stat().st_size  # names and tables are not halved
    network = compact.network()
    for (name, value), full in zip(network.named_parameters(), small_recovery.network.parameters(), strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full, rtol=2**-11, atol=1e-7, msg=name)
    huge = Checkpoint(compact.config, {**compact.state, "coarse.bias": torch.full((1,), 1e5)})
    with pytest.raises(CheckpointError, match="compact"):
        huge.compact()


def test_a_command_says_which_weights_it_took_and_takes_those_that_are_named(small_checkpoint, tmp_path):
    document = torch.load(small_checkpoint, weights_only=True)
    document["state_dict_ema"] = {f"module.{name}": value * 0 for name, value in document["state_dict"].items()}
    torch.save(document, tmp_path / "both.pth")
    arguments = ["compact", str(tmp_path / "both.pth"), "-o", str(tmp_path / "small.pth")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "weights of 'state_dict'" in result.stderr
    assert "'state_dict_ema.module' would fit too: --weights-key chooses" in result.stderr
    assert Checkpoint.load(tmp_path / "small.pth").state["coarse.bias"].any()
    result = CliRunner().invoke(app, [*arguments, "--weights-key", "state_dict_ema"])
    assert result.exit_code == 0, result.output
    assert "'module.' taken off" in result.stderr
    assert not Checkpoint.load(tmp_path / "small.pth").state["coarse.bias"].any()
    assert CliRunner().invoke(app, [*arguments, "--weights-key", "ema"]).exit_code == CheckpointError.exit_code


def test_pictures_of_an_evaluation_are_written(small_checkpoint, tmp_path):
    arguments = ["eval", str(small_checkpoint), "--crops", "4", "--pictures"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture.shape == (6 * 194 - 2, 4 * 194 - 2, 3)  # best, median, worst, each above its meshes
    for path in ("missing/sheet.png", "sheet.foo", "sheet"):
        failed = CliRunner().invoke(app, [*arguments, str(tmp_path / path)])
        assert failed.exit_code == 9 and "Cannot write" in failed.stderr and not failed.stdout  # nothing was scored


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--initial", "missing.pth"], CheckpointError.exit_code),
        (["--learning-rate", "-1"], InputError.exit_code),
        (["--data", "missing.json"], InputError.exit_code),
        (["--positives", "100000"], InputError.exit_code),
        (["--guidance", "masks"], InputError.exit_code),
    ],
)
def test_a_training_that_is_refused_leaves_nothing(config, tmp_path, arguments, code):
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.json"), *arguments])
    assert result.exit_code == code, result.output
    assert not (tmp_path / "run").exists()


def test_a_directory_that_takes_nothing_is_refused(config, tmp_path, monkeypatch):
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "run" or mode != os.W_OK)
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.json")])
    assert result.exit_code == OutputError.exit_code and "nothing can be written" in result.stderr, result.output
    assert not list((tmp_path / "run").iterdir())


def test_a_directory_that_cannot_be_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["fit", str(tmp_path / ("x" * 300))])
    assert result.exit_code == OutputError.exit_code and "Cannot write into" in result.stderr, result.output


def test_training_from_the_command_line_is_resumed_and_scored(config, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    arguments = ["fit", str(tmp_path / "run"), "--config", str(tmp_path / "tiny.json"), "--steps", "2", "--batch", "2"]
    arguments += ["--pool", "1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0 and "going on from step 2 of 2" in again.stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    for option, value in (
        ("--batch", "4"),
        ("--config", "w32"),
        ("--pool", "2"),
        ("--positives", "7"),
        ("--static-share", "1"),
        ("--guidance", "iuv"),
    ):
        other = CliRunner().invoke(app, [*arguments, option, *filter(None, [value])])
        assert other.exit_code == 3 and option[2:].replace("-", "_") in other.stderr, other.stderr
    checkpoint = tmp_path / "run" / "checkpoint.pth"
    assert Checkpoint.load(checkpoint).config == config
    result = CliRunner().invoke(app, ["eval", str(checkpoint), "--crops", "4", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["found"]["crops"] == 4
    arguments = ["eval", str(checkpoint), "--crops", "4", "--bystanders", "0.5"]
    accompanied = CliRunner().invoke(app, [*arguments, "--json"])
    assert accompanied.exit_code == 0
    before, after = json.loads(result.stdout), json.loads(accompanied.stdout)
    assert before["spread"]["bystanders"] == 0 and after["spread"]["bystanders"] == 0.5
    assert before["found"] != after["found"] and before["standing"]["mpjpe_mm"] == after["standing"]["mpjpe_mm"]
    assert "--bystanders 0.5" in CliRunner().invoke(app, arguments).stdout


def test_a_contact_sheet_shows_the_crops_that_a_training_sees(tmp_path):
    arguments = ["sheet", "--count", "4", "--size", "64", "--seed", "3", "-o"]
    for name in ("sheet.png", "again.png"):
        result = CliRunner().invoke(app, [*arguments, str(tmp_path / name)])
        assert result.exit_code == 0 and result.stdout.strip() == str(tmp_path / name), result.output
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture.shape == (2 * 66 - 2, 2 * 66 - 2, 3)  # two rows of two crops, two pixels between them
    spread = Spread(tilted=Recipe.tilted, bystanders=Recipe.bystanders)
    body = Body(load_body(find_body("demo")))
    crops = SyntheticSource(body, CropSpec(64), seed=3, spread=spread).sample(4).crops.numpy()
    assert np.array_equal(picture[:64, :64], crops[0][..., ::-1]) and np.array_equal(picture[66:, 66:], crops[3][..., ::-1])
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    skeletons = CliRunner().invoke(app, [*arguments, str(tmp_path / "skeletons.png"), "--keypoints"])
    assert skeletons.exit_code == 0
    assert (cv2.imread(str(tmp_path / "skeletons.png")) != picture).any()
    failed = CliRunner().invoke(app, [*arguments, str(tmp_path / "sheet.foo")])
    assert failed.exit_code == OutputError.exit_code and "Cannot write" in failed.stderr


def test_a_sheet_that_cannot_be_written_says_what_is_wrong(tmp_path):
    result = CliRunner().invoke(app, ["sheet", "-o", str(tmp_path / "no" / "sheet.png"), "--count", "1"])
    assert result.exit_code == OutputError.exit_code == 9
    assert "Cannot write" in result.stderr and "mkdir -p" in result.stderr


def test_speed_names_the_machine_and_measures_both_kinds_of_work(tmp_path, small_config):
    config = dataclasses.replace(small_config, crop=CropSpec(64), keypoint_origin="pixel", keypoints=29)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(config.to_dict()))
    arguments = ["speed", "--config", str(path), "--batch", "2", "--block", "2", "--seconds", "0.1"]
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [row["work"] for row in document["rows"]] == ["render", "train"] and document["torch"] == torch.__version__
    for row in document["rows"]:
        assert row["per_second"] == pytest.approx(2000 / row["milliseconds"]) and row["calls"] >= 3
    assert "| train |" in CliRunner().invoke(app, arguments).stdout
