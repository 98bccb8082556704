"""The run's file: kept after every part, taken up by the same run only."""

import json

import pytest

from glnet_bench.record.files import Record, differences, read
from glnet_infer import InputError, OutputError

HEAD = {
    "settings": {"batches": (1, 2)},
    "bundle": {"graph_sha256": "ab"},
    "machine": {"cpu": "one"},
    "code": {"commit": "c0"},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "run.json"


def test_finished_parts_are_kept(path):
    record = Record.open(path, HEAD)
    assert not record.resumed
    record.add({"batch/1": {"backend": {"x": 1}}})
    again = Record.open(path, HEAD)
    assert again.resumed and again.has("batch/1") and not again.has("batch/2")
    assert again.document == record.document


@pytest.mark.parametrize(
    "section, key", [("settings", "batches"), ("bundle", "graph_sha256"), ("machine", "cpu"), ("code", "commit")]
)
def test_another_run_is_refused(path, section, key):
    Record.open(path, HEAD).add({"floor": {}})
    other = {**HEAD, section: {key: "other"}}
    with pytest.raises(InputError, match="another run") as error:
        Record.open(path, other)
    assert f"{section}.{key}" in error.value.why
    assert not Record.open(path, other, fresh=True).resumed


def test_a_run_that_cannot_be_saved_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="was not written"):
        Record.open(tmp_path / "file" / "run.json", HEAD).save()


def test_saving_leaves_nothing_else_behind(path):
    Record.open(path, HEAD).add({"floor": {}})
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"program": "other"}', '{"program": "glnet-bench", "schema": 99}'])
def test_what_is_no_run_is_refused(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InputError):
        read(path)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="was not read"):
        read(tmp_path / "run.json")


def test_differences_are_named_with_both_values():
    first = json.loads(json.dumps(HEAD))
    second = json.loads(json.dumps({**HEAD, "machine": {"cpu": "two"}}))
    assert differences(first, first) == []
    assert differences(first, second) == ["machine.cpu: one | two"]
    without = {name: value for name, value in first.items() if name != "code"}  # as runs were before it was recorded
    assert differences(without, first) == ["code.commit: None | c0"]
    assert differences(first, without) == ["code.commit: c0 | None"]


def test_crops_at_once_are_a_difference():
    one, eight, many = ({"at_once": size} for size in (1, 8, 16))
    runs = [{**HEAD, "backends": each} for each in ({"a": one, "b": many}, {"a": eight, "b": many, "c": many})]
    assert differences(*runs) == ["backends.a.at_once: 1 | 8"]
    earlier = {**HEAD, "backends": {"a": {}}}
    assert differences(earlier, runs[0]) == ["backends.a.at_once: None | 1"]
