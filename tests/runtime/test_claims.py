"""Temporary files: nobody's links are followed, what a killed process left is removed, what a living one writes is not."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from glnet_infer import claims
from glnet_infer.files import Replacement, replace_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")

WRITES = """
import sys, time
from pathlib import Path
from glnet_infer.files import replace_file

def slowly(file):
    file.write(b"half")
    file.flush()
    print("at work", flush=True)
    time.sleep(60)

replace_file(Path(sys.argv[1]), slowly)
"""

KEEPS = """
import time
from glnet_infer.claims import temporary_folder
with temporary_folder() as folder:
    (folder / "film.mp4").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(60)
"""


def started(code, *arguments, **options):
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, **options)
    said = process.stdout.readline().decode().strip()
    assert said
    return process, said


def ended(process, number=signal.SIGKILL):
    process.send_signal(number)
    process.wait(60)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_anew(path):
    """As a new process does: one looks through a directory once."""
    claims._swept.clear()
    replace_file(path, b"new")


@pytest.mark.parametrize("name", ["person.glb", "ö" * 120, "with [brackets] and\nlines"])
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    process, _ = started(WRITES, tmp_path / name)
    assert len(names(tmp_path)) == 2
    write_anew(tmp_path / "other")  # beside one that lives
    assert len(names(tmp_path)) == 3 and (tmp_path / name).read_bytes() == b"old"
    ended(process)
    write_anew(tmp_path / "other")
    assert names(tmp_path) == sorted([name, "other"]) and (tmp_path / name).read_bytes() == b"old"


def test_other_peoples_files_and_links_are_left_alone(tmp_path):
    digits = "0123456789abcdef" * 2
    theirs = [".a.partial", f"a.{digits}.partial", f".a.{digits}", f".a.{digits[1:]}.partial", f".a.{digits}.partial.x.y"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / f".link.{digits}.partial").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / f".pipe.{digits}.partial")
    (tmp_path / f".litter.{digits}.partial").write_bytes(b"half")
    write_anew(tmp_path / "result")
    left = [f".link.{digits}.partial", f".pipe.{digits}.partial", "result", "victim"]
    assert names(tmp_path) == sorted([*theirs, *left]) and (tmp_path / "victim").read_bytes() == b"mine"


def test_a_planted_link_is_not_written_through(tmp_path, monkeypatch):
    # Names cannot be guessed; if one were, the link is refused.
    (tmp_path / "victim").write_bytes(b"mine")
    replacement = Replacement(tmp_path / "result")
    replacement.partial.symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="File exists"):
        replacement.begin()
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_names_of_two_writes_differ(tmp_path):
    assert len({Replacement(tmp_path / "result").partial for _ in range(100)}) == 100


def test_a_file_that_is_taken_for_litter_before_it_is_claimed_gets_another_name(tmp_path, monkeypatch):
    flock, taken = claims.fcntl.flock, []

    def late(descriptor, how):
        if not taken:  # another process is quicker, once
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        flock(descriptor, how)

    monkeypatch.setattr(claims.fcntl, "flock", late)
    replace_file(tmp_path / "result", b"whole")
    assert len(taken) == 1 and names(tmp_path) == ["result"] and (tmp_path / "result").read_bytes() == b"whole"


def test_where_there_are_no_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks")

    monkeypatch.setattr(claims.fcntl, "flock", refuse)
    litter = tmp_path / f".litter.{'0' * 32}.partial"
    litter.write_bytes(b"perhaps somebody's")
    write_anew(tmp_path / "result")
    assert names(tmp_path) == [litter.name, "result"]


def test_a_file_that_is_being_written_stays_claimed_until_it_has_its_name(tmp_path, monkeypatch):
    rename = type(tmp_path).replace

    def looked_through(self, target):
        claims.remove_unclaimed(self)  # another process, at the worst moment
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", looked_through)
    replace_file(tmp_path / "result", b"whole")
    assert (tmp_path / "result").read_bytes() == b"whole"


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    (tmp_path / "glnet-mine").mkdir()
    process, folder = started(KEEPS, env=environment)
    assert Path(folder).stat().st_mode & 0o077 == 0
    with claims.temporary_folder() as own:
        assert names(tmp_path) == sorted([own.name, Path(folder).name, "glnet-mine"])
    ended(process)
    with claims.temporary_folder() as own:
        assert names(tmp_path) == sorted([own.name, "glnet-mine"])
    assert names(tmp_path) == ["glnet-mine"]


def test_a_lock_that_a_link_leads_from_is_not_emptied(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    assert not claims.remove_unclaimed(tmp_path / "lock")
    assert (tmp_path / "victim").read_bytes() == b"mine" and (tmp_path / "lock").is_symlink()
    with pytest.raises(FileExistsError):
        claims.claimed_file(tmp_path / "lock")


def can_unshare():
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.skipif(sys.platform != "linux" or not can_unshare(), reason="needs process numbers of its own (unshare)")
def test_processes_of_one_number_are_told_apart(tmp_path):
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c"]
    writes = "import os; assert os.getpid() == 1\n" + WRITES
    process = subprocess.Popen([*inside, writes, tmp_path / "result"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"at work\n"
    at_once = f"from glnet_infer.files import replace_file; replace_file({str(tmp_path / 'b')!r}, b'')"
    subprocess.run([*inside, at_once], check=True)
    assert len(names(tmp_path)) == 2  # it lives
    ended(process)
    subprocess.run([*inside, at_once], check=True)
    assert names(tmp_path) == ["b"]
