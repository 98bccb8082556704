"""Reports of an export's stages; how far TensorRT's builder is, and how to stop it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StageReport:
    """Findings of a stage.

    Attributes:
        lines: Sentences, each short enough to stand beside others.
        tables: Tables of several lines.
    """

    lines: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Add a sentence."""
        self.lines.append(line)

    def show(self, table: str) -> None:
        """Add a table."""
        self.tables.append(table)


Stage = Callable[[str], contextlib.AbstractContextManager[StageReport]]
"""Entered with a stage's name around its work; what it gives receives the findings."""

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, 0 to 1 and never less than before."""


@contextlib.contextmanager
def quietly(name: str) -> Iterator[StageReport]:
    """A stage that nobody watches."""
    yield StageReport()


def silent(phase: str, fraction: float) -> None:
    """Progress that nobody watches."""


class Phases:
    """The builder's phases: each has steps, and a step may be a phase of its own."""

    def __init__(self) -> None:
        self._open: dict[str, list[Any]] = {}  # name: parent, number of steps, steps done
        self._fraction = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._open[name] = [parent, max(steps, 1), 0]

    def step(self, name: str, index: int) -> None:
        """A step is done, counted from 0."""
        if name in self._open:
            self._open[name][2] = index + 1

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before its last step."""
        self._open.pop(name, None)

    @property
    def current(self) -> str:
        """The innermost phase."""
        return next(reversed(self._open), "")

    @property
    def fraction(self) -> float:
        """How much is done; phases that run side by side make it no smaller."""
        inner, name, depth = 0.0, self.current, 0
        while name in self._open and depth < len(self._open):
            parent, steps, done = self._open[name]
            inner, name, depth = min((done + inner) / steps, 1.0), parent, depth + 1
        self._fraction = max(self._fraction, inner)
        return self._fraction


def new_monitor(trt: Any, tell: Progress) -> Any:
    """A progress monitor of a TensorRT module, with two members more.

    ``cancel()`` lets the builder stop after its present step; ``failure`` is what ``tell`` raised, which stops it as well:
    an exception must not pass through TensorRT.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._lock = threading.Lock()  # TensorRT may call from several threads
            self._phases = Phases()
            self._stopped = False

        def cancel(self) -> None:
            self._stopped = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)
                self._tell()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                self._tell()
                return not self._stopped

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def _tell(self) -> None:
            if self._stopped:
                return
            try:
                tell(self._phases.current, self._phases.fraction)
            except BaseException as error:
                self.failure = error
                self._stopped = True

    return Monitor()
