"""The run's file: kept after every part, taken up by the same run only."""

import dataclasses
import json

import pytest

from glnet_bench.record.codec import decode, encode
from glnet_bench.record.files import RunFile, differences, read_run
from glnet_bench.record.names import FLOOR, FloorCase, Part
from glnet_bench.record.results import (
    BackendEntry,
    Ceilings,
    Cost,
    Floor,
    FloorTimes,
    Reading,
    Row,
    Soak,
    Start,
    StartSeconds,
    Times,
    WarmUp,
)
from glnet_bench.record.run import RunRecord
from glnet_bench.record.surroundings import EngineFile, GpuState, Note, ProcessorTime
from glnet_infer import InputError, OutputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "run.json"


@pytest.fixture
def saved(path):
    """A file with one part."""

    def save(run):
        file = RunFile.open(path, run)
        file.run.rows[Part.batch(1)] = {"one": Row(times={"network": Times(((1.0, 2.0),))})}
        file.save()
        return file

    return save


@pytest.fixture
def everything(new_run):
    """A run with a result of every kind."""
    run = new_run(settings={"persons": (1, 2), "threads": 3})
    run.bundle = dataclasses.replace(
        run.bundle, engines={"a.engine": EngineFile("ef", "tensorrt", "10.1", "mixed", ("8.9",), (1, 8, 32))}
    )
    gpu = GpuState(
        sm_mhz=1980, watts=71.5, throttled=("power cap",), held_back_seconds={"power cap": 1.5, "temperature": None}
    )
    run.watched = [
        Note(0.5, 2600.0, None, gpu, ProcessorTime(9.0, 3.0, 2.0, 0.0), began=True),
        Note(1.0, None, 3, None, after="batch/1"),
    ]
    run.backends = {"one": BackendEntry(description="It", device="cpu", at_once=2), "two": BackendEntry(reason="no GPU")}
    cost = Cost(1, 10, 0, 20, 30, 40, {"Conv": 10}, ("Hardmax",))
    run.floor = Floor(
        ceilings={"cpu": Ceilings(1e9, None, 2e9, "by hand")},
        no_ceilings={"cuda": "no GPU"},
        costs={"fp32": cost},
        no_costs={"mixed": "damaged"},
        times={FloorCase("cpu", "fp32", 1): FloorTimes(1.0, 2.0)},
    )
    run.starts = {"one": Start(seconds=StartSeconds(0.1, 0.2, 0.3, 0.6, 0.01), host_peak=99, persons=1)}
    run.starts["two"] = Start(reason="exit code -11", retry=True, died=True)
    run.soaks = {"one": Soak(readings=tuple(Reading(frame, 1000 + frame, None) for frame in range(1, 101)))}
    warm = WarmUp(calls=11, seconds=1.0, first_ms=99.0, stable=None)
    times = {"network": Times(((1.5, 2.5), (3.5,)), per_second=400.0), "end_to_end": Times(((2.0, 3.0), (4.0,)))}
    run.rows = {
        Part.batch(1): {"one": Row(warm_up=warm, times=times, clocks_mhz=(1980.0, None))},
        Part.of_frame("1080p", 2): {"one": Row(reason="out of memory", retry=True)},
    }
    run.left_out = {Part.batch(8): "no time"}
    return run


def test_finished_parts_are_kept(path, new_run, saved):
    assert not saved(new_run()).resumed
    again = RunFile.open(path, new_run())
    assert again.resumed and again.run.has(Part.batch(1)) and not again.run.has(Part.batch(2))
    assert again.run.times(Part.batch(1), "one", "network").turns == ((1.0, 2.0),)


def test_everything_that_is_written_is_read(path, everything):
    file = RunFile(path, everything)
    file.save()
    found = read_run(path)
    assert found == everything
    assert found.parts() == {
        *(FLOOR, Part.batch(1), Part.of_frame("1080p", 2), Part.start("one"), Part.start("two"), Part.soak("one"))
    }
    assert found.has(Part.batch(8)) and not found.has(Part.batch(2))


def test_readers_of_the_file_find_what_follows_from_it(everything):
    document = encode(everything)
    found = document["rows"]["batch/1"]["one"]["times"]["network"]
    assert found["summary"] == {"samples": 3, "min": 1.5, "p50": 2.5, "p90": 3.3, "p99": 3.48, "max": 3.5, "mean": 2.5}
    # From frame 10 to frame 100: 90 bytes more than 1,010.
    assert document["soaks"]["one"]["growth"]["host"] == {"bytes": 90, "share": 90 / 1010}
    assert document["soaks"]["one"]["flat"] == {"host": False, "device": None}


def test_a_summary_in_a_file_is_not_believed(everything):
    document = encode(everything)
    document["rows"]["batch/1"]["one"]["times"]["network"]["summary"]["p50"] = 99
    found = decode(RunRecord, document)
    assert found.times(Part.batch(1), "one", "network").summary.p50 == 2.5


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("settings", "batches", (1, 2)),
        ("bundle", "graph_sha256", "ef" * 32),
        ("machine", "cpu", "two"),
        ("code", "commit", "c1" * 20),
    ],
)
def test_another_run_is_refused(path, new_run, saved, section, key, value):
    saved(new_run())
    other = new_run(**{section: {key: value}})
    with pytest.raises(InputError, match="another run") as error:
        RunFile.open(path, other)
    assert f"{section}.{key}" in error.value.why
    assert not RunFile.open(path, other, replace=True).resumed


def test_a_run_that_cannot_be_saved_says_so(tmp_path, new_run):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        RunFile(tmp_path / "file" / "run.json", new_run()).save()


def test_saving_leaves_nothing_else_behind(path, new_run, saved):
    saved(new_run())
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"program": "other"}', '{"program": "glnet-bench", "schema": 99}'])
def test_what_is_no_run_is_refused(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InputError):
        read_run(path)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="was not read"):
        read_run(tmp_path / "run.json")


def test_differences_are_named_with_both_values(new_run):
    first, second = new_run(), new_run(machine={"cpu": "two"})
    assert differences(first, first) == []
    assert differences(first, second) == ["machine.cpu: one | two"]
    without = new_run()  # as runs were before it was recorded
    without.code = None
    assert f"code.commit: None | {'c0' * 20}" in differences(without, first)
    assert f"code.commit: {'c0' * 20} | None" in differences(first, without)


def test_crops_at_once_are_a_difference(new_run):
    one, eight, many = (BackendEntry(at_once=size) for size in (1, 8, 16))
    runs = [new_run(), new_run()]
    runs[0].backends, runs[1].backends = {"a": one, "b": many}, {"a": eight, "b": many, "c": many}
    assert differences(*runs) == ["backends.a.at_once: 1 | 8"]
    earlier = new_run()
    earlier.backends = {"a": BackendEntry()}
    assert differences(earlier, runs[0]) == ["backends.a.at_once: None | 1"]


def test_names_of_parts_are_read_as_they_are_written():
    parts = [FLOOR, Part.start("tensorrt-rtx"), Part.soak("a.b_c"), Part.batch(32), Part.of_frame("640x480", 16)]
    names = [str(part) for part in parts]
    assert names == ["floor", "start/tensorrt-rtx", "soak/a.b_c", "batch/32", "frame/640x480/16"]
    assert [Part.parse(name) for name in names] == parts
    case = FloorCase("cuda", "mixed", 4)
    assert str(case) == "cuda/mixed/4" and FloorCase.parse("cuda/mixed/4") == case


@pytest.mark.parametrize(
    "name",
    [
        "",
        "batch",
        "batch/0",
        "batch/-1",
        "batch/99999",
        "batch/1/2",
        "batch/\u0663",
        "frame/1080p",
        "start/",
        "start/a b",
        "x/1",
    ],
)
def test_what_is_no_name_of_a_part_is_refused(name):
    with pytest.raises(ValueError, match="name of a part"):
        Part.parse(name)


def test_the_codec_says_where_something_is_wrong(everything):
    document = json.loads(json.dumps(encode(everything)))
    document["rows"]["batch/1"]["one"]["times"]["network"]["turns"][1][0] = "fast"
    with pytest.raises(ValueError, match=r"rows\.batch/1\.one\.times\.network\.turns\[1\]\[0\] is a text, not a number"):
        decode(RunRecord, document)
