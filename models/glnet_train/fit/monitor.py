"""What a training says while it runs: a progress bar, a log of all losses, and TensorBoard where it is installed."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glnet.recovery import MeshRecovery
from glnet_infer.commands.console import say, talk
from glnet_infer.files import replace_file
from glnet_render import SyntheticSource
from glnet_render.contact_sheet import contact_sheet
from glnet_render.seeds import PICTURES
from glnet_train.scores.pictures import enlarged, overlay

LOG = "log.jsonl"
SHOWN = 8
"""Held-out crops on the overlay pictures."""

PICTURES_EVERY = 1000
"""Steps between two overlay pictures."""


class Monitor:
    """Follows one training. Opened by :meth:`follow`.

    Args:
        directory: Where the log and TensorBoard's files go.
        steps: Of the whole training.
        source: Renders the crops of the overlay pictures; begun anew for each of them.
    """

    def __init__(self, directory: Path, steps: int, source: SyntheticSource) -> None:
        self._directory, self._steps, self._source = directory, steps, source

    @contextmanager
    def follow(self, first: int) -> Iterator["Monitor"]:
        """Open log, bar and TensorBoard for a training that goes on from step ``first``."""
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
        )
        self._start = time.monotonic()
        self._board = _board(self._directory, first)
        self._forget_beyond(first)
        bar = Progress(*columns, console=talk, disable=not talk.is_terminal)
        with (self._directory / LOG).open("a") as self._log, bar as self._bar:
            self._task = self._bar.add_task("", total=self._steps, completed=first, losses="rendering the first crops")
            try:
                yield self
            finally:
                if self._board is not None:
                    self._board.close()

    def _forget_beyond(self, step: int) -> None:
        """Drop log lines of steps that a killed training made after its last saved state: they will be made again."""
        log = self._directory / LOG
        if not log.is_file():
            return
        lines = log.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            replace_file(log, "".join(line + "\n" for line in kept).encode())

    def prepare(self, done: int, blocks: int) -> None:
        """Tell of the first crops: blocks rendered, and in all."""
        shown = f"rendering the first crops: {done} of {blocks} blocks"
        self._bar.update(self._task, losses=shown)
        if not talk.is_terminal:
            say(shown)

    def step(self, step: int, terms: dict[str, float]) -> None:
        """Note a step's losses."""
        seconds = time.monotonic() - self._start
        line = {"step": step, "seconds": round(seconds, 2), **{name: round(value, 5) for name, value in terms.items()}}
        self._log.write(json.dumps(line) + "\n")
        shown = "  ".join(f"{name} {terms[name]:.2f}" for name in ("loss", "keypoints", "depths", "confidence"))
        self._bar.update(self._task, completed=step, losses=shown)
        if self._board is not None:
            for name, value in terms.items():
                self._board.add_scalar(f"losses/{name}", value, step)
        # Where nobody watches a bar, a line now and then.
        if not talk.is_terminal and (step % 100 == 0 or step == self._steps):
            say(f"step {step}/{self._steps}  {seconds:.0f} s  {shown}")

    def flush(self) -> None:
        """Write what is buffered."""
        self._log.flush()

    def wants_picture(self, step: int) -> bool:
        """Whether an overlay picture is due."""
        return self._board is not None and (step % PICTURES_EVERY == 0 or step == self._steps)

    def picture(self, step: int, recovery: MeshRecovery) -> None:
        """Show held-out crops with the meshes that are recovered from them."""
        self._source.begin(PICTURES)
        sample = self._source.sample(SHOWN)
        with torch.inference_mode():
            vertices = recovery(sample.crops, sample.cameras).vertices
        crops, cameras, vertices = (part.cpu().numpy() for part in (sample.crops, sample.cameras, vertices))
        faces = [recovery.decoder.body.data.faces] * SHOWN
        drawn = [overlay(*each) for each in zip(crops, vertices, faces, cameras, strict=True)]
        picture = contact_sheet(np.stack([*map(enlarged, crops), *drawn]), SHOWN)
        self._board.add_image("held out", picture, step, dataformats="HWC")


def _board(directory: Path, first: int) -> Any:
    """TensorBoard's writer for the steps after ``first``, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed; losses are in log.jsonl alone")
        return None
    return SummaryWriter(directory / "tensorboard", purge_step=first + 1)
