"""Files of runs from elsewhere: earlier ones are read, damaged ones are refused with a reason."""

import copy
import json
import random
from pathlib import Path

import pytest

from glnet_bench.record.files import read_run
from glnet_bench.record.names import STAGES
from glnet_bench.report.comparison import compare
from glnet_bench.report.page import markdown
from glnet_infer import InputError

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))
KEYS = ("backend", "crops", "frame", "persons", "device", "precision")
EARLIER = [path for path in RESULTS if json.loads(path.read_text())["schema"] == 1]


def tables(text):
    """Rows of a report's tables, by their columns' names and by what they are of."""
    found = {}
    for block in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        header, _, *body = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block)
        header = [name.replace("engine", "network") for name in header]
        keys = [index for index, name in enumerate(header) if name in KEYS]
        for line in body:
            found[(header[-2], *(line[index] for index in keys))] = dict(zip(header, line, strict=True))
    return found


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_runs_of_schema_1_are_reported_with_the_figures_that_were_printed(path):
    """The page beside each file was written by the program of its day."""
    old, new = tables(path.with_suffix(".md").read_text()), tables(markdown(read_run(path)))
    compared = 0
    for key, before in old.items():
        if "flat" in str(before) or "MiB growth" in str(before):
            continue  # growth of memory was judged in another way
        for column, cell in before.items():
            if column in new.get(key, {}):
                after = new[key][column]
                try:
                    number = float(cell)
                except ValueError:
                    continue
                # Percentiles are computed from samples as they are in the file, to a ten-thousandth.
                assert float(after) == pytest.approx(number, abs=2e-3), (key, column)
                compared += 1
    assert compared > 30


@pytest.mark.parametrize("path", sorted(EARLIER, key=lambda path: path.stat().st_size)[:2], ids=lambda path: path.stem)
def test_runs_of_schema_1_are_compared(path):
    run = read_run(path)
    rows = compare(run, run)
    assert {row.ratio.value for row in rows} == {1}
    assert {row.what for row in rows} <= {"end_to_end", *STAGES}
    document = json.loads(path.read_text())
    kinds = ("batch/", "frame/")
    timed = [row for part, rows in document["parts"].items() if part.startswith(kinds) for row in rows.values()]
    assert len(rows) == sum(len(row["parts"]) for row in timed)


def test_there_are_earlier_runs():
    assert len(EARLIER) == 3


@pytest.fixture(scope="module")
def document():
    """A run of schema 1 with a part of every kind, each row cut short: of few samples a ratio is fast."""
    found = json.loads(min(EARLIER, key=lambda path: path.stat().st_size).read_text())
    for part, rows in found["parts"].items():
        if part.startswith(("batch/", "frame/")):
            for row in rows.values():
                for times in row["parts"].values():
                    times["visits"] = [visit[:1] for visit in times["visits"][:2]]
        if part.startswith("soak/"):
            for row in rows.values() if "readings" not in rows else [rows]:
                row["readings"] = row["readings"][:3]
    return found


def places(value, found=()):
    """Where a document has values: (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield value, key
        yield from places(each)


WRONG = [None, True, -1, 0, 1e308, 10**400, float("nan"), "", "\ud800", "a/b/c", [], [[]], {}, {"reason": 3}, [None], 2**70]


def read_and_used(path, text):
    path.write_text(text)
    run = read_run(path)
    compare(run, run)
    markdown(run)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_read_or_refused(document, tmp_path, seed):
    """Each with one value that is another, or lacks; 400 altogether."""
    generator, refused = random.Random(seed), 0
    for _ in range(34):
        damaged = copy.deepcopy(document)
        container, key = generator.choice(list(places(damaged)))
        if generator.random() < 0.2:
            del container[key]
        else:
            container[key] = generator.choice(WRONG)
        try:
            read_and_used(tmp_path / "run.json", json.dumps(damaged))
        except InputError as error:
            assert error.why and error.fix
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"program": "glnet-bench", "a": ' + "9" * 5000 + "}", "\x00", "\ufeff{}"]
)
def test_text_that_is_hardly_json_is_refused(tmp_path, content):
    with pytest.raises(InputError):
        read_and_used(tmp_path / "run.json", content)


def test_a_file_cannot_steer_a_terminal(bench, document, tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(document))
    other = copy.deepcopy(document)
    other["machine"]["cpu"] = "\x1b[2J\nnot a line of its own"
    second.write_text(json.dumps(other))
    assert "\x1b" not in bench("compare", first, second).stderr


def test_too_many_samples_are_refused(document, tmp_path):
    """Each interval of them would take seconds and gigabytes."""
    other = copy.deepcopy(document)
    row = next(iter(other["parts"]["batch/1"].values()))
    row["parts"]["engine"]["visits"] = [[1.0]] * 3000
    with pytest.raises(InputError, match="damaged") as error:
        read_and_used(tmp_path / "run.json", json.dumps(other))
    assert "turns" in error.value.why
