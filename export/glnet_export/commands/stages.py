"""The stages of an export, shown on a terminal."""

import contextlib
import textwrap
import time
from collections.abc import Iterator

from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from glnet_export.engines.progress import StageReport
from glnet_infer.commands.console import say, talk


class ShownStages:
    """A line for each stage, with its findings and how long it took, then its tables; while it lasts, a bar.

    Args:
        total: Number of stages.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = 0
        self._bar: Progress | None = None

    @contextlib.contextmanager
    def show(self, name: str) -> Iterator[StageReport]:
        """A stage, for ``with``."""
        self.count += 1
        label = f"{self.count}/{self.total} {name}"
        report = StageReport()
        start = time.monotonic()
        outcome = "failed"
        bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), console=talk
        )
        bar.add_task(label, total=None)
        try:
            # Progress by itself prints empty lines where there is no terminal.
            with Live(bar, console=talk, transient=True):
                self._bar = bar
                yield report
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            self._bar = None
            line = f"{label:<12} {outcome:<7} {time.monotonic() - start:6.1f} s  {'; '.join(report.lines)}"
            for text in (line.rstrip(), *(textwrap.indent(table, " " * 14) for table in report.tables)):
                say(text)

    def advance(self, phase: str, fraction: float) -> None:
        """Fill the present stage's bar; may be called from any thread."""
        bar = self._bar
        if bar is not None:
            (task,) = bar.tasks
            name = task.description.partition(":")[0]
            bar.update(task.id, description=f"{name}: {phase.lower()}", total=1, completed=fraction)
