"""A training from its present step to its last, saved on the way and when it is stopped."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from glnet_train.fit.monitor import Monitor
from glnet_train.fit.progress import Progress
from glnet_train.fit.trainer import Trainer

STATE, CHECKPOINT = "state.pt", "checkpoint.pth"

STOPPING = "stopping after this step, or block of first crops; a second signal stops at once, and saves nothing"


class Stop:
    """Whether the user has asked to stop. The first signal asks, the second one acts as if nobody were listening.

    Args:
        on_ask: Called when the user asks, from within the signal's handler. What it raises is dropped: a reader of stderr
            that the same Ctrl-C ended must not cost the training its state.
    """

    def __init__(self, on_ask: Callable[[], None]) -> None:
        self.asked = False
        self._on_ask = on_ask

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for Ctrl-C and SIGTERM."""
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def forget() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = True
            forget()
            with suppress(Exception, SystemExit):
                self._on_ask()

        for number in previous:
            signal.signal(number, ask)
        try:
            yield
        finally:
            forget()


def run_training(training: Trainer, directory: Path, save_every: int, progress: Progress | None = None) -> bool:
    """Train to the recipe's last step.

    Args:
        training: The training, new or resumed.
        directory: Folder for state, checkpoint and log; the first of several processes writes them.
        save_every: Steps between two saved states.
        progress: Hears, in the first of several processes, what is going on.

    Returns:
        Whether the user stopped it before the last step (:class:`Stop`). The present step, or block of first crops, is
        finished first, and the state is saved either way.

    Raises:
        OutputError: The directory cannot be written.
        TrainingError: The training diverged; the last state is as it was saved before.
    """
    processes = training.processes
    first = processes.rank == 0
    progress = progress if first and progress is not None else Progress()
    monitor = Monitor(directory, training.recipe.steps, training.source, progress) if first else None
    stop, stopped = Stop(lambda: progress.note(STOPPING) if first else None), False
    with stop.listening(), monitor.follow(training.step) if monitor else nullcontext():
        for rendered, blocks in training.prepare():
            stopped = processes.any(stop.asked)
            progress.rendered(rendered, blocks)
            if stopped:
                break
        for terms in () if stopped else training.run(training.recipe.steps):
            stopped = processes.any(stop.asked)
            if monitor:
                monitor.step(training.step, terms)
                if monitor.wants_picture(training.step):
                    monitor.picture(training.step, training.recovery())
                if training.step % save_every == 0 and not stopped and training.step < training.recipe.steps:
                    monitor.flush()
                    _save(training, directory)
            if stopped:
                break
    if first:
        _save(training, directory)
    processes.any(False)  # the others wait for the first one's files: torchrun ends all when one has ended
    return stopped


def _save(training: Trainer, directory: Path) -> None:
    training.save(directory / STATE)
    training.checkpoint().save(directory / CHECKPOINT)
