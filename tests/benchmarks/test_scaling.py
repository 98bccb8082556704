"""Growth within a run, on rows that are known."""

import pytest

from glnet_bench.record.names import Part
from glnet_bench.record.results import Row, Times
from glnet_bench.report.scaling import faster_than_eager, scalings
from glnet_bench.settings import Frame

FRAMES = (Frame("4k", 3840, 2160), Frame("1080p", 1920, 1080))
FAILED = Row(reason="out of memory")


def row(milliseconds, turns=5, **stages):
    """A row whose turns wander by a tenth, all stages alike."""
    times = {"end_to_end": milliseconds, **stages}
    wander = [0.9 + 0.2 * index / (turns - 1) for index in range(turns)]
    return Row(times={name: Times(tuple((ms * each,) * 3 for each in wander)) for name, ms in times.items()})


@pytest.fixture
def run(new_run):
    def make(rows):
        found = new_run(settings={"frames": FRAMES})
        found.rows = {Part.of_frame(*name): {"one": row} for name, row in rows.items()}
        return found

    return make


def test_ratios_are_those_of_the_rows(run):
    large, small = scalings(
        run(
            {
                ("4k", 1): row(11, network=10),
                ("4k", 8): row(72, network=70),
                ("1080p", 1): row(10.5, network=10),
                ("1080p", 8): row(84),
            }
        )
    )
    assert (large.frame, small.frame, large.turns) == ("4k", "1080p", 5)
    assert large.per_person.value == pytest.approx(72 / 8 / 11)
    assert small.per_person.value == pytest.approx(1)
    assert small.per_person.low < 1 < small.per_person.high
    # Of the same calls: what slows both leaves their ratio as it is.
    for value in (large.by_network.value, large.by_network.low, large.by_network.high):
        assert value == pytest.approx(1.1)
    assert large.by_frame.value == pytest.approx(11 / 10.5) and small.by_frame is None


def test_gain_over_eager_pytorch(new_run):
    run = new_run()
    run.rows = {Part.batch(4): {"torch-fp32": row(130, network=120), "one": row(80, network=60), "broken": FAILED}}
    gain = faster_than_eager(run, "one", Part.batch(4))
    assert gain.value == pytest.approx(2) and gain.low < 2 < gain.high
    for backend, crops in (("torch-fp32", 4), ("broken", 4), ("one", 8), ("other", 4)):
        assert faster_than_eager(run, backend, Part.batch(crops)) is None


def test_what_was_not_measured_has_no_ratio(run):
    found = scalings(run({("4k", 1): row(11, turns=3, network=10), ("4k", 8): FAILED}))
    assert [(entry.frame, entry.per_person, entry.by_frame, entry.turns) for entry in found] == [("4k", None, None, 3)]
    assert scalings(run({})) == []


def test_stages_that_take_no_time_have_no_ratio(run):
    found = scalings(run({("4k", 1): row(11, network=0), ("4k", 8): row(70)}))
    assert found[0].by_network is None and found[0].per_person is not None
