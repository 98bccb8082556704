"""What is to be done: photographs in groups, videos in chunks. Plain data, which any process can be sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from glnet_infer.errors import GlnetError
from glnet_infer.files import is_file
from glnet_infer.jobs.photographs import file_of
from glnet_infer.version import __version__
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window

PHOTOGRAPHS = 16
"""Photographs of an item: some seconds of work, so that sending them costs nothing."""

FRAMES = 240
"""Least frames of a chunk. Shorter ones find more seams, longer ones lose more work with an actor."""


@dataclass(frozen=True)
class Orders:
    """What every actor must know.

    Attributes:
        bundle: The bundle, where all machines find it.
        bundle_hash: SHA-256 of its graph.
        backend: What runs the network.
        threads: Threads of CPU kernels of an actor.
        detector: Name of the detector, or its file with its family; None where all boxes are given.
        detector_hash: SHA-256 of the detector's file; empty for one of the table.
        output: Directory for results.
        formats: Which files to write.
        options: How persons are found and followed; photographs take its score, number of persons and camera.
        window: Which frames of videos are taken.
        smooth: Whether motions are smoothed.
        chunk_frames: Least frames of a video's chunk.
    """

    bundle: str
    bundle_hash: str
    backend: str
    threads: int
    detector: str | None
    output: Path
    formats: tuple[str, ...]
    options: FollowOptions
    window: Window = field(default_factory=Window)
    smooth: bool = True
    chunk_frames: int = FRAMES
    detector_hash: str = ""

    def record(self) -> dict[str, Any]:
        """What the results depend on, as plain values."""
        return {
            "version": __version__,
            "bundle": self.bundle_hash,
            "backend": self.backend,
            "detector": Path(self.detector).name if self.detector and self.detector_hash else self.detector,
            "detector_hash": self.detector_hash,
            "options": json.loads(json.dumps(asdict(self.options))),
            "window": list(self.window),
            "smooth": self.smooth,
        }


@dataclass(frozen=True)
class Photographs:
    """Photographs that are done together.

    Attributes:
        paths: The photographs.
        boxes: Boxes of each one's persons; None where the detector finds them.
    """

    paths: tuple[str, ...]
    boxes: tuple[Any, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Whose fault it is if it fails."""
        return self.paths

    def left(self, orders: Orders) -> Photographs:
        """Those that are not done yet."""
        kept = [
            (path, boxes)
            for path, boxes in zip(self.paths, self.boxes, strict=True)
            if not all(is_file(file_of(Path(path), orders.output, name)) for name in orders.formats)
        ]
        return Photographs(tuple(path for path, _ in kept), tuple(boxes for _, boxes in kept))

    def alone(self) -> list[Photographs]:
        """Each photograph by itself."""
        return [Photographs((path,), (boxes,)) for path, boxes in zip(self.paths, self.boxes, strict=True)]


class Cut(NamedTuple):
    """Where a chunk of a video begins.

    Attributes:
        start: Seconds.
        frames: How many are decoded from there to the next chunk; None where nobody knows.
    """

    start: float
    frames: int | None


@dataclass(frozen=True)
class _OfVideo:
    video: str
    name: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Whose fault it is if it fails."""
        return (self.video,)


@dataclass(frozen=True)
class Survey(_OfVideo):
    """Find out where a video's chunks begin."""


@dataclass(frozen=True)
class Chunk(_OfVideo):
    """See the persons of one chunk of a video.

    Attributes:
        number: Place of the chunk, from 0 on.
        window: The chunk's frames.
        frames: See :class:`Cut`.
    """

    number: int
    window: Window
    frames: int | None


@dataclass(frozen=True)
class Join(_OfVideo):
    """Follow a video by what was seen in its chunks, smooth its motion, write its files.

    Attributes:
        chunks: How many there are.
        frames: How many are decoded in all of them; None where nobody knows.
    """

    chunks: int
    frames: int | None


Item = Photographs | Survey | Chunk | Join


@dataclass(frozen=True)
class Outcome:
    """What came of an item.

    Attributes:
        entries: Results of each input, or its error, as ``--json`` prints them.
        messages: What people shall be told, each with its style.
        failures: The inputs that failed, and how.
        seconds: Time that the item took.
        cuts: The chunks of a surveyed video.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[str, GlnetError] = field(default_factory=dict)
    seconds: float = 0.0
    cuts: list[Cut] = field(default_factory=list)


def groups(paths: Sequence[Path], boxes: dict[Path, Any], size: int = PHOTOGRAPHS) -> list[Photographs]:
    """Photographs in groups, in their order."""
    return [
        Photographs(tuple(map(str, group)), tuple(boxes[path] for path in group))
        for group in (paths[start : start + size] for start in range(0, len(paths), size))
    ]
