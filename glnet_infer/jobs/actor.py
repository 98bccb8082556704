"""Who does the items: one process with one recoverer. Ray makes an actor of it; it does not know of Ray."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2

from glnet_infer.camera import Intrinsics
from glnet_infer.detection import Detector, detector_file, open_detector
from glnet_infer.errors import BundleError, GlnetError, InputError, as_ours
from glnet_infer.files import make_directory
from glnet_infer.jobs.chunks import cuts
from glnet_infer.jobs.items import (
    Chunk,
    Cut,
    Item,
    Join,
    Orders,
    Outcome,
    Photographs,
    Survey,
)
from glnet_infer.jobs.notes import folder_of, keep_cuts, keep_files, recording_of
from glnet_infer.jobs.photographs import PhotographWork, Wanted
from glnet_infer.jobs.videos import Memory, Replay, see_chunk, summary
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.video.following import UNSURE
from glnet_infer.video.observing import Observer, Observes
from glnet_infer.video.session import Following
from glnet_infer.video.sources import Source, moments_of, open_source

MOTION_SUFFIXES = {"npz": ".npz", "json": ".json", "glb": ".glb", "bvh": ".bvh", "amass": ".amass.npz"}
"""What a motion's files are called after its video's name, by format."""


@dataclass(frozen=True)
class Started:
    """A worker that is ready.

    Attributes:
        described: What runs, as ``repr`` of the recoverer says it.
        backend: What runs the network.
        notes: What is to be known of that.
    """

    described: str
    backend: str
    notes: tuple[str, ...]


class Worker:
    """Does one item after the other.

    Args:
        orders: What it must know.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def start(self) -> Started | GlnetError:
        """Open the bundle and the detector.

        Returns:
            The error where that failed: raised in an actor it would come out as a text.
        """
        try:
            cv2.setNumThreads(self._orders.threads)
            recoverer = self._recoverer
            self._detector_of_photographs  # noqa: B018 - whose errors are those of the start
            self._check_hashes(recoverer)
        except GlnetError as error:
            return error
        notes = [f"It could be faster: {recoverer.backend_reason}"] if recoverer.backend_reason else []
        if recoverer.bundle.manifest.network.weights == "random":
            notes.append("These weights are random: the meshes mean nothing.")
        return Started(repr(recoverer), recoverer.backend, tuple(notes))

    def do(self, item: Item) -> Outcome:
        """Do an item. Its failure is in the outcome, whatever it is; only what ends the process is not."""
        told = _Collected()
        began = time.perf_counter()
        entries: list[dict[str, Any]] = [{"video": each} for each in item.inputs]
        found: list[Cut] = []
        try:
            if isinstance(item, Photographs):
                entries = self._photographs(item, told)
            elif isinstance(item, Survey):
                found = self._survey(item)
            elif isinstance(item, Chunk):
                target = recording_of(self._orders, item.name, item.number)
                see_chunk(Path(item.video), item.window, self._observer, self._orders.options, target)
            else:
                self._join(item, entries[0])
        except Exception as error:
            told.failed(item.inputs[0], error, entries[0])
        return Outcome(entries, told.messages, told.failures, time.perf_counter() - began, found)

    @cached_property
    def _recoverer(self) -> MeshRecoverer:
        return MeshRecoverer(self._orders.bundle, self._orders.backend, threads=self._orders.threads)

    @cached_property
    def _observer(self) -> Observer:
        options = self._orders.options
        assert self._orders.detector is not None  # videos have no boxes of their own
        detector = open_detector(self._orders.detector, threshold=min(UNSURE, options.score), threads=self._orders.threads)
        return Observer(self._recoverer, detector, options.intrinsics)

    @cached_property
    def _detector_of_photographs(self) -> Detector | None:
        orders = self._orders
        if orders.detector is None:
            return None
        return open_detector(orders.detector, threshold=orders.options.score, threads=orders.threads)

    def _photographs(self, item: Photographs, told: _Collected) -> list[dict[str, Any]]:
        orders = self._orders
        wanted = Wanted(orders.output, orders.formats, orders.options.most, orders.options.intrinsics)
        with PhotographWork(self._recoverer, self._detector_of_photographs, wanted, told) as work:
            for path, boxes in zip(item.paths, item.boxes, strict=True):
                work.add(Path(path), boxes)
            work.finish()
        return work.entries

    def _check_hashes(self, recoverer: MeshRecoverer) -> None:
        """Refuse what was replaced since the run began, for whoever starts later, or has another file at that path.

        Raises:
            BundleError: The bundle is another one.
            InputError: The detector is another one.
        """
        orders = self._orders
        fix = "run it again when all machines have the same file there"
        if recoverer.bundle.manifest.graph.file.sha256 != orders.bundle_hash:
            raise BundleError(f"{orders.bundle} is another bundle here than where the run began.", fix=fix)
        named = None if orders.detector is None else detector_file(orders.detector)
        if named is not None and named.sha256() != orders.detector_hash:
            raise InputError(f"{named.path} is another detector here than where the run began.", fix=fix)

    def _survey(self, item: Survey) -> list[Cut]:
        orders = self._orders
        folder = folder_of(orders, item.name)
        shutil.rmtree(folder, ignore_errors=True)  # of a video that was changed
        make_directory(folder)
        with open_source(item.video, **orders.window._asdict()) as source:  # what is wrong with it is said now
            expected = source.expected
        moments = moments_of(Path(item.video))
        found = [] if moments is None else cuts(moments, orders.window, orders.options.detect_every, orders.chunk_frames)
        if not found:  # one chunk, whose beginning is the window's
            found = [Cut(0.0, expected and expected * orders.window.every)]
        keep_cuts(orders, item, found)
        return found

    def _join(self, item: Join, entry: dict[str, Any]) -> None:
        orders, skin = self._orders, self._recoverer.skin
        window, manifest = orders.window, self._recoverer.bundle.manifest
        recordings = [recording_of(orders, item.name, number) for number in range(item.chunks)]
        original = open_source(item.video, **window._asdict())
        source: Source = original
        observer: Observes = self._observer
        memory: Memory | None = None
        camera = orders.options.intrinsics or Intrinsics.guess(original.facts.width, original.facts.height)
        try:
            replay = Replay(original, recordings)
        except InputError:  # a file was damaged meanwhile, or time stamps jump: then all is seen now, in order
            pass
        else:
            reopen = partial(_from, item.video)
            source = replay
            observer = memory = Memory(replay, observer, reopen, camera)
        try:
            with Following(
                source,
                observer,
                orders.options,
                smooth=orders.smooth,
                skin=skin if orders.smooth else None,
                pose=False,
                body=manifest.body.name,
                bundle=manifest.network.name,
            ) as following:
                for _ in following:
                    pass
                motion = following.motion()
                files = {
                    name: motion.save(orders.output / f"{item.name}{MOTION_SUFFIXES[name]}", skin=skin)
                    for name in orders.formats
                }
                entry.update(files=[str(path) for paths in files.values() for path in paths])
                entry.update(summary(following, motion))
                keep_files(orders, item.video, item.name, files)
        finally:
            if memory is not None:
                memory.close()
        entry.update(live=False, chunks=item.chunks, seen_again=memory.seen_again if memory else entry["frames"])
        shutil.rmtree(folder_of(orders, item.name), ignore_errors=True)


def _from(video: str, start: float) -> Source:
    return open_source(video, start=max(start, 0.0))


class _Collected:
    """Keeps what people shall be told, for the driver."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.failures: dict[str, GlnetError] = {}

    def say(self, text: str, style: str = "") -> None:
        """Keep a message."""
        self.messages.append((text, style))

    def failed(self, name: str, error: Exception, entry: dict[str, Any]) -> GlnetError:
        """Keep a failure."""
        if not isinstance(error, GlnetError):
            self.say("".join(traceback.format_exception(error)).rstrip())
        self.failures[name] = as_ours(name, error)
        return self.failures[name]

    def written(self, files: Sequence[str]) -> None:
        """The entry says it."""
