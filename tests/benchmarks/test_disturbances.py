"""What the notes of a run say against its figures."""

import dataclasses

import pytest

from glnet_bench.machine import hardware as machine
from glnet_bench.record.surroundings import GpuState, Note, ProcessorTime
from glnet_bench.report.disturbances import warnings


def note(load=0.1, throttled=0, gpu=None, began=False):
    return Note(load_average=load, cpu_mhz=None, cpu_throttle_count=throttled, gpu=gpu and GpuState(**gpu), began=began)


def held_back(seconds, began=False):
    return note(gpu={"sm_mhz": 1980, "held_back_seconds": {"power cap": seconds, "temperature": 7.0}}, began=began)


def test_a_quiet_machine_is_no_reason_to_warn():
    gpu = {"sm_mhz": 1980, "throttled": []}
    assert warnings([note(gpu=gpu), note(load=2, gpu=gpu)], 2) == []
    # At rest before and between: its clock is low then.
    rest, work = {"sm_mhz": 345, "throttled": [], "load_percent": 0}, {**gpu, "load_percent": 97}
    assert warnings([note(gpu={**rest, "load_percent": 3}), note(gpu=work), note(gpu=rest), note(gpu=work)], 2) == []


@pytest.mark.parametrize(
    "notes, words",
    [
        ([note(load=1.5)], "busy"),
        ([note(), note(throttled=3)], "throttled 3 times"),
        (
            [note(gpu={"sm_mhz": 1980, "throttled": []}), note(gpu={"sm_mhz": 1980, "throttled": ["power cap"]})],
            "power cap",
        ),
        (
            [note(), *(note(gpu={"sm_mhz": clock, "throttled": None, "load_percent": 80}) for clock in (1980, 900))],
            "900 to 1980",
        ),
        (
            [held_back(3.0, began=True), held_back(3.5), held_back(4.25)],
            "held back by its power cap for 1.2 s",
        ),
        (  # resumed after another driver's start: its counter began anew
            [held_back(100, began=True), held_back(160), held_back(0, began=True), held_back(2)],
            "held back by its power cap for 62.0 s",
        ),
    ],
)
def test_a_disturbed_run_says_so(notes, words):
    assert any(words in text for text in warnings(notes, 2))


def test_what_happened_between_the_sittings_of_a_run_is_not_its_own():
    notes = [held_back(10, began=True), held_back(10), held_back(3610, began=True), held_back(3610)]
    assert warnings(notes, 2) == []
    rest, work = ({"sm_mhz": clock, "load_percent": None} for clock in (345, 1980))
    assert warnings([note(gpu=rest, began=True), note(gpu=work)] * 2, 2) == []
    assert warnings([note(throttled=1, began=True), note(throttled=1), note(throttled=9, began=True)], 2) == []


def working(seconds, busy, own, stolen=0.0, *, began=False, after="batch/1", load=2.0):
    """After so many seconds of two processors: what all processes and this one took of them, in seconds since the start."""
    time = ProcessorTime(all=2.0 * seconds, busy=busy, own=own, stolen=stolen)
    return dataclasses.replace(note(load, began=began), after=after, cpu_seconds=time)


def test_a_runs_own_work_is_no_disturbance():
    notes = [working(100, 50, 1, began=True, load=0.1), working(110, 70, 20), working(120, 90.5, 40)]
    assert warnings(notes, 2) == []


def test_other_work_in_the_middle_of_a_run_is_named_with_its_part():
    notes = [working(100, 50, 1, began=True, load=0.1), working(110, 60, 10, after="batch/1")]
    notes += [working(120, 75, 15, after="batch/2"), working(130, 90, 29, after="frames")]
    (text,) = warnings(notes, 2)  # ten of twenty seconds, less five of its own
    assert text == "other work kept up to 50% of the processors busy during batch/2"


def test_a_busy_machine_when_a_run_goes_on_is_named_too():
    notes = [working(100, 50, 1, began=True, load=0.1), working(110, 60, 10)]
    notes += [working(900, 700, 1, began=True, load=2.0), working(910, 710, 10)]
    (text,) = warnings(notes, 2)  # what was between the sittings is nobody's
    assert "before the run went on (load 2.0 on 2 cores)" in text


def test_time_that_the_hypervisor_gave_to_others_is_named():
    notes = [
        working(100, 50, 1, 5, began=True, load=0.1),
        working(110, 60, 11, 5.5),
        working(120, 70, 21, 7.5, after="frames"),
    ]
    assert warnings(notes, 2) == ["the hypervisor gave others up to 10% of the processors' time during frames"]


def test_a_moment_too_short_to_measure_is_not_judged():
    assert warnings([working(100, 50, 1, began=True, load=0.1), working(100.1, 50.1, 1)], 2) == []


def test_processor_time_is_read(monkeypatch, tmp_path):
    second = machine.os.sysconf("SC_CLK_TCK")
    ticks = [second * seconds for seconds in (10, 1, 5, 80, 2, 1, 1, 4, 3, 0)]  # guests, the last two, are in the first
    (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    found = machine.watch(None).cpu_seconds
    assert (found.all, found.busy, found.stolen) == (104, 18, 4)
    assert found.own > 0
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")  # as sandboxes show it
    assert machine.watch(None).cpu_seconds is None
    (tmp_path / "stat").unlink()
    assert machine.watch(None).cpu_seconds is None
