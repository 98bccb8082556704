"""Archives in, result files out: ``glnet-infer --ray``. Many processes do what one does otherwise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glnet_infer.bundle import Bundle
from glnet_infer.commands.console import print_json, print_result, report, say, talk
from glnet_infer.commands.photograph_inputs import in_words
from glnet_infer.commands.photographs import Job, shows_progress
from glnet_infer.commands.video_jobs import VideoJob, name_of
from glnet_infer.commands.videos import check_skin, say_summary
from glnet_infer.detection import detector_file
from glnet_infer.errors import GlnetError, InputError
from glnet_infer.files import is_directory
from glnet_infer.jobs.actor import MOTION_SUFFIXES, Started
from glnet_infer.jobs.items import Item, Join, Orders, Outcome, Photographs, Survey, groups
from glnet_infer.jobs.notes import check_boxes, check_record, is_done
from glnet_infer.jobs.photographs import file_of
from glnet_infer.jobs.ray_pool import RayPool, installed_ray
from glnet_infer.jobs.run import Died, Run
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window, is_live, is_pattern

SECONDS_ON_TERMINAL, SECONDS_IN_LOG = 10.0, 60.0
"""From one line that says how far a run is to the next, where no bar is shown."""


@dataclass(frozen=True)
class Actors:
    """Who shall do the work.

    Attributes:
        address: Where Ray runs, or ``local``.
        number: How many actors.
        gpus: GPUs of each.
        backend: What runs the network.
        threads: Threads of CPU kernels of each.
    """

    address: str
    number: int
    gpus: float
    backend: str
    threads: int


def photographs(job: Job, bundle: Path, actors: Actors, *, as_json: bool) -> int:
    """Do photographs.

    Returns:
        The exit code: the first failed photograph's.

    Raises:
        GlnetError: Nothing could be started.
    """
    installed_ray()  # before anything is written
    options = FollowOptions(score=job.threshold, most=job.most, intrinsics=job.intrinsics)
    orders = _orders(bundle, actors, job.output, job.detector, job.formats, options)
    results = {path: [file_of(path, job.output, name) for name in job.formats] for path in job.images}
    check_record(orders, [file for files in results.values() for file in files])
    found = {path.name for path in orders.output.iterdir()}
    if job.left_out:
        say(f"Left out, as no images that are read, {in_words(job.left_out)}", style="yellow")
    done = {path for path, files in results.items() if all(file.name in found for file in files)}
    check_boxes(orders, job.boxes, done)
    heard = _Heard(as_json, len(done))
    absolute = {path: path.absolute() for path in job.images}
    to_do = [absolute[path] for path in job.images if path not in done]
    items = groups(to_do, {absolute[path]: each for path, each in job.boxes.items()})
    _run(orders, actors, heard, items, [])
    return heard.finish(bundle, job.detector, "images", [str(absolute[path]) for path in job.images], job.left_out)


def videos(job: VideoJob, bundle: Path, actors: Actors, *, as_json: bool) -> int:
    """Do videos.

    Returns:
        The exit code: the first failed video's.

    Raises:
        GlnetError: Nothing could be started.
    """
    for source in job.sources:
        if is_live(source) or is_pattern(source) or is_directory(source):
            raise InputError(
                f"{source} cannot be cut into chunks.", why="--ray takes files of videos", fix="leave --ray out"
            )
    for name in job.formats:
        if name not in MOTION_SUFFIXES:
            raise InputError(
                f"The format {name} does not go with --ray.",
                why="it needs the frames once more, in order",
                fix=f"formats of archives: {', '.join(MOTION_SUFFIXES)}",
            )
    installed_ray()
    check_skin(job, Bundle.open(bundle).skin() is not None)
    orders = _orders(bundle, actors, job.output, job.detector, job.formats, job.options, job)
    suffixes = [MOTION_SUFFIXES[name] for name in job.formats]
    begun = [job.output / f"{name_of(source)}{suffix}" for source in job.sources for suffix in suffixes]
    check_record(orders, begun)
    surveys = {source: Survey(str(Path(source).absolute()), name_of(source)) for source in job.sources}
    done = {source for source, survey in surveys.items() if is_done(orders, survey.video, survey.name)}
    heard = _Heard(as_json, len(done), job)
    _run(orders, actors, heard, [], [survey for source, survey in surveys.items() if source not in done])
    return heard.finish(bundle, job.detector, "videos", [survey.video for survey in surveys.values()], [])


def _orders(
    bundle: Path,
    actors: Actors,
    output: Path,
    detector: str | None,
    formats: Sequence[str],
    options: FollowOptions,
    video: VideoJob | None = None,
) -> Orders:
    opened = Bundle.open(bundle)
    file = None if detector is None else detector_file(detector)
    return Orders(
        bundle=str(bundle.absolute()),
        bundle_hash=opened.manifest.graph.file.sha256,
        backend=actors.backend,
        threads=actors.threads,
        detector=detector if file is None else str(file._replace(path=file.path.absolute())),
        detector_hash="" if file is None else file.sha256(),
        output=output.absolute(),
        formats=tuple(formats),
        options=options,
        window=Window() if video is None else video.window,
        smooth=video is None or video.smooth,
    )


def _run(
    orders: Orders, actors: Actors, heard: _Heard, photographs: Sequence[Photographs], videos: Sequence[Survey]
) -> None:
    if not (photographs or videos):
        say("All is done already.")
        return
    say(f"Starting Ray and {actors.number} actor{'s' if actors.number > 1 else ''}, which takes some seconds")
    with (
        RayPool(orders, actors.address, actors=actors.number, gpus=actors.gpus) as pool,
        Progress(
            TextColumn("items"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=talk, disable=not shows_progress(),
        ) as progress,
    ):  # fmt: skip
        heard.bar = None if progress.disable else progress
        try:
            Run(orders, pool, actors.number, heard)(photographs, videos)
        except KeyboardInterrupt:
            say("Stopped. What is done is kept, and the same command goes on.")
            raise


@dataclass
class _Heard:
    """What happens, told to people as it comes, and kept for the document.

    Attributes:
        as_json: Whether there will be a document; else files are listed.
        earlier: How many inputs an earlier run has done.
        video: The videos' job; None for photographs.
    """

    as_json: bool
    earlier: int
    video: VideoJob | None = None
    bar: Progress | None = None
    backend: str = ""
    deaths: int = 0
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, GlnetError] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    told: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.earlier:
            say(f"{self.earlier} were done by an earlier run")

    def started(self, started: Started) -> None:
        """Say what runs."""
        self.backend = started.backend
        say(started.described)
        for note in started.notes:
            say(note, style="yellow")

    def done(self, item: Item, outcome: Outcome) -> None:
        """Say what came of an item, and list its files."""
        for text, style in outcome.messages:
            say(text, style)
        self.items.append({"kind": type(item).__name__.lower(), "inputs": len(item.inputs), "seconds": outcome.seconds})
        for name, entry in zip(item.inputs, outcome.entries, strict=False):
            name = entry.get("image", name)
            if name in outcome.failures:
                self._failed(name, outcome.failures[name], entry)
            elif isinstance(item, Photographs | Join):
                self.entries[name] = entry
                if isinstance(item, Join) and self.video is not None:
                    say_summary(entry, name, self.video)
                if not self.as_json:
                    for file in entry.get("files", ()):
                        print_result(file)

    def died(self, item: Item | None, died: Died) -> None:
        """Say that an actor died."""
        self.deaths += 1
        at = "while it started" if item is None else f"over {item.inputs[0]}"
        more = f" and {len(item.inputs) - 1} more" if item is not None and len(item.inputs) > 1 else ""
        say(f"An actor died {at}{more}: {died.reason}", style="yellow")

    def refused(self, error: GlnetError) -> None:
        """Say that an actor is missing, once for each reason."""
        if str(error) not in self.said:
            self.said.add(str(error))
            say(f"An actor cannot work, and the others go on: {error}", style="yellow")

    def set_aside(self, name: str, error: InputError) -> None:
        """Report it, as any input that fails."""
        self._failed(name, error, {"image" if self.video is None else "video": name})

    def progress(self, done: int, total: int) -> None:
        """Move the bar; or say it now and then."""
        if self.bar is None:
            now = time.monotonic()
            if now - self.told >= (SECONDS_ON_TERMINAL if talk.is_terminal else SECONDS_IN_LOG):
                self.told = now
                say(f"{done} of {total} items are done")
        else:
            if not self.bar.tasks:
                self.bar.add_task("")
            self.bar.update(self.bar.tasks[0].id, completed=done, total=total)

    def _failed(self, name: str, error: GlnetError, entry: dict[str, Any]) -> None:
        self.failures.setdefault(name, report(name, error, entry))
        self.entries[name] = entry

    def finish(self, bundle: Path, detector: str | None, kind: str, names: Sequence[str], left_out: Sequence[Path]) -> int:
        """Print the document, where one is wanted; the exit code."""
        if self.as_json:
            document: dict[str, Any] = {"bundle": str(bundle), "backend": self.backend, "detector": detector}
            document |= {"left_out": list(map(str, left_out))} if kind == "images" else {}
            document |= {"done_earlier": self.earlier, "actors_died": self.deaths, "items": self.items}
            print_json({**document, kind: [self.entries[name] for name in names if name in self.entries]})
        return next((self.failures[name].exit_code for name in names if name in self.failures), 0)
