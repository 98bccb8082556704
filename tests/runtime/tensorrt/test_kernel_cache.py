"""Kernels that TensorRT for RTX keeps: where they lie, when they are written, and what is said where they cannot be."""

import os
from pathlib import Path

import pytest
from tensorrt_stand_in import batch

from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.bundle import Bundle


def run_once(bundle, **options):
    with TensorRtBackend(bundle, **options) as backend:
        backend.run(*batch(2))


def test_kernels_are_kept_in_the_bundle_and_used_again(rtx, machine):
    run_once(rtx)
    record = rtx.manifest.engines[0]
    [file] = (rtx.directory / "cache").iterdir()
    assert file.name == f"{record.file.sha256[:16]}.nvidia-l4.cache"
    assert file.read_bytes() == b"kernels of 1.7.1.116 for 2"
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels == b"kernels of 1.7.1.116 for 2"
    assert Bundle.open(rtx.directory).manifest == rtx.manifest


def test_kernels_that_are_refused_are_replaced(rtx, machine):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    file.write_bytes(b"kernels of 1.6.0.1 for 2")
    with TensorRtBackend(rtx) as backend:
        assert machine.configs[-1]._cache._kernels == b""
        backend.run(*batch(4))
    assert file.read_bytes() == b"kernels of 1.7.1.116 for 4"
    assert list(file.parent.iterdir()) == [file]  # nothing half-written beside it


def test_kernels_go_where_they_are_asked_to_go(rtx, tmp_path):
    run_once(rtx, cache_directory=tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1 and not (rtx.directory / "cache").exists()


def test_a_bundle_that_cannot_be_written_leaves_kernels_with_the_user(rtx, machine, tmp_path):
    (rtx.directory / "cache").write_bytes(b"a file where the folder would be")  # root may write anywhere else
    run_once(rtx)
    assert len(list((tmp_path / "user-cache/glnet-infer").iterdir())) == 1
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels


def test_outdated_kernels_in_a_bundle_hide_none_of_the_users(rtx, machine, tmp_path):
    run_once(rtx, cache_directory=tmp_path / "user-cache/glnet-infer")
    [kept] = (tmp_path / "user-cache/glnet-infer").iterdir()
    (rtx.directory / "cache").mkdir()
    outdated = rtx.directory / "cache" / kept.name
    outdated.write_bytes(b"kernels of 1.6.0.1 for 2")
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels == kept.read_bytes()
    assert outdated.read_bytes() == b"kernels of 1.6.0.1 for 2"  # nothing changed, so nothing is written


def test_kernels_that_cannot_be_kept_are_said(rtx, tmp_path):
    (tmp_path / "blocked").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="compiled kernels were not kept"):
        run_once(rtx, cache_directory=tmp_path / "blocked")


def test_kernels_that_did_not_change_are_not_written(rtx):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    before = file.stat().st_ino
    run_once(rtx)
    assert file.stat().st_ino == before


def test_an_interrupted_write_keeps_the_old_kernels(rtx, monkeypatch):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    old = file.read_bytes()
    backend = TensorRtBackend(rtx)
    backend.run(*batch(6))

    def broken(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.warns(RuntimeWarning, match="No space left"):
        backend.close()
    assert file.read_bytes() == old and list(file.parent.iterdir()) == [file]


def test_only_the_last_clone_writes_the_kernels(rtx):
    first = TensorRtBackend(rtx)
    second = first.clone()
    first.run(*batch(2))
    first.close()
    assert not (rtx.directory / "cache").exists()
    second.close()
    assert (rtx.directory / "cache").is_dir()


def test_tensorrt_keeps_nothing(classic):
    run_once(classic)
    assert not (classic.directory / "cache").exists()


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_kernels_are_not_written_through_links(rtx, machine, tmp_path, linked):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    name = file.name
    file.unlink()
    victim = tmp_path / "elsewhere" / name
    victim.parent.mkdir()
    victim.write_bytes(b"years of work")
    if linked == "folder":
        (rtx.directory / "cache").rmdir()
        (rtx.directory / "cache").symlink_to(victim.parent)
    else:
        (rtx.directory / "cache" / name).symlink_to(victim)
    run_once(rtx)
    assert victim.read_bytes() == b"years of work"
    assert (tmp_path / "user-cache/glnet-infer" / name).read_bytes().startswith(b"kernels")  # where else they go


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_kernels_are_not_waited_for(rtx, machine):
    run_once(rtx)
    [file] = (rtx.directory / "cache").iterdir()
    file.unlink()
    os.mkfifo(file)
    with TensorRtBackend(rtx):
        assert machine.configs[-1]._cache._kernels == b""
