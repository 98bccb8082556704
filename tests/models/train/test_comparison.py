"""``glnet-train compare``: rows of one budget, what is kept of them, and what the report says and does not say."""

import dataclasses
import json
import math
import signal

import numpy as np
import pytest
import scipy.stats
import torch
from typer.testing import CliRunner

from glnet.backbones import BackboneWeights
from glnet.checkpoint import Checkpoint
from glnet.recovery import Recovery
from glnet_infer.contract import CropSpec
from glnet_infer.errors import CheckpointError, InputError
from glnet_infer.skeleton import JOINT_NAMES
from glnet_render import SyntheticSource
from glnet_train.commands.main import app
from glnet_train.comparison import rows as comparison_rows
from glnet_train.comparison.intervals import Interval, over_crops
from glnet_train.comparison.report import report
from glnet_train.comparison.rows import KEPT, SCORES, Budget, Run, open_comparison
from glnet_train.comparison.tables import TABLES, Row, Table, read_table
from glnet_train.data.coco import COCO_TO_SKELETON
from glnet_train.fit.loop import STATE
from glnet_train.fit.trainer import Trainer
from glnet_train.recipe import Recipe
from glnet_train.scores import evaluate
from glnet_train.scores.metrics import average_precision, mean_precisions

RECIPE = Recipe(steps=2, batch=2, warmup=1, block=8, blocks=1, curriculum=0, precision="float32")


@pytest.fixture
def compare(config, tmp_path):
    """Runs the command on the small network, in the folder ``rows``."""
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    budget = ["--steps", "2", "--batch", "2", "--block", "8", "--pool", "1", "--crops", "4"]

    def run(*arguments):
        command = ["compare", str(tmp_path / "rows"), "--config", str(tmp_path / "tiny.json"), *budget]
        return CliRunner().invoke(app, [*command, *arguments])

    return run


@pytest.fixture
def budget(config):
    return Budget(config, RECIPE, 4)


def line_of(report, name):
    return next(line for line in report.splitlines() if line.startswith(f"| {name} |"))


def test_all_rows_of_all_tables_are_trained_scored_and_reported_by_one_command(compare, tmp_path):
    result = compare()
    assert result.exit_code == 0, result.output
    text = (tmp_path / "rows" / "report.md").read_text(encoding="utf-8")
    assert text in result.stdout and "not trained" not in text and "Budgets of CPUs are small" in text
    rows = [row for table in TABLES.values() for row in table.rows]
    assert len(rows) == 20
    for row in rows:
        cells = line_of(text, row.name).strip("| ").split(" | ")
        assert [float(cell) for cell in cells[7:] if cell != "-"] == [
            row.poster[name] for name in ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "coco_ap") if name in row.poster
        ]
        assert cells[6] == "1" and all("[" in cell for cell in cells[1:6])
    # The whole network stands in four tables, and is trained once.
    folders = sorted((tmp_path / "rows").glob("*/scores.json"))
    assert len(folders) == 17
    losses = [(each.parent / "log.jsonl").read_text(encoding="utf-8").splitlines() for each in folders]
    assert all(len(lines) == 2 for lines in losses)
    assert len({json.dumps({**json.loads(lines[-1]), "seconds": 0}) for lines in losses}) == 17  # no switch is idle
    again = compare()
    assert again.exit_code == 0 and "step" not in again.stderr and again.stdout == result.stdout


def test_rows_share_a_budget_and_are_kept(compare):
    first = compare("--table", "2", "--row", "baseline")
    assert first.exit_code == 0, first.output
    assert "not trained" in line_of(first.stdout, "LEM + DMS + decomposed")
    second = compare("--table", "2", "--row", "LEM + DMS + decomposed")
    assert line_of(second.stdout, "baseline") == line_of(first.stdout, "baseline") and "baseline," not in second.stderr
    assert "not trained" not in line_of(second.stdout, "LEM + DMS + decomposed")
    other = compare("--table", "2", "--row", "DMS", "--seed", "1")
    assert other.exit_code == InputError.exit_code and "another comparison" in other.stderr
    more = compare("--table", "2", "--row", "baseline", "--seeds", "2")
    assert more.exit_code == 0 and "seed 0" not in more.stderr and "baseline, seed 1" in more.stderr
    assert line_of(more.stdout, "baseline").split(" | ")[6] == "2"


def test_names_that_are_not_there_are_refused(compare, tmp_path):
    assert "tables are 2, 3, 6, positives" in " ".join(compare("--table", "4").stderr.replace("│", " ").split())
    assert "rows are segmentation map" in " ".join(compare("--table", "3", "--row", "DMS").stderr.replace("│", " ").split())
    assert not (tmp_path / "rows").exists()


def test_an_interrupted_row_goes_on_to_the_same_scores(budget, demo_body, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_rows, "SAVE_EVERY", 1)
    run = Run.of(dataclasses.replace(TABLES["2"].rows[0], recipe={"steps": 4}), budget, 0)

    def stop(text):
        if "step 1/4" in text:
            signal.raise_signal(signal.SIGINT)

    assert not run.train(tmp_path / "whole", demo_body, lambda text: None)
    folder = run.folder(tmp_path / "halves")
    assert run.train(tmp_path / "halves", demo_body, stop)
    assert (folder / STATE).is_file() and run.scores(tmp_path / "halves") is None
    said = []
    assert not run.train(tmp_path / "halves", demo_body, said.append)
    assert "step 4/4" in said[-1] and not any("step 1/4" in line for line in said)
    assert not (folder / STATE).exists() and len((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    whole, halves = run.scores(tmp_path / "whole"), run.scores(tmp_path / "halves")
    assert all(np.array_equal(whole[name], halves[name], equal_nan=True) for name in KEPT)


GOOD = {name: [1.0, 2, None, 4.0] for name in KEPT}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"settings": {}},
        *({"scores": scores} for scores in (None, [], "text", {}, {**GOOD, "pve_mm": None})),
        *({"scores": {**GOOD, "keypoint_px": values}} for values in ("1234", [1.0], [1.0, 2.0, 3.0, True])),
        *({"scores": {**GOOD, "oks": [1.0, 2.0, 3.0, value]}} for value in ("4", [4.0], math.nan, 10**400)),
        {"settings": {"crops": 5}, "scores": GOOD},
    ],
)
def test_a_damaged_row_is_refused(budget, tmp_path, document):
    run = Run.of(TABLES["2"].rows[0], budget, 0)
    path = run.folder(tmp_path) / SCORES
    path.parent.mkdir()
    path.write_text(json.dumps({"settings": run.settings(), "scores": GOOD}), encoding="utf-8")
    assert run.scores(tmp_path)["oks"][:2].tolist() == [1, 2]
    if isinstance(document, dict):
        document = {"settings": run.settings(), **document}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match=r"scores\.json is not a row of this table") as caught:
        report([TABLES["2"]], budget, [0], tmp_path)
    assert "delete its folder" in caught.value.fix


def test_rows_may_start_from_one_trained_backbone(compare, config, demo_body, tmp_path, monkeypatch):
    trained = Trainer(config, dataclasses.replace(RECIPE, seed=5), demo_body).checkpoint()
    trained.save(tmp_path / "trained.pth")
    started, train = [], comparison_rows.run_training

    def listened(training, *arguments):
        started.append([{**module.backbone.state_dict()} for module in (training.network, training.averaged)])
        started[-1] = [{name: value.clone() for name, value in state.items()} for state in started[-1]]
        return train(training, *arguments)

    monkeypatch.setattr(comparison_rows, "run_training", listened)
    result = compare("--row", "baseline", "--backbone", str(tmp_path / "trained.pth"))
    assert result.exit_code == 0, result.output
    assert "Its backbone starts from trained weights" in result.stdout
    for state in started[0]:  # the network, and its running average
        assert all(torch.equal(value, trained.state[f"backbone.{name}"]) for name, value in state.items())
    without = compare("--row", "baseline")
    assert without.exit_code != 0 and "another comparison" in without.stderr
    wider = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, feature_channels=8))
    (tmp_path / "tiny.json").write_text(json.dumps(wider.to_dict()), encoding="utf-8")
    refused = compare("--row", "baseline", "--backbone", str(tmp_path / "trained.pth"))
    assert refused.exit_code == CheckpointError.exit_code and "do not fit the backbone" in refused.stderr


def test_a_backbone_that_differs_makes_another_budget(config, budget):
    weights = BackboneWeights({"conv1.weight": torch.ones(2)}, (), ())
    other = dataclasses.replace(weights, state={"conv1.weight": torch.zeros(2)})
    digests = {str(dataclasses.replace(budget, backbone=each).plain) for each in (None, weights, other)}
    assert len(digests) == 3


# Experiments: tables of one's own


EXPERIMENTS = {
    "title": "Which pixels answer",
    "decisive": ["mpjpe_mm", "keypoint_px"],
    "rows": [
        {"name": "dynamic"},
        {"name": "static", "matching": {"static_share": 1}, "against": "dynamic"},
        {"name": "score counts more", "matching": {"alpha": 2.0}, "weights": {"confidence": 3}, "against": "dynamic"},
        {"name": "longer", "recipe": {"steps": 3}, "config": {"point_origin": "coarse"}, "against": "dynamic"},
    ],
}


def test_a_table_of_ones_own_is_trained_like_the_posters(compare, tmp_path, budget):
    path = tmp_path / "experiments.json"
    path.write_text(json.dumps(EXPERIMENTS), encoding="utf-8")
    result = compare("--table", str(path))
    assert result.exit_code == 0, result.output
    assert "## Which pixels answer" in result.stdout and "not trained" not in result.stdout
    assert result.stdout.count("** against dynamic: ") == 6
    runs = [Run.of(row, budget, 3) for row in read_table(path).rows]
    assert [run.recipe.steps for run in runs] == [2, 2, 2, 3] and {run.recipe.seed for run in runs} == {3}
    assert [run.matching.static_share for run in runs] == [0.5, 1, 0.5, 0.5]
    assert runs[2].matching.alpha == 2 and runs[2].weights.confidence == 3 and runs[3].config.point_origin == "coarse"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": None},
        {"title": 7},
        {"extra": 1},
        {"decisive": ["mpjpe"]},
        *({"rows": [{"name": "a", **row}]} for row in ({"against": "b"}, {"maching": {}}, {"name": ""}, {"config": []})),
        {"rows": [{"name": "a"}, {"name": "a"}]},
        {"rows": [{"matching": {}}]},
        {"rows": ["a"]},
    ],
    ids=str,
)
def test_what_is_no_table_is_refused(tmp_path, change):
    path = tmp_path / "experiments.json"
    path.write_text(json.dumps({**EXPERIMENTS, **change}), encoding="utf-8")
    with pytest.raises(InputError, match="is not a table to compare") as caught:
        read_table(path)
    assert caught.value.why and "docs/training.md" in caught.value.fix


@pytest.mark.parametrize("document", [[], "text", None, 3])
def test_documents_that_are_no_objects_are_no_tables(tmp_path, document):
    path = tmp_path / "experiments.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match="is not a table to compare"):
        read_table(path)


@pytest.mark.parametrize(
    "change, why",
    [
        ({"matching": {"warmup": 3}}, "matching has no warmup, but static_share"),
        ({"matching": {"positives": "20"}}, "positives is '20', not a whole number"),
        ({"matching": {"positives": 0}}, ""),
        ({"weights": {"pose": None}}, "weights.pose is None"),
        ({"recipe": {"guidance": "masks"}}, ""),
        ({"recipe": {"seed": 3}}, "seeds are the command's"),
        ({"config": {"backbone": {"depth": 3}}}, "depth"),
        ({"config": {"lem": True}}, "unknown field 'lem'"),
        ({"config": {"local_encoding": 1}}, "not true or false"),
    ],
)
def test_rows_that_cannot_be_trained_are_refused_before_any_is(compare, tmp_path, change, why):
    path = tmp_path / "experiments.json"
    rows = [{"name": "good"}, {"name": "odd", **change}]
    path.write_text(json.dumps({**EXPERIMENTS, "rows": rows}), encoding="utf-8")
    result = compare("--table", str(path))
    assert result.exit_code == InputError.exit_code and "The row 'odd' cannot be trained" in result.stderr
    assert why in result.stderr and not (tmp_path / "rows").exists()


def test_a_part_of_the_backbone_may_be_changed(budget):
    run = Run.of(Row("deeper", config={"backbone": {"blocks": 3}, "crop": {"padding": 1.5}}), budget, 0)
    assert run.config.backbone == dataclasses.replace(budget.config.backbone, blocks=3)
    assert run.config.crop == dataclasses.replace(budget.config.crop, padding=1.5)


def test_long_names_make_short_folders(budget, tmp_path):
    run = Run.of(Row("x" * 5000), budget, 0)
    run.folder(tmp_path).mkdir()
    assert run.scores(tmp_path) is None


def test_keypoints_start_at_part_points_where_there_are_any(budget):
    config = dataclasses.replace(budget.config, keypoint_origin="coarse+part")
    runs = [Run.of(row, dataclasses.replace(budget, config=config), 0) for row in TABLES["2"].rows]
    assert [run.config.keypoint_origin for run in runs] == ["pixel", "part", "pixel", "part", "part"]


# Intervals


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(100, 30, 400)
    found = over_crops([{"mpjpe_mm": values}], "mpjpe_mm")
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / 20
    # The scatter of a quantile of 1,000 resamples is 5 % of their deviation.
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    other = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2))
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.15 * half)


def test_differences_are_of_pairs():
    rng = np.random.default_rng(1)
    values = rng.normal(100, 30, 400)
    better = values - 2 + rng.normal(0, 1, 400)
    apart = over_crops([{"mpjpe_mm": better}], "mpjpe_mm", [{"mpjpe_mm": values}])
    assert apart.value == pytest.approx((better - values).mean()) and apart.clear
    assert apart.high - apart.low < 0.3  # each mean alone is uncertain by 6
    both = over_crops([{"mpjpe_mm": better}, {"mpjpe_mm": better + 1}], "mpjpe_mm", [{"mpjpe_mm": values}] * 2)
    assert both.value == pytest.approx(apart.value + 0.5)


def test_crops_without_a_score_do_not_count():
    values = np.array([1.0, np.nan, 3.0])
    assert over_crops([{"oks": values}], "oks").value == 2
    nothing = over_crops([{"oks": values * np.nan}], "oks")
    assert math.isnan(nothing.value) and math.isnan(nothing.low) and not nothing.clear


def test_the_precision_of_resamples_is_that_of_each(rng):
    similarities, confidences = torch.from_numpy(rng.random((5, 40))), torch.from_numpy(np.round(rng.random((5, 40)), 1))
    similarities[0, :5] = torch.nan
    similarities[1] = torch.nan
    found = mean_precisions(similarities, confidences).tolist()
    for value, one, sure in zip(found, similarities, confidences, strict=True):
        known = ~one.isnan()
        expected = average_precision(one[known], sure[known]).ap
        assert value == pytest.approx(expected, nan_ok=True, abs=1e-12)
    scored = {"oks": similarities[2].numpy(), "confidence": confidences[2].numpy()}
    assert over_crops([scored], "coco_ap").value == pytest.approx(100 * found[2])


class Guesses:
    """A backend that knows the keypoints of the held-out crops, more or less."""

    name = "guesses"

    def __init__(self, places, rng):
        spread = rng.uniform(0, 6, (len(places), 1, 1))
        self.found = (places + rng.normal(size=places.shape) * spread).astype(np.float32)
        self.confidence = (1 - spread[:, 0, 0] / 6 + rng.normal(0, 0.1, len(places))).astype(np.float32)
        self._next = 0

    def run(self, crops, cameras):
        rows = slice(self._next, self._next + len(crops))
        self._next += len(crops)
        count = len(crops)
        values = dict.fromkeys(Recovery._fields, np.zeros((count, 1), np.float32))
        shapes = {"vertices": (count, self.vertices, 3), "joints": (count, 29, 3)}
        values |= {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        return {**values, "keypoints_2d": self.found[rows], "confidence": self.confidence[rows]}

    def close(self):
        pass


def test_the_precision_on_rendered_crops_is_pycocotools(demo_body, cocoeval, rng):
    """From the persons themselves: placed joints, projected by hand in float64, through COCO's own evaluation."""
    crops, size, seed = 48, 64, 9
    source = SyntheticSource(demo_body, CropSpec(size), seed=seed)
    samples = [source.sample(16) for _ in range(crops // 16)]
    places, visible = [], []
    for sample in samples:
        joints = demo_body.pose(sample.rotations, sample.betas).joints + sample.translation[:, None]
        x, y, z = joints.double().numpy().transpose(2, 0, 1)
        fx, fy, cx, cy = sample.cameras.double().numpy().T[..., None]
        places.append((np.stack([fx * x / z + cx, fy * y / z + cy], -1) + 0.5) * size)
        visible.append(sample.visibility.numpy())
    places, visible = np.concatenate(places), np.concatenate(visible)
    backend = Guesses(places, rng)
    backend.vertices = len(demo_body.data.v_template)
    summary = evaluate(backend, demo_body, CropSpec(size), crops, seed=seed).scores.summary().as_dict()

    truth, found = np.zeros((crops, 17, 3)), np.zeros((crops, 17, 2))
    for name, index in COCO_TO_SKELETON.items():
        joint = JOINT_NAMES.index(name)
        truth[:, index, :2], truth[:, index, 2] = places[:, joint], 2 * visible[:, joint]
        found[:, index] = backend.found[:, joint]
    area = np.prod(places.max(1) - places.min(1), axis=1) / 2  # a rendered person is taken to cover half of its box
    expected = cocoeval(truth, area, found, backend.confidence).stats
    assert 0.1 < expected[0] < 0.9  # the comparison means something
    # A similarity may lie at a threshold to float32's precision; one of 48 persons is 2 % at one of ten thresholds.
    assert summary["coco_ap"] == pytest.approx(expected[0], abs=0.003)
    assert summary["coco_ap50"] == pytest.approx(expected[1], abs=0.03)


# What the report reads from the numbers


def scored(directory, budget, row, seed, shift):
    """A finished run whose errors are those of a common crowd, shifted."""
    run = Run.of(row, budget, seed)
    values = np.random.default_rng(0).normal(100, 10, budget.crops) + shift
    values += np.random.default_rng([seed, len(row.name)]).normal(0, 1, budget.crops)
    scores = {name: values.tolist() for name in KEPT} | {"oks": [0.7] * budget.crops}
    folder = run.folder(directory)
    folder.mkdir(parents=True)
    (folder / SCORES).write_text(json.dumps({"settings": run.settings(), "scores": scores}), encoding="utf-8")


@pytest.mark.parametrize(
    "shifts, verdict",
    [
        ([5], "worse on these crops, by a single seed. On the poster +2.0, the same way."),
        ([-5], "better on these crops, by a single seed. On the poster +2.0, the other way."),
        ([0], "not told apart. On the poster +2.0."),
        ([5, 4], "worse. On the poster +2.0, the same way."),
        ([-5, -4], "better. On the poster +2.0, the other way."),
        ([8, -2], "not told apart. On the poster +2.0."),
    ],
)
def test_the_report_claims_no_more_than_crops_and_seeds_allow(budget, tmp_path, shifts, verdict):
    budget = dataclasses.replace(budget, crops=200)
    first = Row("one", poster={"mpjpe_mm": 50.0})
    second = Row("other", matching={"static_share": 1}, against="one", poster={"mpjpe_mm": 52.0})
    for seed, shift in enumerate(shifts):
        scored(tmp_path, budget, first, seed, 0)
        scored(tmp_path, budget, second, seed, shift)
    text = report([Table("A table", (first, second))], budget, range(len(shifts)), tmp_path)
    assert text.splitlines()[-1].startswith("- **other** against one: MPJPE ") and text.endswith(verdict + "\n")
    assert (", by seed " in text) == (len(shifts) > 1)


def test_an_interval_is_clear_where_zero_lies_outside():
    assert Interval(1, 0.5, 2).clear and Interval(-1, -2, -0.5).clear and not Interval(0.1, -1, 1).clear


def test_the_posters_numbers_belong_to_their_rows():
    """Checked against each other: the whole network stands in every table with the same numbers."""
    whole = TABLES["2"].rows[-1].poster
    assert TABLES["3"].rows[2].poster == TABLES["6"].rows[0].poster == whole
    assert TABLES["positives"].rows[2].poster["pve_mm"] == whole["pve_mm"]
    for table in TABLES.values():
        assert not table.problems()


def test_a_comparison_is_not_begun_where_nothing_can_be_written(budget, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Exception, match="Cannot write"):
        open_comparison(tmp_path / "file" / "rows", budget)


def test_a_row_leaves_its_checkpoint(compare, tmp_path):
    assert compare("--table", "2", "--row", "DMS").exit_code == 0
    (folder,) = (tmp_path / "rows").glob("dms.seed-0.*")
    assert not Checkpoint.load(folder / "checkpoint.pth").config.local_encoding
