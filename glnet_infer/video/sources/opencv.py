"""Webcams read by OpenCV; files and network streams too, where PyAV is not installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError, install_hint
from glnet_infer.files import utf8_name
from glnet_infer.native_messages import quiet
from glnet_infer.video.sources.base import READABLE, Clock, RawFrame, SourceFacts, check_size

OPEN_MILLISECONDS, READ_MILLISECONDS = 15_000, 10_000

USUAL_RATE = 30.0
"""Frames per second of a camera that does not say."""

_TIME_BASE = Fraction(1, 90_000)
"""Seconds. OpenCV gives times in floating point, and no unit; this one holds all usual frame rates."""


class OpenCvReader:
    """Frames of a camera, a file or a network stream.

    Args:
        location: Number of a camera, path or address.
        name: What messages call it.

    Raises:
        InputError: There is no such camera, or it holds no pictures that OpenCV decodes, or pictures that are too large.
    """

    def __init__(self, location: int | Path | str, name: str) -> None:
        self._live, self._camera = not isinstance(location, Path), isinstance(location, int)
        self.skipped, self.ended_early = 0, ""
        self.notes: tuple[str, ...] = ()
        with quiet:
            if isinstance(location, int):
                self._capture = cv2.VideoCapture(location)
            else:
                limits = [
                    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                    OPEN_MILLISECONDS,
                    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                    READ_MILLISECONDS,
                ]
                # "file:" keeps a name with a colon from being taken for an address.
                address = location if isinstance(location, str) else f"file:{location.absolute()}"
                try:
                    address = utf8_name(address)
                except ValueError as error:
                    raise InputError(
                        f"The video {name} was not read.", why=str(error), fix=f"rename it; or {install_hint('video')}"
                    ) from error
                self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
        try:
            self._begin(location, name)
        except BaseException:
            self.close()
            raise

    def _begin(self, location: int | Path | str, name: str) -> None:
        check_size(
            name, int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        )
        if not (self._capture.isOpened() and self._capture.grab()):
            raise _unreadable(location, name)
        found = self._retrieved()
        if found is None:
            raise _unreadable(location, name)
        height, width = found.shape[:2]
        check_size(name, width, height)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0.01 <= rate <= 1000 else USUAL_RATE
        count = 0 if self._live else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.facts = SourceFacts(
            name,
            width,
            height,
            rate=rate,
            time_base=_TIME_BASE,
            live=self._live,
            duration=count / rate if count > 0 else None,
            frames=count if count > 0 else None,
            lost=() if self._camera else ("sound", "a count of damaged frames"),
            remedy="" if self._camera else install_hint("video"),
        )

    def __iter__(self) -> Iterator[RawFrame]:
        clock, arrived = Clock(from_zero=self._live), time.monotonic()
        step = 1 / Fraction(self.facts.rate)
        index, grabbed = 0, True  # the first frame, which opening has read
        while grabbed:
            now = time.monotonic()
            stamp = Fraction(now) if self._camera else Fraction(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            if self._live:
                step = max(Fraction(now - arrived), Fraction(1, 1000))
            arrived = now
            yield RawFrame(index, clock(stamp, step), partial(self._retrieved))
            index, grabbed = index + 1, self._capture.grab()
        if self._live:
            self.ended_early = "no more frames came"

    def close(self) -> None:
        """Let go of the camera or file."""
        self._capture.release()

    def _retrieved(self) -> NDArray[np.uint8] | None:
        try:
            done, image = self._capture.retrieve()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if done and image is not None and image.ndim == 3 else None


def _unreadable(location: int | Path | str, name: str) -> InputError:
    if isinstance(location, int):
        return InputError(
            f"There is no picture from {name}.",
            why="OpenCV finds no such camera, or another program holds it",
            fix="check that it is connected (ls /dev/video*), or give another number",
        )
    if isinstance(location, str):
        return InputError(
            f"{name} cannot be opened.",
            why="OpenCV got no picture from it",
            fix="check the address, and that the camera or server is on",
        )
    return InputError(
        f"{name} is not a video that can be read.", why="OpenCV finds no picture that it can decode", fix=READABLE
    )
