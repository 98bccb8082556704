"""The simulation of many actors, where the answer is known by hand."""

import json
import sys

import pytest

from glnet_bench.archive_actors import main, makespan, table


@pytest.mark.parametrize(
    "seconds, actors, start, dispatch, expected",
    [
        ([1, 1, 1, 1], 1, 0, 0, 4),
        ([1, 1, 1, 1], 2, 0, 0, 2),
        ([1, 1, 1, 1], 2, 3, 0, 5),
        ([1, 1, 1, 5], 2, 0, 0, 6),  # a long one at the end leaves the other actor idle
        ([0, 0, 0, 0], 64, 0, 0.5, 2),  # the driver is one
        ([2], 64, 1, 0.5, 3.5),
    ],
)
def test_items_go_to_whoever_is_idle(seconds, actors, start, dispatch, expected):
    assert makespan(seconds, actors, start, dispatch) == expected


def test_equal_items_scale_and_the_driver_bounds_them():
    rows = [line.split("|")[1:-1] for line in table([1.0] * 10, 160, 16 * 6400, 0.0, 0.0).splitlines()[2:]]
    assert [float(row[3]) for row in rows] == [1.0] * 7
    bound = table([1.0] * 10, 160, 16 * 6400, 0.0, 0.05).splitlines()[-1].split("|")
    assert float(bound[3]) == pytest.approx(1.05 / 0.05, rel=0.02)


def test_it_reads_what_a_run_printed(tmp_path, capsys, monkeypatch):
    items = [{"kind": "photographs", "inputs": 16, "seconds": 2.0}] * 3 + [{"kind": "join", "inputs": 1, "seconds": 9.0}]
    (tmp_path / "run.json").write_text(json.dumps({"items": items}), encoding="utf-8")
    monkeypatch.setattr(
        sys, "argv", ["archive_actors", str(tmp_path / "run.json"), "--photographs", "1600", "--start", "0"]
    )
    main()
    assert "| 1 | 200 | 1.00 | 1.00 |" in capsys.readouterr().out
