"""A bundle is there whole or not at all, whatever ends the export."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glnet_export.publish import bundle_under_construction
from glnet_infer import OutputError

NOBODY = 2**22 + 1
"""No process has this number: Linux's largest is 2^22."""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "bundle"


MANIFEST = []
"""The text of a real manifest: what is there already may be replaced only if it is a bundle."""


@pytest.fixture(scope="module", autouse=True)
def real_manifest(shared_bundle):
    MANIFEST.append((shared_bundle / "manifest.json").read_text())


def fill(directory, text):
    """A bundle with a real manifest, whose version of Python and whose files say ``text``."""
    document = json.loads(MANIFEST[-1])
    document["versions"]["python"] = text
    (directory / "manifest.json").write_text(json.dumps(document))
    for name in ("model.onnx", "topology.npz"):
        (directory / name).write_bytes(text.encode() * 1000)


def publish(target, text="new"):
    with bundle_under_construction(target) as (directory, finish):
        fill(directory, text)
        finish()


def content(target):
    """What a whole bundle was filled with."""
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "model.onnx", "topology.npz"]
    text = json.loads((target / "manifest.json").read_text())["versions"]["python"]
    for name in ("model.onnx", "topology.npz"):
        assert (target / name).read_bytes() == text.encode() * 1000
    return text


def beside(target):
    """What lies next to the target, hidden or not."""
    return sorted(path.name for path in target.parent.iterdir())


def test_success_publishes_and_leaves_nothing_else(target):
    with bundle_under_construction(target) as (directory, finish):
        assert directory.parent == target.parent and directory.name.startswith(".")
        fill(directory, "new")
        assert not target.exists()
        finish()
        assert content(target) == "new"
    assert content(target) == "new" and beside(target) == ["bundle"]


def test_kernels_that_a_runtime_kept_in_the_old_bundle_go_with_it(target):
    publish(target, "old")
    (target / "cache").mkdir()
    (target / "cache/0123456789abcdef.nvidia-l4.cache").write_bytes(b"kernels")
    publish(target)
    assert content(target) == "new" and beside(target) == ["bundle"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
def test_an_error_inside_leaves_nothing(target, failure):
    with pytest.raises(failure), bundle_under_construction(target) as (directory, _):
        fill(directory, "half")
        raise failure
    assert beside(target) == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_earlier_bundle_stays_whole_when_the_next_export_fails(target, failure):
    publish(target, "old")
    with pytest.raises(failure), bundle_under_construction(target) as (directory, _):
        fill(directory, "half")
        assert content(target) == "old"
        raise failure
    assert content(target) == "old" and beside(target) == ["bundle"]


def test_a_block_that_does_not_publish_leaves_nothing(target):
    with bundle_under_construction(target) as (directory, _):
        fill(directory, "half")
    assert beside(target) == []


def test_an_earlier_bundle_is_replaced_as_a_whole(target):
    publish(target, "old")
    publish(target, "new")
    assert content(target) == "new" and beside(target) == ["bundle"]


def test_an_earlier_bundle_with_a_users_file_in_it_is_refused_untouched(target):
    publish(target, "old")
    (target / "notes.txt").write_text("years of work")
    with pytest.raises(OutputError, match="will not be overwritten") as error, bundle_under_construction(target):
        pytest.fail("the block was entered")
    assert "notes.txt" in error.value.why
    assert (target / "notes.txt").read_text() == "years of work" and (target / "model.onnx").exists()


def test_a_directory_with_another_kind_of_manifest_is_refused_untouched(target):
    target.mkdir(parents=True)
    (target / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    with pytest.raises(OutputError, match="will not be overwritten"), bundle_under_construction(target):
        pytest.fail("the block was entered")
    assert (target / "manifest.json").read_text() == '{"name": "a web page", "icons": []}'


def test_an_empty_directory_is_filled(target):
    target.mkdir(parents=True)
    publish(target)
    assert content(target) == "new" and beside(target) == ["bundle"]


def test_two_targets_do_not_touch_each_other(target):
    publish(target, "one")
    publish(target.with_name("bundle2"), "two")
    assert content(target) == "one" and content(target.with_name("bundle2")) == "two"


def test_a_directory_that_is_no_bundle_is_refused_untouched(target):
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="will not be overwritten") as error, bundle_under_construction(target):
        pytest.fail("the block was entered")
    assert error.value.why and "-o" in error.value.fix
    assert (target / "thesis.tex").read_text() == "years of work" and beside(target) == ["bundle"]


def test_a_file_is_refused_untouched(target):
    target.parent.mkdir()
    target.write_text("a file")
    with pytest.raises(OutputError, match="will not be overwritten"), bundle_under_construction(target):
        pytest.fail("the block was entered")
    assert target.read_text() == "a file"


@pytest.mark.parametrize("below", ["bundle", "deeper/bundle"])
def test_a_file_in_place_of_the_parent_is_an_output_error(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match="cannot be written") as error,
        bundle_under_construction(tmp_path / "file" / below),
    ):
        pytest.fail("the block was entered")
    assert str(tmp_path / "file") in error.value.why and "-o" in error.value.fix


def test_a_failed_move_is_an_output_error_and_keeps_the_earlier_bundle(target, monkeypatch):
    publish(target, "old")
    real = Path.rename

    def fails_for_the_new_one(self, other):
        if ".partial-" in self.name:
            raise OSError(28, "No space left on device")
        return real(self, other)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OutputError, match="not moved") as error:
        publish(target, "new")
    assert "No space left" in error.value.why
    assert content(target) == "old" and beside(target) == ["bundle"]


def test_an_interrupt_between_the_two_renames_keeps_the_earlier_bundle(target, monkeypatch):
    # Ctrl-C or SIGTERM may come at any moment, also when the old bundle has just been moved aside.
    publish(target, "old")
    real = Path.rename

    def interrupted(self, other):
        if ".partial-" in self.name:
            raise KeyboardInterrupt
        return real(self, other)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(target, "new")
    assert content(target) == "old" and beside(target) == ["bundle"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_to_an_earlier_bundle_is_replaced_without_leftovers(target):
    elsewhere = target.parent.parent / "disk" / "bundle"
    publish(elsewhere, "old")
    target.parent.mkdir()
    target.symlink_to(elsewhere)
    publish(target, "new")
    assert content(target) == "new"
    assert beside(target) == beside(elsewhere) == ["bundle"]


def leftover(target, process):
    path = target.with_name(f".{target.name}.partial-{process}-abc123")
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"half")
    return path


def test_what_a_dead_export_left_is_removed(target):
    leftover(target, NOBODY)
    publish(target)
    assert beside(target) == ["bundle"]


def test_an_earlier_bundle_that_a_killed_export_had_moved_aside_comes_back(target):
    publish(target, "old")
    target.rename(target.with_name(f".bundle.replaced-{NOBODY}-abc123"))
    with pytest.raises(RuntimeError), bundle_under_construction(target):
        assert content(target) == "old"
        raise RuntimeError
    assert content(target) == "old" and beside(target) == ["bundle"]


def test_an_earlier_bundle_that_was_replaced_but_not_removed_is_removed(target):
    publish(target, "oldest")
    target.rename(target.with_name(f".bundle.replaced-{NOBODY}-abc123"))
    (target.parent / "keep").mkdir()
    target.mkdir()
    fill(target, "old")
    publish(target, "new")
    assert content(target) == "new" and beside(target) == ["bundle", "keep"]


def test_what_a_running_export_writes_is_left_alone(target):
    with bundle_under_construction(target) as (directory, _):
        fill(directory, "half")
        publish(target)
        assert (directory / "model.onnx").read_bytes() == b"half" * 1000 and content(target) == "new"
    assert beside(target) == ["bundle"]


def test_a_process_number_is_no_identity(target):
    # In a container every export has the number 1, or 7: that of the one that was killed.
    leftover(target, os.getpid())
    publish(target, "old")
    target.rename(target.with_name(f".bundle.replaced-{os.getpid()}-abc123"))
    with pytest.raises(RuntimeError), bundle_under_construction(target):
        assert content(target) == "old"
        raise RuntimeError
    assert beside(target) == ["bundle"]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_export_lets_go_of_its_lock(target):
    code = f"""
import pathlib, sys, time
from glnet_export.publish import bundle_under_construction
with bundle_under_construction(pathlib.Path({str(target)!r})):
    print("at work", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"at work\n"
    publish(target)  # beside it
    assert len(beside(target)) == 3 and content(target) == "new"
    process.kill()
    process.wait(60)
    publish(target)
    assert beside(target) == ["bundle"]


@pytest.mark.parametrize("name", [".bundle.partial-mine", f".bundle2.partial-{NOBODY}-abc123", "bundle.partial-1-a"])
def test_other_peoples_directories_are_left_alone(target, name):
    (target.parent / name).mkdir(parents=True)
    publish(target)
    assert sorted([name, "bundle"]) == beside(target)


@pytest.mark.parametrize("name", ["run[1]", "what?", "a*b", "with space", "größe"])
def test_names_with_special_characters_work_and_are_cleaned_up(target, name):
    target = target.with_name(name)
    leftover(target, NOBODY)
    publish(target, "old")
    publish(target, "new")
    assert content(target) == "new" and beside(target) == [name]


def test_a_relative_target_stays_where_it_was_when_the_working_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with bundle_under_construction(Path("bundle")) as (directory, finish):
        os.chdir("elsewhere")
        fill(directory, "new")
        finish()
    assert content(tmp_path / "bundle") == "new"


def test_a_killed_export_leaves_no_target_and_the_next_one_cleans_up(target):
    code = f"""
import sys, time
from pathlib import Path
from glnet_export.publish import bundle_under_construction
with bundle_under_construction(Path({str(target)!r})) as (directory, _):
    (directory / "manifest.json").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    lock, partial = beside(target)
    assert lock.startswith(".bundle.lock-") and partial.startswith(".bundle.partial-")
    publish(target.with_name("other"))
    assert beside(target) == [lock, partial, "other"]  # still running: not touched by a neighbour
    process.kill()
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert not target.exists() and beside(target) == [lock, partial, "other"]
    publish(target)
    assert content(target) == "new" and beside(target) == ["bundle", "other"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_during_the_trace_leaves_nothing(small_checkpoint, tmp_path):
    command = Path(sys.executable).with_name("glnet-export")
    target = tmp_path / "out" / "bundle"
    process = subprocess.Popen(
        [command, small_checkpoint, "-o", target], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stderr.readline()
        while first and "load" not in first:
            first = process.stderr.readline()
        assert "done" in first
        time.sleep(1)  # tracing takes several seconds
        lock, partial = beside(target)
        assert lock.startswith(".bundle.lock-") and partial.startswith(".bundle.partial-")
        process.send_signal(signal.SIGTERM)
        output, talk = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode not in (0, -signal.SIGTERM)  # it ended itself, and did not succeed
    assert output == "" and "2/5 trace" in talk and "done" not in talk and "Traceback" not in talk
    assert beside(target) == []
