"""Photographs in threads: what is told when the work is broken off, and what other threads say on stderr."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_infer.detection import Detections
from glnet_infer.jobs.photographs import PhotographWork, Wanted


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.files = []

    def say(self, text, style=""):
        """Nobody reads it here."""

    def failed(self, name, error, entry):
        raise error

    def written(self, files):
        self.files += [Path(file).name for file in files]


@pytest.fixture
def photographs(tmp_path, photograph):
    small = cv2.resize(photograph, (300, 200), interpolation=cv2.INTER_AREA)
    paths = [tmp_path / f"{number}.jpg" for number in range(8)]
    for path in paths:
        cv2.imwrite(str(path), small)
    return paths


def everybody(image):
    """Two persons in every image."""
    return Detections(np.array([[20.0, 10, 150, 190], [150, 10, 280, 190]]), np.array([0.9, 0.8], np.float32))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("breaks", [KeyboardInterrupt, SystemExit])
def test_all_files_that_were_written_are_told_when_the_work_is_broken_off(
    recoverer, photographs, tmp_path, monkeypatch, threads, breaks
):
    told, calls = Told(), []
    recover = type(recoverer).recover

    def broken(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise breaks
        return recover(self, images)

    monkeypatch.setattr(type(recoverer), "recover", broken)
    monkeypatch.setattr(type(recoverer), "fits", lambda self, images: len(images) <= 3)
    (tmp_path / "out").mkdir()
    wanted = Wanted(tmp_path / "out", ["npz", "overlay"], None, None)
    with pytest.raises(breaks), PhotographWork(recoverer, everybody, wanted, told, threads) as work:
        for path in photographs:
            work.add(path, None)
        work.finish()
    assert calls == [3, 3] and sorted(told.files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert threads > 1 or len(told.files) == 6


def test_what_a_detectors_thread_says_on_stderr_is_shown(recoverer, photographs, tmp_path, capfd):
    def talks(image):
        for _ in range(200):
            os.write(2, b"a line of a library\n")
        return everybody(image)

    wanted = Wanted(tmp_path, ["json"], None, None)
    with PhotographWork(recoverer, talks, wanted, Told(), 3) as work:
        for path in photographs:
            work.add(path, None)
        work.finish()
    assert capfd.readouterr().err == 1600 * "a line of a library\n"
