"""Growth within a run, on rows that are known."""

import pytest

from glnet_bench.report.scaling import faster_than_eager, scalings

FRAMES = [{"name": "4k", "width": 3840, "height": 2160}, {"name": "1080p", "width": 1920, "height": 1080}]


def row(milliseconds, visits=5, **parts):
    """A row whose visits wander by a tenth, all parts alike."""
    times = {"end_to_end": milliseconds, **parts}
    wander = [0.9 + 0.2 * index / (visits - 1) for index in range(visits)]
    return {"parts": {name: {"visits": [[ms * each] * 3 for each in wander]} for name, ms in times.items()}}


def run(**rows):
    parts = {name.replace("_", "/"): {"one": found} for name, found in rows.items()}
    return {"settings": {"backends": ["one"], "persons": [1, 8], "frames": FRAMES}, "parts": parts}


def test_ratios_are_those_of_the_rows():
    document = run(
        frame_4k_1=row(11, engine=10),
        frame_4k_8=row(72, engine=70),
        frame_1080p_1=row(10.5, engine=10),
        frame_1080p_8=row(84),
    )
    large, small = scalings(document)
    assert (large.frame, small.frame, large.turns) == ("4k", "1080p", 5)
    assert large.per_person.value == pytest.approx(72 / 8 / 11)
    assert small.per_person.value == pytest.approx(1)
    assert small.per_person.low < 1 < small.per_person.high
    # Of the same calls: what slows both leaves their ratio as it is.
    for value in (large.by_engine.value, large.by_engine.low, large.by_engine.high):
        assert value == pytest.approx(1.1)
    assert large.by_frame.value == pytest.approx(11 / 10.5) and small.by_frame is None


def test_gain_over_eager_pytorch():
    rows = {"torch-fp32": row(130, engine=120), "one": row(80, engine=60), "broken": {"reason": "out of memory"}}
    document = {"parts": {"batch/4": rows}}
    gain = faster_than_eager(document, "one", "4")
    assert gain.value == pytest.approx(2) and gain.low < 2 < gain.high
    for backend, crops in (("torch-fp32", "4"), ("broken", "4"), ("one", "8"), ("other", "4")):
        assert faster_than_eager(document, backend, crops) is None


def test_what_was_not_measured_has_no_ratio():
    found = scalings(run(frame_4k_1=row(11, visits=3, engine=10), frame_4k_8={"reason": "out of memory", "parts": {}}))
    assert [(entry.frame, entry.per_person, entry.by_frame, entry.turns) for entry in found] == [("4k", None, None, 3)]
    assert scalings(run()) == []
