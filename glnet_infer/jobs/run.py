"""The driver: hands items to actors, replaces those that die, sets aside what kills them, and goes on where a run ended."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from glnet_infer.errors import BackendError, GlnetError, InputError
from glnet_infer.files import is_file
from glnet_infer.jobs.actor import Started
from glnet_infer.jobs.chunks import windows
from glnet_infer.jobs.items import (
    FRAMES,
    Chunk,
    Cut,
    Item,
    Join,
    Orders,
    Outcome,
    Photographs,
    Survey,
)
from glnet_infer.jobs.notes import kept_cuts, read_set_aside, recording_of, write_set_aside

MOST_DEATHS = 3
"""Actors that an input may kill before it is set aside."""

START_SECONDS = 300.0
"""How long to wait for an actor where none is at work. A cluster that has no room for one says nothing."""

ITEM_SECONDS = 3600.0
"""How long an actor may take for photographs, or for each :data:`FRAMES` of a video; what takes longer hangs."""

SLOWEST_READING = 1e6
"""Bytes a second at which videos are read."""

_TRY_AGAIN = "look at the actors' logs (docs/archives.md); remove its entry from jobs/set-aside.json to try it again"


@dataclass(frozen=True)
class Died:
    """An actor that ended while it was at work.

    Attributes:
        reason: How, as far as it is known.
    """

    reason: str


Answer = Started | Outcome | GlnetError | Died


class Pool(Protocol):
    """Actors in places that are numbered from 0 on. An actor does one thing at a time."""

    def start(self, place: int) -> None:
        """Begin an actor in a place; its answer says that it is ready, or what is wrong."""

    def do(self, place: int, item: Item) -> None:
        """Give the actor in a place an item."""

    def answers(self) -> list[tuple[int, Answer]]:
        """What came since, after a short wait."""

    def kill(self, place: int) -> None:
        """End the actor in a place; no answer comes from it any more."""


class Listener(Protocol):
    """Who hears what happens."""

    def started(self, started: Started) -> None:
        """The first actor is ready."""

    def done(self, item: Item, outcome: Outcome) -> None:
        """An item is done; its failures, if any, are in the outcome."""

    def died(self, item: Item | None, died: Died) -> None:
        """An actor died."""

    def refused(self, error: GlnetError) -> None:
        """An actor cannot work where it is, and the others go on without it."""

    def set_aside(self, name: str, error: InputError) -> None:
        """An input was set aside, now or by an earlier run."""

    def progress(self, done: int, total: int) -> None:
        """How many items are done, of those that are known so far."""


@dataclass(frozen=True)
class _Try:
    """An item, and how many actors died over it."""

    item: Item
    deaths: int = 0


@dataclass
class _Video:
    """A video that is at work.

    Attributes:
        survey: What identifies it.
        waiting: Chunks that are still to be seen.
        cuts: All its chunks.
        failed: Whether a chunk failed, so that nothing more is done for it.
    """

    survey: Survey
    waiting: set[int] = field(default_factory=set)
    cuts: list[Cut] = field(default_factory=list)
    failed: bool = False


class Run:
    """All items of a job, by a pool of actors.

    Args:
        orders: What is wanted.
        pool: The actors.
        actors: How many there are.
        listener: Who hears what happens.
        clock: Seconds.
    """

    def __init__(
        self, orders: Orders, pool: Pool, actors: int, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._orders, self._pool, self._listener, self._clock = orders, pool, listener, clock
        self._actors = actors
        self._queue: deque[_Try] = deque()
        self._videos: dict[str, _Video] = {}
        self._at_work: dict[int, tuple[_Try | None, float]] = {}
        self._idle: list[int] = []
        self._aside = read_set_aside(orders.output)
        self._done = self._total = 0
        self._failed_starts: Counter[int] = Counter()
        self._any_started = False
        self._refusals: list[GlnetError] = []

    def __call__(self, photographs: Iterable[Photographs], videos: Iterable[Survey]) -> None:
        """Do all that is not done yet.

        Raises:
            GlnetError: No actor can do anything: the bundle, the backend or the cluster is not as it must be; or what was
                set aside cannot be written down.
        """
        for group in photographs:
            left = group.left(self._orders)
            kept = [each for each in left.alone() if not self._was_set_aside(each.paths[0])]
            if kept:
                self._add(_together(kept))
        for survey in videos:
            if not self._was_set_aside(survey.video):
                self._begin(survey)
        if not self._queue:
            return
        for place in range(min(self._actors, max(len(self._queue), self._most_chunks()))):
            self._start(place)
        while self._queue or any(work is not None for work, _ in self._at_work.values()):
            self._give()
            for place, answer in self._pool.answers():
                self._take(place, answer)
            self._watch()

    def _most_chunks(self) -> int:
        """Actors that are worth starting where videos are not yet cut."""
        return self._actors if self._videos else 0

    def _was_set_aside(self, name: str) -> bool:
        error = self._aside.get(name)
        if error is not None:
            self._listener.set_aside(name, error)
        return error is not None

    def _add(self, item: Item, *, deaths: int = 0, first: bool = False) -> None:
        self._total += 1
        (self._queue.appendleft if first else self._queue.append)(_Try(item, deaths))

    def _begin(self, survey: Survey) -> None:
        self._videos[survey.video] = _Video(survey)
        cuts = kept_cuts(self._orders, survey)
        if cuts is None:
            self._add(survey)
        else:
            self._cut(survey, cuts)

    def _cut(self, survey: Survey, cuts: list[Cut]) -> None:
        """Queue the chunks of a video that are not seen yet."""
        video = self._videos[survey.video]
        video.cuts = cuts
        for number, window in enumerate(windows(cuts, self._orders.window)):
            if not is_file(recording_of(self._orders, survey.name, number)):
                video.waiting.add(number)
                self._add(Chunk(survey.video, survey.name, number, window, cuts[number].frames))
        if not video.waiting:
            self._join(video)

    def _join(self, video: _Video) -> None:
        # First, so that its chunks' files do not lie about longer than they must.
        frames = [cut.frames for cut in video.cuts]
        total = None if None in frames else sum(each or 0 for each in frames)
        self._add(Join(video.survey.video, video.survey.name, len(frames), total), first=True)

    def _start(self, place: int) -> None:
        self._pool.start(place)
        self._at_work[place] = None, self._clock()

    def _give(self) -> None:
        while self._queue and self._idle:
            work = self._queue.popleft()
            item = work.item
            if isinstance(item, Chunk) and self._videos[item.video].failed:
                self._finish_one()
                continue
            place = self._idle.pop()
            self._pool.do(place, item)
            self._at_work[place] = work, self._clock()

    def _take(self, place: int, answer: Answer) -> None:
        work, _ = self._at_work.pop(place)
        if isinstance(answer, Started):
            if not self._any_started:
                self._listener.started(answer)
                for error in self._refusals:
                    self._listener.refused(error)
            self._any_started = True
            self._failed_starts[place] = 0
            self._idle.append(place)
        elif isinstance(answer, GlnetError):
            self._give_up(answer)
        elif isinstance(answer, Died):
            self._bury(place, work, answer)
        elif work is not None:
            self._idle.append(place)
            self._finish(work.item, answer)

    def _finish(self, item: Item, outcome: Outcome) -> None:
        self._listener.done(item, outcome)
        self._finish_one()
        if isinstance(item, Photographs):
            return
        video = self._videos[item.video]
        if outcome.failures:
            video.failed = True
        elif isinstance(item, Survey):
            self._cut(item, outcome.cuts)
        elif isinstance(item, Chunk):
            video.waiting.discard(item.number)
            if not video.waiting and not video.failed:
                self._join(video)

    def _finish_one(self) -> None:
        self._done += 1
        self._listener.progress(self._done, self._total)

    def _bury(self, place: int, work: _Try | None, died: Died) -> None:
        """Replace a dead actor. What it was doing is tried again, or set aside."""
        self._listener.died(None if work is None else work.item, died)
        if work is not None:
            self._finish_one()
            for item in self._left(work.item):
                if work.deaths + 1 < MOST_DEATHS:
                    self._add(item, deaths=work.deaths + 1, first=True)
                else:
                    self._set_aside(item, died)
        else:
            self._failed_starts[place] += 1
            if self._failed_starts[place] >= MOST_DEATHS:
                self._give_up(
                    BackendError(
                        f"An actor died {MOST_DEATHS} times while it started.",
                        why=died.reason,
                        fix="see whether the machine has memory for so many; try fewer with --actors",
                    )
                )
                return
        if self._queue or self._videos:
            self._start(place)

    def _give_up(self, error: GlnetError) -> None:
        """Go on without an actor: one machine may lack what the others have.

        Raises:
            GlnetError: No actor is left.
        """
        if not self._idle and not self._at_work:
            raise error
        if self._any_started:
            self._listener.refused(error)
        else:  # all may come to the same end, and then it is said once
            self._refusals.append(error)

    def _left(self, item: Item) -> list[Item]:
        """What an actor that died has left of its item; of a group, each photograph by itself."""
        if not isinstance(item, Photographs):
            return [item]
        left = item.left(self._orders)
        finished = [path for path in item.paths if path not in left.paths]
        if finished:  # their files are there, though nobody was told
            self._listener.done(item, Outcome([{"image": path, "untold": True} for path in finished]))
        return [*left.alone()]

    def _set_aside(self, item: Item, died: Died) -> None:
        name = item.inputs[0]
        error = InputError(
            f"{name} was set aside: it ended {MOST_DEATHS} actors.",
            why=died.reason,
            fix=_TRY_AGAIN,
        )
        self._aside[name] = error
        write_set_aside(self._orders.output, self._aside)
        if not isinstance(item, Photographs):
            self._videos[item.video].failed = True
        self._listener.set_aside(name, error)

    def _watch(self) -> None:
        """End actors that hang, and waiting for actors that do not come."""
        now = self._clock()
        for place, (work, began) in list(self._at_work.items()):
            if work is not None and now - began > (patience := _patience(work.item)):
                self._pool.kill(place)
                del self._at_work[place]
                self._bury(place, work, Died(f"it took more than {patience:.0f} seconds"))
        starting = [began for work, began in self._at_work.values() if work is None]
        nothing_else = not self._idle and len(starting) == len(self._at_work)
        if starting and nothing_else and now - max(starting) > START_SECONDS:
            raise BackendError(
                f"No actor has started within {START_SECONDS:g} seconds, and none is at work.",
                why="the cluster has no room for one, or its machines cannot start it",
                fix="see `ray status`; ask for fewer --threads or GPUs; the same command goes on",
            )


def _patience(item: Item) -> float:
    """Seconds that an item may take. Nothing hangs for ever, and nothing that is only long is ended."""
    if isinstance(item, Photographs):
        return ITEM_SECONDS
    try:
        reading = Path(item.video).stat().st_size / SLOWEST_READING
    except OSError:  # the actor says it
        reading = 0.0
    frames = 0 if isinstance(item, Survey) else item.frames
    return math.inf if frames is None else ITEM_SECONDS * max(1.0, frames / FRAMES) + reading


def _together(each: list[Photographs]) -> Photographs:
    return Photographs(tuple(one.paths[0] for one in each), tuple(one.boxes[0] for one in each))
