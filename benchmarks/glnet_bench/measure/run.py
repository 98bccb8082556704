"""A run: measurement by measurement, all that one compares in turns within it, saved after every one."""

from __future__ import annotations

import contextlib
import datetime
import gc
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from glnet_bench.estimates import Summary
from glnet_bench.machine import hardware as machine
from glnet_bench.machine.nvml import Nvml
from glnet_bench.measure.cases import Cases
from glnet_bench.measure.failures import ProcessDiedError, failed
from glnet_bench.measure.floors import measure_floor
from glnet_bench.measure.forecast import FRAMES, forecast, frame_parts, measurements, spoken, too_long
from glnet_bench.measure.processes import run_alone, soak_seconds
from glnet_bench.measure.sampling import Case, Measured, MeasuringPlan, measure
from glnet_bench.record.files import RunFile
from glnet_bench.record.names import END_TO_END, NETWORK, Kind, Part
from glnet_bench.record.results import BackendEntry, Row, Soak, Start, Times
from glnet_bench.record.surroundings import EngineFile, MeasuredBundle
from glnet_bench.runners.base import Options, Runner
from glnet_bench.runners.registry import obstacle, open_runner
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import MANIFEST_NAME
from glnet_infer.errors import GlnetError

_PLACES = 4
"""Decimals of samples in the file: tenths of a microsecond, finer than any clock here."""


def describe_bundle(bundle: Bundle) -> MeasuredBundle:
    """Which bundle a run measures."""
    manifest = bundle.manifest
    return MeasuredBundle(
        manifest_sha256=record_file(bundle.directory / MANIFEST_NAME).sha256,
        graph_sha256=manifest.graph.file.sha256,
        network=manifest.network.name,
        weights=manifest.network.weights,
        weights_sha256=manifest.network.sha256,
        body=manifest.body.name,
        vertices=manifest.body.vertices,
        crop_size=manifest.crop.size,
        precision=manifest.graph.precision,
        engines={
            record.file.file: EngineFile(
                sha256=record.file.sha256,
                flavor=record.flavor,
                version=record.version,
                precision=record.precision,
                compute_capabilities=tuple(record.compute_capabilities),
                profile=tuple(record.profile),
            )
            for record in manifest.engines
        },
    )


class Listener(Protocol):
    """Who is told how a run goes."""

    def begins(self, measurement: str) -> None:
        """A measurement begins."""

    def says(self, text: str) -> None:
        """Something that its user wants to know now."""


class Run:
    """Measures what a record lacks.

    Args:
        bundle: What is measured.
        options: Options for opening backends.
        file: Where results go; finished parts in it are kept, but those that failed for want of memory or time.
        listener: Who is told.
        nvml: NVML of the GPU, where there is one.
        budget: Seconds that the run should take; parts of many crops are left out for it. None: as long as it takes.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: Options,
        file: RunFile,
        listener: Listener,
        *,
        nvml: Nvml | None = None,
        budget: float | None = None,
    ) -> None:
        self._bundle, self._options, self._file, self._listener = bundle, options, file, listener
        self._budget, self._begin = budget, time.monotonic()
        self._record, self._settings = file.run, file.run.settings
        self._plan = MeasuringPlan.of(self._settings)
        self._nvml = nvml
        self._runners: dict[str, Runner] | None = None

    def __call__(self) -> None:
        """Measure what is missing.

        Raises:
            OutputError: The record cannot be written.
        """
        record = self._record
        record.started = record.started or _now()
        began = foretold = False
        try:
            for name, parts in measurements(self._settings).items():
                if not any(map(self._wants, parts)):  # asked now: what went well just before may make more wanted
                    continue
                if not began:  # a run that is complete has nothing to say of the machine of today
                    record.watched.append(machine.watch(self._nvml, began=True))
                    began = True
                if not foretold and parts[0].kind is not Kind.START:
                    foretold = True
                    self._foretell()
                    if not any(map(self._wants, parts)):  # it was left out
                        continue
                self._listener.begins(name)
                record.finished = None
                self._measure(name, parts)
                # Before it is saved: what happened meanwhile belongs to it.
                record.watched.append(machine.watch(self._nvml, after=name))
                self._file.save()
            record.finished = record.finished or _now()
            self._file.save()
        finally:
            self.close()

    def close(self) -> None:
        """Close all backends. Calling it twice is allowed."""
        for runner in (self._runners or {}).values():
            with contextlib.suppress(Exception):  # what was measured is worth more than a tidy end
                runner.close()
        self._runners = None

    def _foretell(self) -> None:
        """Say what runs here and how long it will take, and leave out what takes too long."""
        record = self._record
        running = [name for name, start in record.starts.items() if not start.reason]
        if not running:
            self._listener.says("None of the backends started.")
            return
        if self._budget is not None:
            everything = forecast(record)
            omitted = too_long(record, self._budget - (time.monotonic() - self._begin))
            for part in sorted(omitted, key=str):
                record.left_out[part] = "a default run has no time for it"
            if omitted:
                self._listener.says(
                    f"All of it would take about {spoken(sum(everything.values()))}. Left out for want of time: "
                    f"{', '.join(map(str, record.left_out))}. --full measures them."
                )
        times = forecast(record)
        one_by_one = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in times.items())
        self._listener.says(
            f"Started: {', '.join(running)}. The rest takes about {spoken(sum(times.values()))} ({one_by_one})."
        )

    def _wants(self, part: Part) -> bool:
        """Whether a part must be measured: the first time, or after a failure that may have been the moment's."""
        record = self._record
        if part in record.left_out or not record.has(part):
            return part not in record.left_out
        if part in record.rows:
            return any(row.retry and not self._died(backend) for backend, row in record.rows[part].items())
        alone: Mapping[str, Start] = record.soaks if part.kind is Kind.SOAK else record.starts
        return part.backend in alone and alone[part.backend].retry

    def _measure(self, name: str, parts: list[Part]) -> None:
        """Put a measurement's results into the record."""
        record, settings, part = self._record, self._settings, parts[0]
        if part.kind is Kind.FLOOR:
            record.floor = measure_floor(self._bundle, settings)
        elif part.kind is Kind.START:
            record.starts[part.backend] = self._alone(part.backend, settings.persons[0])
        elif part.kind is Kind.SOAK:
            record.soaks[part.backend] = self._soak(part.backend)
        else:
            cases = Cases(self._bundle, self._opened(), self._nvml)
            if name != FRAMES:
                self._in_turns(cases.batch(part.count, settings.frames[0]), parts)
                return
            frames = {frame.name: frame for frame in settings.frames}
            kept = {each: frames[each.frame] for each in frame_parts(settings) if each not in record.left_out}
            self._in_turns(cases.frames(kept), list(kept))

    def _in_turns(self, cases: Iterable[Case], parts: list[Part]) -> None:
        """Rows of parts, by backend."""
        entries = self._record.backends.items()
        barred = {name: Row(reason=entry.reason, retry=True) for name, entry in entries if entry.retry}
        rows = {part: dict(barred) for part in parts}
        seed = max(part.count for part in parts)
        for (part, backend), found in measure(list(cases), self._plan, seed=seed, after_failure=_free_memory).items():
            rows[part][backend] = row(found, part.count)
        self._record.rows.update(rows)

    def _soak(self, name: str) -> Soak:
        """Memory over many frames, with the most persons, who need the most of it."""
        died, settings = self._died(name), self._settings
        if died:
            return Soak(reason=died, retry=True)
        start = self._record.starts.get(name)
        # A call grows with its persons at most; where none was made, a second for each is much.
        call = start.seconds.later_call if start and start.seconds else settings.persons[0]
        limit = soak_seconds(settings.soak, call * max(settings.persons) / settings.persons[0])
        return self._alone(name, max(settings.persons), frames=settings.soak, seconds=limit)

    def _alone(self, name: str, persons: int, **soak: Any) -> Soak:
        hindrance = obstacle(name, self._bundle)
        if hindrance:
            return Soak(reason=hindrance)
        bus = self._nvml.bus if self._nvml else None
        frame = self._settings.frames[0]
        try:
            return run_alone(self._bundle.directory, name, self._options, frame, persons, bus=bus, **soak)
        except ProcessDiedError as error:
            return Soak(reason=failed(Soak, error).reason, retry=True, died=True)
        except GlnetError as error:
            return failed(Soak, error)

    def _died(self, name: str) -> str:
        """Why a backend took the process of its start with it; empty where it did not."""
        start = self._record.starts.get(name, Start())
        return start.reason if start.died else ""

    def _opened(self) -> dict[str, Runner]:
        """The backends that run here; the record learns why the others do not."""
        if self._runners is None:
            self._runners = {}
            for name in self._settings.backends:
                died = self._died(name)
                # One that died would take the run with it.
                self._record.backends[name] = BackendEntry(reason=died, retry=True) if died else self._open(name)
        return self._runners

    def _open(self, name: str) -> BackendEntry:
        start = time.perf_counter()
        try:
            runner = open_runner(name, self._bundle, self._options)
        except Exception as error:  # whatever a backend raises belongs to its row
            return failed(BackendEntry, error)
        assert self._runners is not None
        self._runners[name] = runner
        return BackendEntry(
            description=runner.description,
            device=runner.device,
            precision=runner.precision,
            clock=runner.clock,
            at_once=runner.at_once,
            load_seconds=time.perf_counter() - start,
        )


def row(measured: Measured, crops: int) -> Row:
    """A row of the record: samples turn by turn, warm-up, clocks, and the reason why there are no more."""
    failure = failed(Row, measured.failure) if measured.failure is not None else Row()
    times = {}
    for stage, turns in measured.turns.items():
        is_whole = stage in (NETWORK, END_TO_END)
        rate = 1000 * crops / Summary.of(turns).mean if is_whole else None
        times[stage] = Times(tuple(tuple(round(ms, _PLACES) for ms in turn) for turn in turns), rate)
    return Row(
        reason=failure.reason,
        retry=failure.retry,
        warm_up=measured.warm_up,
        times=times,
        clocks_mhz=tuple(measured.clocks_mhz),
    )


def _free_memory() -> None:
    """Give back what a call left that ran out of memory, or the next backend runs out of it too."""
    gc.collect()
    if "torch" in sys.modules:
        with contextlib.suppress(Exception):  # after an illegal access CUDA refuses this too; the others' rows go on
            sys.modules["torch"].cuda.empty_cache()  # does nothing where CUDA was not started


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
