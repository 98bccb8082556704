"""The program, run in the test's process on stand-ins for what takes seconds."""

import dataclasses
import signal

import pytest
from typer.testing import CliRunner

from glnet_bench.cli import app
from glnet_bench.floor import ceilings
from glnet_bench.machine import hardware as machine
from glnet_bench.machine import provenance
from glnet_bench.measure import processes
from glnet_bench.measure import run as runs
from glnet_bench.record.results import Reading, Soak, StartSeconds
from glnet_bench.record.run import RunRecord
from glnet_bench.record.surroundings import Code, Machine, MeasuredBundle
from glnet_bench.settings import Frame, Settings
from glnet_infer import BackendError


@pytest.fixture
def signals_as_they_were():
    """glnet-bench handles SIGTERM; run inside the test process, it must not keep doing so."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def no_ceilings_and_no_processes(monkeypatch):
    """Those have tests of their own, and take seconds."""
    monkeypatch.setattr(ceilings, "best", lambda call: (call(), 0.001)[1])
    monkeypatch.setattr(ceilings, "CPU_SIDES", (32,))

    # Tests run beside other tests, and while sources are edited.
    monkeypatch.setattr(machine, "_processor_time", lambda: None)
    monkeypatch.setattr(provenance, "describe", lambda: Code("c0" * 20, True, "50" * 32))

    def alone(bundle, name, options, frame, persons, frames=0, seconds=None, bus=None):
        if name != "onnxruntime-cpu":
            raise BackendError("It does not run.", why="the test says so")
        assert (seconds is None) == (not frames) and (not frames or seconds > processes.START_SECONDS)
        return Soak(
            seconds=StartSeconds(importing=0.1, loading=0.2, first_call=0.3, total=0.6, later_call=0.01),
            host_peak=100 << 20,
            persons=persons,
            readings=tuple(Reading(frame, 50 << 20, None) for frame in range(1, 9)) if frames else (),
        )

    monkeypatch.setattr(runs, "run_alone", alone)
    monkeypatch.setattr(runs, "obstacle", lambda name, bundle: "")


@pytest.fixture
def bench(signals_as_they_were, no_ceilings_and_no_processes):
    """glnet-bench with arguments, which must end with a code: what it printed."""

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def new_run():
    """A run without results, of other settings where they are given."""

    def make(**changes):
        settings = {"backends": ("one",), "batches": (1,), "persons": (1, 8), "frames": (Frame("1080p", 1920, 1080),)}
        bundle = MeasuredBundle("ab" * 32, "cd" * 32, "small", "random", "", "demo", 12408, 64, "fp32", {})
        machine = Machine("Linux", "3.11", "one", 2, None, None, (), None, {"numpy": "2.0"})
        run = RunRecord(
            settings=Settings(**settings), bundle=bundle, machine=machine, code=Code("c0" * 20, False, "50" * 32)
        )
        for section, values in changes.items():
            setattr(run, section, dataclasses.replace(getattr(run, section), **values))
        return run

    return make
