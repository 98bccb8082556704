"""What is to be done: photographs in groups, videos in chunks. Plain data, which any process can be sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glnet_infer.errors import GlnetError, InputError
from glnet_infer.files import is_file, read_json, replace_file
from glnet_infer.jobs.photographs import file_of
from glnet_infer.version import __version__
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window

FOLDER = "jobs"
"""Folder in the output for what a later run goes on with. Results lie beside it, and none is called so."""

PHOTOGRAPHS = 16
"""Photographs of an item: some seconds of work, so that sending them costs nothing."""

FRAMES = 240
"""Least frames of a chunk. Shorter ones find more seams, longer ones lose more work with an actor."""

_RERUN = "give another -o, or the options of the first run"


@dataclass(frozen=True)
class Orders:
    """What every actor must know.

    Attributes:
        bundle: The bundle, where all machines find it.
        bundle_hash: SHA-256 of its graph.
        backend: What runs the network.
        threads: Threads of CPU kernels of an actor.
        detector: Name or file of the detector; None where all boxes are given.
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

    def record(self) -> dict[str, Any]:
        """What the results depend on, as plain values."""
        return {
            "version": __version__,
            "bundle": self.bundle_hash,
            "detector": self.detector,
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
    """

    number: int
    window: Window


@dataclass(frozen=True)
class Join(_OfVideo):
    """Follow a video by what was seen in its chunks, smooth its motion, write its files.

    Attributes:
        chunks: How many there are.
    """

    chunks: int


Item = Photographs | Survey | Chunk | Join


@dataclass(frozen=True)
class Outcome:
    """What came of an item.

    Attributes:
        entries: Results of each input, or its error, as ``--json`` prints them.
        messages: What people shall be told, each with its style.
        failures: The inputs that failed, and how.
        seconds: Time that the item took.
        starts: Where the chunks of a surveyed video begin, in seconds.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[str, GlnetError] = field(default_factory=dict)
    seconds: float = 0.0
    starts: list[float] = field(default_factory=list)


def groups(paths: Sequence[Path], boxes: dict[Path, Any], size: int = PHOTOGRAPHS) -> list[Photographs]:
    """Photographs in groups, in their order."""
    return [
        Photographs(tuple(map(str, group)), tuple(boxes[path] for path in group))
        for group in (paths[start : start + size] for start in range(0, len(paths), size))
    ]


def folder_of(orders: Orders, name: str) -> Path:
    """Where what is seen in a video's chunks is kept until they are joined."""
    return orders.output / FOLDER / "videos" / name


def recording_of(orders: Orders, name: str, number: int) -> Path:
    """The file of a chunk."""
    return folder_of(orders, name) / f"{number:06d}.npz"


def keep_starts(orders: Orders, survey: Survey, starts: list[float]) -> None:
    """Keep where a video's chunks begin, so that a later run cuts it at the same places.

    Raises:
        OutputError: It cannot be written.
    """
    document = {**_identity(survey.video), "starts": starts}
    replace_file(folder_of(orders, survey.name) / "survey.json", json.dumps(document).encode())


def kept_starts(orders: Orders, survey: Survey) -> list[float] | None:
    """Where a video's chunks begin; None where nobody knows, or the video was changed."""
    path = folder_of(orders, survey.name) / "survey.json"
    if not is_file(path):
        return None
    try:
        document = read_json(path, InputError, fix="")
        identity, starts = _identity(survey.video), document.pop("starts")
        good = document == identity and all(isinstance(start, float) for start in starts)
    except (InputError, AttributeError, KeyError, TypeError):
        return None
    return starts if good else None


def _identity(video: str) -> dict[str, Any]:
    state = Path(video).stat()
    return {"version": 1, "bytes": state.st_size, "modified": state.st_mtime_ns}


def check_record(orders: Orders, results: Sequence[Path]) -> None:
    """Note what the results depend on, so that a later run with the same output does not mix in others.

    Args:
        orders: What is wanted.
        results: The files that would be written.

    Raises:
        InputError: The output holds results of other options or another bundle, or of a run that noted nothing.
        OutputError: It cannot be noted.
    """
    path = orders.output / FOLDER / "job.json"
    record = orders.record()
    if not is_file(path) or not _is_begun(orders.output):
        there = next((file for file in results if is_file(file)), None)
        if there is not None:
            raise InputError(
                f"{there} is there already.",
                why="nothing says which bundle and options it comes from, and results that are there are not made again",
                fix="give another -o, or remove it",
            )
        replace_file(path, json.dumps(record, indent=2).encode())
        return
    known = read_json(path, InputError, fix=_RERUN)
    differing = [key for key in record if not isinstance(known, dict) or known.get(key) != record[key]]
    if differing:
        raise InputError(
            f"{orders.output} holds results of another run.", why=f"it differs in: {', '.join(differing)}", fix=_RERUN
        )


def _is_begun(output: Path) -> bool:
    """Whether a run has left anything in an output but the note of what it wanted."""
    inside = (*output.iterdir(), *(output / FOLDER).iterdir(), *(output / FOLDER / "videos").iterdir())
    return any(path.name not in (FOLDER, "videos", "job.json") for path in inside if not path.name.startswith("."))


def read_set_aside(output: Path) -> dict[str, InputError]:
    """Inputs that were set aside by an earlier run, and why.

    Raises:
        InputError: The list cannot be read.
    """
    path = output / FOLDER / "set-aside.json"
    if not is_file(path):
        return {}
    fix = f"correct it, or remove it, and all that it names is tried again: {path}"
    document = read_json(path, InputError, fix=fix)
    try:
        return {name: InputError(each["what"], why=each["why"], fix=each["fix"]) for name, each in document.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no list of inputs that were set aside.", fix=fix) from error


def write_set_aside(output: Path, errors: dict[str, InputError]) -> None:
    """Write down which inputs were set aside, and why.

    Raises:
        OutputError: It cannot be written.
    """
    document = {name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in errors.items()}
    replace_file(output / FOLDER / "set-aside.json", json.dumps(document, indent=2).encode())
