"""Places that a process has not or must not look into: no home, no working directory, closed folders, names too long."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import failed

from glnet_infer import BackendError, BundleError, InputError, OutputError
from glnet_infer.bodies import body_search_path, installed_body_files
from glnet_infer.bundle import Bundle
from glnet_infer.files import is_directory, is_file, is_there
from glnet_infer.onnxruntime_sessions import import_onnxruntime

BIN = Path(sys.executable).parent
NAMELESS = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
LONG = "x" * 300
PHOTO = Path(__file__).parents[2] / "examples/person.jpg"


def can_be_nameless():
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode == 0


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, **options)


def test_a_process_without_a_home_searches_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLNET_BODY_DIR", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert body_search_path() == [tmp_path, tmp_path / "smpl"]


def test_a_process_whose_directory_was_removed_searches_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GLNET_BODY_DIR", LONG)
    (tmp_path / "gone").rmdir()
    assert body_search_path() == [Path(LONG), tmp_path / ".glnet/bodies"]
    assert installed_body_files() == []


def test_the_doctor_works_where_the_directory_was_removed(tmp_path):
    command = f'mkdir gone && cd gone && rmdir ../gone && exec "{BIN / "glnet-doctor"}"'
    result = run("sh", "-c", command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})
    assert result.returncode == 0 and "no SMPL file in" in result.stdout and "Traceback" not in result.stderr


@pytest.mark.skipif(not can_be_nameless(), reason="no user without a name can be made here")
def test_the_doctor_works_for_a_user_without_name_and_home(tmp_path):
    tmp_path.chmod(0o777)
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    result = run(*NAMELESS, BIN / "glnet-doctor", cwd=tmp_path, env=environment)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A directory that must not be looked into. Whoever may do everything meets it all the same."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.jpg").touch()
    folder.chmod(0)
    if os.access(folder, os.X_OK):  # the superuser: closed by hand
        original = os.stat

        def stat(path, *arguments, **options):
            if isinstance(path, str | os.PathLike) and str(path).startswith(str(folder) + "/"):
                raise PermissionError(13, "Permission denied")
            return original(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", stat)
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("name", ["a.jpg", LONG, "a\0b"])
def test_what_cannot_be_asked_about_is_not_there(closed, name):
    for asked in (is_file, is_directory, is_there):
        assert asked(closed / name) is False
    assert is_file(__file__) and is_directory(closed.parent) and is_there(closed)


@pytest.mark.usefixtures("plain_output_and_nobodys_files")
@pytest.mark.parametrize("name", ["a.jpg", LONG])
def test_a_photograph_that_cannot_be_asked_about_is_refused(infer, closed, name):
    failed(infer(closed / name), InputError, "error: ")


@pytest.mark.usefixtures("plain_output_and_nobodys_files")
def test_a_name_that_is_too_long_is_refused(infer):
    failed(infer(LONG), InputError, "error: ")
    failed(infer(f"{LONG}.mp4"), InputError, "error: ")
    failed(infer(f"{LONG}/%04d.png"), OutputError, "File name too long")
    failed(infer(PHOTO, output=LONG), OutputError, "File name too long")


@pytest.mark.parametrize("name", [LONG, "a\0b", "a" * 5000])
def test_a_bundle_that_cannot_be_asked_about_is_refused(tmp_path, name):
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / name)


def test_a_file_of_a_bundle_that_is_a_pipe_is_not_waited_for(bundle):
    name = Bundle.open(bundle).manifest.graph.file.file
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("reader", ["detector", "motion", "motion.json", "meshes", "skin", "video", "boxes", "page"])
def test_only_regular_files_are_read(tmp_path, make, reader):
    from glnet_infer import Meshes, Motion, Skin
    from glnet_infer.commands.photograph_inputs import read_boxes
    from glnet_infer.detection import open_detector
    from glnet_infer.video.sources import open_source
    from glnet_infer.viewer.page import _read_video

    reads, suffix = {
        "detector": (open_detector, ".onnx"),
        "motion": (Motion.load, ".npz"),
        "motion.json": (Motion.load, ".json"),
        "meshes": (Meshes.load, ".npz"),
        "skin": (Skin.load, ".npz"),
        "video": (open_source, ".mp4"),
        "boxes": (lambda path: read_boxes(path, []), ".json"),
        "page": (_read_video, ".mp4"),
    }[reader]
    path = tmp_path / f"odd{suffix}"
    make(path)
    with pytest.raises(InputError):
        reads(path)


def test_kernels_are_kept_in_the_bundle_alone_where_there_is_no_home(monkeypatch):
    from glnet_infer.backends import cache_files

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_files._users_cache() == []
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_files._users_cache() == [Path("/var/cache/glnet-infer")]


@pytest.mark.parametrize(
    "reason, words",
    [
        ("libonnxruntime.so.1: failed to map segment from shared object", "cannot be loaded"),
        ("libonnxruntime.so.1: cannot allocate memory in static TLS block", "cannot be loaded"),
        ("No module named 'onnxruntime'", "not installed"),
    ],
)
def test_a_library_that_did_not_fit_is_not_called_missing(monkeypatch, reason, words):
    import builtins

    original = builtins.__import__

    def failing(name, *arguments, **options):
        if name == "onnxruntime":
            raise ImportError(reason)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", failing)
    with pytest.raises(BackendError, match=words) as error:
        import_onnxruntime()
    assert reason in error.value.why
