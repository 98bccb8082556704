"""The progress of a training on a terminal, or as lines where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from glnet_infer.commands.console import say, talk
from glnet_train.fit.progress import Progress

SHOWN = ("loss", "keypoints", "depths", "confidence")
"""Loss terms beside the bar."""

LINES_EVERY = 100
"""Steps between two lines where nobody watches a bar."""


class PrintedProgress(Progress):
    """Prints on stderr. Opened by :func:`progress_bar`."""

    def __init__(self, bar: Bar, task: TaskID, steps: int) -> None:
        self._bar, self._task, self._steps = bar, task, steps

    def rendered(self, done: int, blocks: int) -> None:
        """Count the first blocks."""
        text = f"rendering the first crops: {done} of {blocks} blocks"
        self._bar.update(self._task, losses=text)
        if not talk.is_terminal:
            say(text)

    def trained(self, step: int, seconds: float, losses: dict[str, float]) -> None:
        """Move the bar, or print a line now and then."""
        text = "  ".join(f"{name} {losses[name]:.2f}" for name in SHOWN)
        self._bar.update(self._task, completed=step, losses=text)
        if not talk.is_terminal and (step % LINES_EVERY == 0 or step == self._steps):
            say(f"step {step}/{self._steps}  {seconds:.0f} s  {text}")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)


@contextmanager
def progress_bar(steps: int, first: int) -> Iterator[PrintedProgress]:
    """Show the progress of a training.

    Args:
        steps: Steps of the whole training.
        first: Steps that were trained before.
    """
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}", markup=False),
    )
    with Bar(*columns, console=talk, disable=not talk.is_terminal) as bar:
        task = bar.add_task("", total=steps, completed=first, losses="rendering the first crops")
        yield PrintedProgress(bar, task, steps)
