"""glnet-export --trt: the command line that builds engines."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from glnet_export.commands.main import app
from glnet_export.engines.build import NOT_RUN
from glnet_export.pipeline import stages_of
from glnet_infer import ExportError

QUICK = ("--precision-crops", "2", "--max-half-error", "100")
"""Random weights are no measure of half precision."""


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})


def test_the_command_line(exported, retraced, small_checkpoint, tmp_path):
    target = tmp_path / "b"
    result = run(
        small_checkpoint,
        "-o",
        target,
        "--trt",
        "--sm",
        "86,89",
        "--batch",
        "1:2:4",
        "--frame",
        "1280x720",
        "--timing-cache",
        "t",
        *QUICK,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith(" ")]  # without tables
    assert [line.split()[:3] for line in lines] == [
        [f"{i}/10", name, "done"] for i, name in enumerate(stages_of(mixed=True, engine=True), 1)
    ]
    assert "2 crops" in lines[5]
    assert "TensorRT for RTX" in lines[6] and "half" in lines[6] and "t is not used" in lines[6]
    assert "crop.rtx-sm86-sm89.engine" in lines[7] and "frames up to 1280 x 720" in lines[7] and NOT_RUN in lines[8]
    (engine,) = json.loads(result.stdout)["engines"]
    assert engine["file"]["file"] == "model.rtx-sm86-sm89.mixed.engine" and engine["profile"] == [1, 2, 4]
    assert np.isin(["model.mixed.onnx", engine["file"]["file"]], [path.name for path in target.iterdir()]).all()


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--sm", "89"], "--trt"),
        (["--batch", "1:2:3"], "--trt"),
        (["--flavor", "tensorrt"], "--trt"),
        (["--trt", "--sm", "ada"], "'ada'"),
        (["--trt", "--batch", "16"], "MIN:OPT:MAX"),
        (["--trt", "--batch", "4:2:1"], "MIN <= OPT"),
        (["--frame", "1280x720"], "--trt"),
        (["--trt", "--frame", "4k"], "WIDTHxHEIGHT"),
        (["--trt", "--frame", "8x8"], "from 16 to"),
        (["--trt", "--level", "6"], "--level"),
        (["--trt", "--workspace", "0"], "--workspace"),
        (["--trt", "--max-half-error", "nan"], "--max-half-error"),
        (["--trt", "--flavor", "tensorrt", "--sm", "89"], "--flavor tensorrt-rtx"),
        (["--trt", "--flavor", "tensorflow"], "--flavor"),
        (["--fp32", "head"], "--mixed"),
        (["--lean"], "--trt"),
        (["--trt", "--lean", "--sm", "89"], "--flavor tensorrt"),
        (["--trt", "--lean", "--flavor", "tensorrt-rtx"], "--flavor tensorrt"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(arguments, word):
    result = run("--random-init", "w18-small", *arguments)
    assert result.exit_code == 2 and result.stdout == "" and word in result.stderr, result.stderr


def test_modules_that_do_not_exist_are_refused_before_the_trace(rtx, small_checkpoint, tmp_path):
    result = run(small_checkpoint, "--trt", "--sm", "89", "--fp32", "backbone.stage9", "-o", tmp_path / "b")
    assert result.exit_code == ExportError.exit_code and "'backbone.stage9'" in result.stderr
    assert "trace" not in result.stderr and list(tmp_path.iterdir()) == []


def test_targets_that_do_not_exist_are_refused_before_the_trace(rtx, tmp_path):
    result = run("--random-init", "w18-small", "--trt", "--sm", "90", "-o", tmp_path / "b")
    assert result.exit_code == ExportError.exit_code and "compute capability 9.0" in result.stderr
    assert "load" not in result.stderr and list(tmp_path.iterdir()) == []


def test_help_explains_the_options():
    text = run("--help").stdout
    for option in ("--trt", "--flavor", "--sm", "--batch", "--frame", "--level", "--workspace", "--lean", "--timing-cache"):
        assert option in text
