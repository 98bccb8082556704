"""Videos in, motion out: what ``glnet-infer`` does with clips, webcams and streams once its command line is parsed."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from glnet_infer.claims import temporary_folder
from glnet_infer.commands.console import behind_camera, print_json, print_result, report, say, talk
from glnet_infer.commands.opening import opened
from glnet_infer.commands.typed import VIDEO_FORMATS
from glnet_infer.commands.video_jobs import VideoJob, name_of
from glnet_infer.detection import Detector, open_detector
from glnet_infer.errors import InputError
from glnet_infer.files import Replacement, told_as_output
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.drawing import color_of
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import MISSING
from glnet_infer.results.skin import Skin
from glnet_infer.video.following import UNSURE, FollowedFrame
from glnet_infer.video.pipeline import Pipeline, each, on_interrupt
from glnet_infer.video.session import Following
from glnet_infer.video.sources import Source, open_source, shown
from glnet_infer.video.writers import VideoWriter

OF_THE_SKIN = ("glb", "html")
"""Formats that hold meshes, which the body's skin poses."""

OF_ONE_PERSON = ("bvh", "amass")
"""Formats that hold one person: of several, each has a file."""

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended, as shells give it."""


def run(job: VideoJob, bundle: Path, *, backend: str, threads: int | None, as_json: bool) -> int:
    """Do the work, video by video; files written are listed on stdout, or all in one JSON document.

    Returns:
        The exit code: the first failed video's, or 130 where Ctrl-C ended a recording before its end.

    Raises:
        GlnetError: Nothing could be started.
    """
    detector = open_detector(job.detector, threshold=min(UNSURE, job.options.score), threads=threads)
    entries: list[dict[str, Any]] = []
    codes: list[int] = []
    with opened(bundle, job.output, backend=backend, threads=threads) as recoverer:
        _check_skin(job, recoverer)
        for source in job.sources:
            entry: dict[str, Any] = {"video": shown(source)}
            entries.append(entry)
            try:
                interrupted = _follow(job, source, recoverer, detector, entry)
            except BrokenPipeError:
                raise  # nobody reads the results any more
            except Exception as error:  # a mistake of ours is one video's alone, too
                codes.append(report(shown(source), error, entry).exit_code)
                continue
            finally:
                if not as_json:
                    for file in entry.get("files", ()):
                        print_result(file)
            if interrupted:
                if not entry["live"]:  # which has no other end
                    codes.append(INTERRUPTED)
                break
        if as_json:
            document = {"bundle": str(bundle), "backend": recoverer.backend, "detector": job.detector, "videos": entries}
            print_json(document)
    return codes[0] if codes else 0


def _check_skin(job: VideoJob, recoverer: MeshRecoverer) -> None:
    """Say what a bundle without a skin does not give.

    Raises:
        InputError: A file needs the skin.
    """
    if recoverer.skin is not None:
        return
    wanted = [name for name in job.formats if name in OF_THE_SKIN]
    if wanted:
        raise InputError(
            f"The format {wanted[0]} needs the body's skin.",
            why="the bundle has no skin.npz",
            fix="export the bundle again without --no-skin, or leave the format out",
        )
    if job.smooth and "overlay" in job.formats:
        say("The bundle has no skin.npz: the overlay shows meshes as they were recovered; other files are smoothed.")


def _follow(job: VideoJob, name: str, recoverer: MeshRecoverer, detector: Detector, entry: dict[str, Any]) -> bool:
    """Follow the persons of one source, and write its files, which ``entry`` lists.

    Returns:
        Whether Ctrl-C ended it.
    """
    files = {each: job.output / f"{name_of(name)}{VIDEO_FORMATS[each]}" for each in job.formats}
    for path in _in_the_way(files):
        Replacement(path)  # what cannot be written is said before the work, not after it
    entry["files"] = []
    with ExitStack() as open_things:
        source = open_things.enter_context(open_source(name, **job.window._asdict(), fps=job.fps))
        facts = source.facts
        say(f"{facts.name}: {facts.width} x {facts.height}, {facts.rate:.6g} frames/s" + _length(source))
        _say_lost(facts.lost, facts.remedy)
        following = open_things.enter_context(
            recoverer.follow(
                source,
                detector=detector,
                options=job.options,
                smooth=job.smooth,
                pose="overlay" in files,
            )
        )
        overlay = _writer(open_things, files.get("overlay"), source)
        film = None
        if "html" in files:  # browsers play few kinds of video, and none from a window's start
            with told_as_output(files["html"]):
                film = open_things.enter_context(temporary_folder()) / "plain.mp4"
        plain = _writer(open_things, film, source)
        _pass(following, overlay, plain)
        if plain is not None:
            plain.close(cut=following.stopped)
        if overlay is not None:
            overlay.close(cut=following.stopped)
            if overlay.frames:
                entry["files"].append(str(files["overlay"]))
            _say_lost(overlay.lost, overlay.remedy)
        motion = following.motion()
        for kind in VIDEO_FORMATS:
            if kind == "html" and kind in files:
                _write_page(files[kind], motion, recoverer.skin, film, source.start)
                entry["files"].append(str(files[kind]))
            elif kind != "overlay" and kind in files:
                entry["files"] += map(str, motion.save(files[kind], skin=recoverer.skin))
        entry.update(_summary(following, motion))
    _say_summary(entry, facts.name, job)
    entry["live"] = facts.live
    return following.stopped


def _in_the_way(files: dict[str, Path]) -> list[Path]:
    """The files of a source, and those that are there already of formats that have a file for each person."""
    paths = list(files.values())
    for name, path in files.items():
        if name in OF_ONE_PERSON:
            stem = path.name.removesuffix(VIDEO_FORMATS[name])
            paths += path.parent.glob(f"{glob.escape(stem)}.track-*{VIDEO_FORMATS[name]}")
    return paths


def _writer(open_things: ExitStack, path: Path | None, source: Source) -> VideoWriter | None:
    return None if path is None else open_things.enter_context(VideoWriter.like(path, source))


def _pass(following: Following, overlay: VideoWriter | None, plain: VideoWriter | None) -> None:
    """Let all frames pass: drawing has a thread of its own, encoding is this one's."""
    with (
        on_interrupt(following.stop),
        Pipeline(following, each(partial(_drawn, drawing=overlay is not None))) as frames,
        _progress(following) as passed,
    ):
        for frame, image in frames:
            if overlay is not None:
                overlay.write(image, frame.time)
            if plain is not None:
                plain.write(frame.image, frame.time)
            passed()


def _drawn(frame: FollowedFrame, drawing: bool) -> tuple[FollowedFrame, NDArray[np.uint8]]:
    """A frame and its overlay. Persons keep their colours; who is doubted is grey."""
    if not drawing:
        return frame, frame.image
    colors: list[tuple[float, ...]] = [
        (sum(color_of(track)) / 3,) * 3 if doubted else color_of(track)
        for track, doubted in zip(frame.tracks.tolist(), frame.doubted.tolist(), strict=True)
    ]
    return frame, frame.meshes.overlay(frame.image, colors=colors)


@contextmanager
def _progress(following: Following) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; gives what is called for every frame that is done."""
    columns = (
        TextColumn("{task.completed} frames"),
        BarColumn(),
        TextColumn("{task.fields[speed]} frames/s, persons: {task.fields[persons]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=talk, disable=not talk.is_terminal) as progress:
        task = progress.add_task("", total=following.source.expected, speed="-", persons=0)

        def passed() -> None:
            speed = progress.tasks[0].speed
            shown = "-" if speed is None else f"{speed:.1f}"
            progress.update(task, advance=1, speed=shown, persons=following.persons)

        yield passed


def _write_page(path: Path, motion: Motion, skin: Skin | None, film: Path | None, start: float) -> None:
    """Write the page that plays a motion over the film, which begins at ``start`` seconds; there is none without frames."""
    from glnet_infer.viewer import write_page

    write_page(path, motion, skin, video=film if film is not None and film.exists() else None, video_start=start)


def _summary(following: Following, motion: Motion) -> dict[str, Any]:
    """What is said of a followed source, for programs."""
    source = following.source
    return {
        "frames": following.frames,
        "persons": len(motion.tracks),
        "rows": len(motion),
        "doubted": int((motion.confidence < motion.threshold)[motion.status != MISSING].sum()),
        "filled": int((motion.status == MISSING).sum()),
        "skipped": source.skipped,
        "dropped": following.dropped,
        "ended_early": source.ended_early,
        "stopped": following.stopped,
        "warnings": [*source.notes, *behind_camera(following.behind_camera, following.persons)],
    }


def _say_summary(entry: dict[str, Any], name: str, job: VideoJob) -> None:
    persons = "nobody" if not entry["persons"] else f"{entry['persons']} person{'s' * (entry['persons'] > 1)}"
    say(f"{name}: {entry['frames']} frames, {persons}")
    for count, what in (
        (
            entry["doubted"],
            "of {} doubted: the network's confidence is low there" + (", and the motion is bridged" if job.smooth else ""),
        ),
        (entry["filled"], "of {} filled in: the person was not found for a moment"),
    ):
        if count:
            say(f"  {count} {what.format(entry['rows'])}")
    if entry["skipped"]:
        say(f"  {entry['skipped']} damaged frames were left out", style="yellow")
    if entry["dropped"]:
        say(f"  {entry['dropped']} frames were dropped, because recovering takes longer than they last", style="yellow")
    if entry["ended_early"]:
        say(f"  it broke off: {entry['ended_early']}", style="yellow")
    for warning in entry["warnings"]:
        say(f"  {warning}", style="yellow")
    if entry["stopped"]:
        say("  stopped; the files hold what was done")
    if not entry["persons"] and job.detector != "none":
        say("  a lower --detector-threshold finds more")


def _say_lost(lost: tuple[str, ...], remedy: str) -> None:
    for what in lost:
        say(f"  lost: {what}" + (f"; {remedy}" if remedy else ""), style="yellow")


def _length(source: Source) -> str:
    return "" if source.expected is None else f", {source.expected} frames"
