"""The records of a training: a log of all losses, and TensorBoard where it is installed."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glnet.decoding import GLNetRecovery
from glnet_infer.files import replace_file
from glnet_infer.numbers import is_number
from glnet_render import SyntheticSource
from glnet_render.contact_sheet import contact_sheet
from glnet_render.seeds import PICTURES
from glnet_train.fit.progress import Progress
from glnet_train.scores.pictures import enlarged, overlay

LOG = "log.jsonl"
SHOWN = 8
"""Held-out crops on the overlay pictures."""

PICTURES_EVERY = 1000
"""Steps between two overlay pictures."""


class Monitor:
    """Follows one training. Opened by :meth:`follow`.

    Args:
        directory: Folder of the log and TensorBoard's files.
        steps: Steps of the whole training.
        source: Renders the crops of the overlay pictures; begun anew for each of them.
        progress: Hears of every step.
    """

    def __init__(self, directory: Path, steps: int, source: SyntheticSource, progress: Progress | None = None) -> None:
        self._directory, self._steps, self._source = directory, steps, source
        self._progress = progress or Progress()
        self._board: Any = None

    @contextmanager
    def follow(self, first: int) -> Iterator["Monitor"]:
        """Open log and TensorBoard for a training that goes on from step ``first``."""
        self._start = time.monotonic()
        self._board = _board(self._directory, first)
        if self._board is None:
            self._progress.note(f"TensorBoard is not installed; losses are in {LOG} alone")
        self._forget_beyond(first)
        with (self._directory / LOG).open("a", encoding="utf-8") as self._log:
            try:
                yield self
            finally:
                if self._board is not None:
                    self._board.close()

    def _forget_beyond(self, step: int) -> None:
        """Drop log lines of steps that a killed training made after its last saved state: they will be made again.

        Lines that are damaged go, too: a training does not end for its log.
        """
        log = self._directory / LOG
        if not log.is_file():
            return
        lines = log.read_bytes().splitlines()
        kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
        if len(kept) < len(lines):
            replace_file(log, b"".join(line + b"\n" for line in kept))

    def step(self, step: int, terms: dict[str, float]) -> None:
        """Note a step's losses."""
        seconds = time.monotonic() - self._start
        line = {"step": step, "seconds": round(seconds, 2), **{name: round(value, 5) for name, value in terms.items()}}
        self._log.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in terms.items():
                self._board.add_scalar(f"losses/{name}", value, step)
        self._progress.trained(step, seconds, terms)

    def flush(self) -> None:
        """Write what is buffered."""
        self._log.flush()

    def wants_picture(self, step: int) -> bool:
        """Whether an overlay picture is due."""
        return self._board is not None and (step % PICTURES_EVERY == 0 or step == self._steps)

    def picture(self, step: int, recovery: GLNetRecovery) -> None:
        """Show held-out crops with the meshes that are recovered from them."""
        self._source.begin(PICTURES)
        sample = self._source.sample(SHOWN)
        with torch.inference_mode():
            found = recovery(sample.crops, sample.cameras)
        crops, cameras, vertices = (part.cpu().numpy() for part in (sample.crops, sample.cameras, found.vertices))
        faces = [recovery.decoder.body.data.faces] * SHOWN
        drawn = [overlay(*each) for each in zip(crops, vertices, faces, cameras, strict=True)]
        picture = contact_sheet(np.stack([*map(enlarged, crops), *drawn]), SHOWN)
        self._board.add_image("held out", picture, step, dataformats="HWC")


def _step_of(line: bytes) -> float | None:
    """The step that a line of the log is of; None where it is no line of ours, or half of one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return None
    return step if is_number(step) else None


def _board(directory: Path, first: int) -> Any:
    """TensorBoard's writer for the steps after ``first``, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(directory / "tensorboard", purge_step=first + 1)
