"""What a training leaves behind for those who watch it: a log, curves, pictures."""

import json

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glnet_infer.contract import CropSpec
from glnet_render import Spread, SyntheticSource
from glnet_train.commands.progress import progress_bar
from glnet_train.fit import monitor as monitoring
from glnet_train.fit.monitor import Monitor
from glnet_train.fit.progress import Progress
from glnet_train.scores.pictures import SHOWN, best_median_worst, overlay, sheet

TERMS = {"loss": 3.5, "keypoints": 1.25, "depths": 0.5, "confidence": 0.25}


@pytest.fixture
def monitor(demo_body, tmp_path):
    return Monitor(tmp_path, 4, SyntheticSource(demo_body, CropSpec(256), seed=0))


def test_losses_go_to_the_log_and_to_tensorboard(monitor, tmp_path):
    with monitor.follow(0):
        for step in (1, 2):
            monitor.step(step, {**TERMS, "loss": 3.5 * step})
    with monitor.follow(2):  # a resumed training appends
        monitor.step(3, TERMS)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1]["loss"] == 7 and lines[1]["keypoints"] == 1.25
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("losses/loss")] == [(1, 3.5), (2, 7), (3, 3.5)]


def test_progress_is_printed_as_lines_where_there_is_no_terminal(capsys):
    with progress_bar(150, 0) as progress:
        progress.rendered(1, 16)
        for step in range(1, 151):
            progress.trained(step, 7.0, TERMS)
        progress.note("stopping")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "rendering the first crops: 1 of 16 blocks",
        "step 100/150  7 s  loss 3.50  keypoints 1.25  depths 0.50  confidence 0.25",
        "step 150/150  7 s  loss 3.50  keypoints 1.25  depths 0.50  confidence 0.25",
        "stopping",
    ]


class Heard(Progress):
    """Keeps what a training reports."""

    def __init__(self):
        self.steps, self.notes = [], []

    def trained(self, step, seconds, losses):
        self.steps.append((step, losses["loss"]))

    def note(self, text):
        self.notes.append(text)


def test_who_listens_hears_of_every_step_and_of_a_missing_tensorboard(demo_body, tmp_path, monkeypatch):
    monkeypatch.setattr(monitoring, "_board", lambda directory, first: None)
    heard = Heard()
    with Monitor(tmp_path, 4, SyntheticSource(demo_body, CropSpec(64), seed=0), heard).follow(0) as monitor:
        monitor.step(1, TERMS)
    assert heard.steps == [(1, 3.5)] and len(heard.notes) == 1 and "TensorBoard" in heard.notes[0]


def test_steps_that_are_made_again_are_logged_once(monitor, tmp_path):
    """A killed training went on after its last saved state, and wrote half a line."""
    with monitor.follow(0):
        for step in (1, 2, 3):
            monitor.step(step, TERMS)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    with monitor.follow(2):
        monitor.step(3, {**TERMS, "loss": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 3.5), (2, 3.5), (3, 9.0)]


@pytest.mark.parametrize(
    "line",
    [
        b"half}",
        b'{"loss": 1}',
        b'[{"step": 1}',
        b"[1]",
        b"7",
        b'{"step": "1"}',
        b'{"step": null}',
        b"\xff}",
        b"[" * 100_000,
        b"",
    ],
    ids=lambda line: str(line[:12]),
)
def test_a_damaged_line_of_the_log_does_not_stop_a_training(monitor, tmp_path, line):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 1, "loss": 2.0}\n' + line + b'\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": 1.0}\n')
    with monitor.follow(2):
        monitor.step(3, TERMS)
    assert [json.loads(each)["step"] for each in log.read_text().splitlines()] == [1, 2, 3]


def test_pictures_show_crops_and_meshes(monitor, small_recovery, tmp_path):
    with monitor.follow(0):
        assert monitor.wants_picture(4) and not monitor.wants_picture(3)  # 4 is the last step
        monitor.picture(4, small_recovery)
    board = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 1}).Reload()
    (picture,) = board.Images("held out")
    assert picture.step == 4 and picture.width > 1000 and picture.height > 300


def test_without_tensorboard_the_log_is_still_written(monitor, tmp_path, monkeypatch):
    monkeypatch.setattr(monitoring, "_board", lambda directory, first: None)
    with monitor.follow(0):
        monitor.step(1, TERMS)
        assert not monitor.wants_picture(4)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_overlays_lie_on_the_rendered_body(demo_body):
    """The true mesh, drawn by the runtime's rasteriser, covers what the training's own renderer drew."""
    source = SyntheticSource(demo_body, CropSpec(192), seed=3, spread=Spread(0.0))
    sample = source.sample(4)
    with torch.no_grad():
        vertices = demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)
    for crop, body, camera in zip(sample.crops.numpy(), vertices.numpy(), sample.cameras.numpy(), strict=True):
        drawn = overlay(crop, body, demo_body.data.faces, camera)
        covered = (drawn != crop).any(-1)
        # A pixel is drawn where its middle is on the mesh: that of a vertex at the outline may not be, its neighbour is.
        near = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        places = (body[:, :2] / body[:, 2:] * camera[:2] + camera[2:] + 0.5) * 192
        x, y = places[(places > 1).all(1) & (places < 190).all(1)].astype(int).T
        assert near[y, x].mean() > 0.999 and covered[y, x].mean() > 0.95
        assert 0.05 < covered.mean() < 0.5


def test_the_best_the_median_and_the_worst_are_chosen():
    errors = np.random.default_rng(0).permutation(1000).astype(float)
    chosen = errors[best_median_worst(errors)]
    assert chosen[:SHOWN].tolist() == list(range(10))
    assert chosen[SHOWN : 2 * SHOWN].tolist() == list(range(495, 505))
    assert chosen[2 * SHOWN :].tolist() == list(range(990, 1000))


def test_a_sheet_has_a_row_of_meshes_below_each_row_of_crops(demo_body):
    sample = SyntheticSource(demo_body, CropSpec(64), seed=3).sample(12)
    with torch.no_grad():
        vertices = (demo_body.pose(sample.rotations, sample.betas).vertices + sample.translation.unsqueeze(1)).numpy()
    picture = sheet(sample.crops.numpy()[:10], vertices[:10], demo_body.data.faces, sample.cameras.numpy()[:10])
    assert picture.shape == (2 * 192 + 2, 10 * 194 - 2, 3)
