"""What ``glnet-infer`` shall do with videos, checked before anything is begun."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from glnet_infer.camera import Intrinsics
from glnet_infer.commands.typed import VIDEO_FORMATS, check_formats, check_no_detector
from glnet_infer.detection import DEFAULT_DETECTOR, DEFAULT_THRESHOLD
from glnet_infer.errors import InputError
from glnet_infer.files import is_directory, is_there
from glnet_infer.video.following import CONFIDENCE, DETECT_EVERY, FollowOptions
from glnet_infer.video.sources import Window, camera_number, is_live, is_pattern, is_video, shown

DEFAULT_FORMATS = ("overlay", "npz")


@dataclass(frozen=True)
class VideoJob:
    """Checked work.

    Attributes:
        sources: What is opened, each with a name of its own.
        output: Directory for results.
        detector: Name or file of the detector.
        options: How persons are followed.
        window: Which frames are taken.
        fps: Frames per second of numbered images, where it was typed.
        smooth: Whether poses are smoothed.
        formats: Which files to write.
    """

    sources: list[str]
    output: Path
    detector: str
    options: FollowOptions
    window: Window
    fps: float | None
    smooth: bool
    formats: list[str]

    @classmethod
    def parse(
        cls,
        *,
        sources: list[str],
        output: Path,
        detector: str | None,
        threshold: float | None,
        most: int | None,
        intrinsics: Intrinsics | None,
        start: float | None,
        end: float | None,
        every: int | None,
        fps: float | None,
        detect_every: float | None,
        confidence: float | None,
        smooth: bool,
        formats: list[str],
    ) -> VideoJob:
        """Check what was typed.

        Raises:
            InputError: Something was mistyped, or does not fit together.
        """
        formats = check_formats(formats, VIDEO_FORMATS, DEFAULT_FORMATS, " for videos")
        check_no_detector({"--detector": detector, "--detector-threshold": threshold, "--max-persons": most})
        sources = list(dict.fromkeys(sources))
        _check_sources(sources, fps)
        _check_files(sources, output, formats)
        options = FollowOptions(
            detect_every=DETECT_EVERY if detect_every is None else detect_every,
            score=DEFAULT_THRESHOLD if threshold is None else threshold,
            most=most,
            confidence=CONFIDENCE if confidence is None else confidence,
            intrinsics=intrinsics,
        )
        window = Window(start, end, every or 1)
        window.check()
        return cls(sources, output, detector or DEFAULT_DETECTOR, options, window, fps, smooth, formats)


def _check_sources(sources: list[str], fps: float | None) -> None:
    """Refuse what is no video, and files that are not there.

    Raises:
        InputError: One is a photograph or a folder of them, or is missing.
    """
    videos = [source for source in sources if is_video(source) or (fps is not None and is_directory(source))]
    others = [source for source in sources if source not in videos]
    # Nothing has been begun: whoever mistyped one name corrects it and starts anew.
    files = [source for source in sources if not is_live(source) and not is_pattern(source)]
    missing = [file for file in files if not is_there(file)]
    if missing:
        raise InputError(f"There is no file {missing[0]}.", fix="check the path")
    if others and videos:
        raise InputError(
            f"{others[0]} is no video, and {videos[0]} is one.",
            why="options and files differ",
            fix="call glnet-infer once for photographs and once for videos; a folder of numbered images needs --fps",
        )
    if others:
        raise InputError(
            f"--fps does not fit {others[0]}.",
            why="it is the rate of numbered images",
            fix="leave it out, or give a folder of numbered images or a pattern such as frames/%04d.png",
        )


def _check_files(sources: list[str], output: Path, formats: list[str]) -> None:
    """Refuse results that would replace each other, or a source.

    Raises:
        InputError: Two sources have results of one name, or a result has the place of a source.
    """
    given = {os.path.realpath(source): source for source in sources if not is_live(source)}
    written: dict[Path, str] = {}
    for source in sources:
        for path in (output / f"{name_of(source)}{VIDEO_FORMATS[name]}" for name in formats):
            other = written.setdefault(path, source)
            if other != source:
                raise InputError(
                    f"{shown(other)} and {shown(source)} would be written to the same files.",
                    why="results are named after the video",
                    fix="call glnet-infer once for each, with different -o",
                )
            if os.path.realpath(path) in given:
                raise InputError(
                    f"{given[os.path.realpath(path)]} would be replaced by a result of {shown(source)}.",
                    why="results are named after the video",
                    fix="leave it out, or give another -o",
                )


def name_of(source: str) -> str:
    """What a source's results are called: a file's name, ``camera-0``, the end of an address, or a folder's name."""
    camera = camera_number(source)
    if camera is not None:
        return f"camera-{camera}"
    if is_live(source):
        try:
            address = urlsplit(source)
            text = Path(address.path).stem or address.hostname or ""
        except ValueError:  # it is no address; whoever opens it says so
            text = ""
    elif is_directory(source):
        return Path(source).resolve().name or "images"
    elif is_pattern(source):
        text = Path(source).resolve().parent.name or "images"
    else:
        return Path(source).stem
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "stream"
