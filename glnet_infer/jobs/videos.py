"""Videos in chunks: each is seen by itself, in any order; then the whole is followed by what was seen."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics, behind_camera
from glnet_infer.errors import InputError
from glnet_infer.jobs.chunks import OF_PERSONS, Recorder, read_recording
from glnet_infer.results.meshes import Meshes
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import MISSING
from glnet_infer.video.following import Follower, FollowOptions
from glnet_infer.video.observing import Observes, Seen
from glnet_infer.video.session import Following
from glnet_infer.video.sources import Source, SourceFacts, VideoFrame, Window, open_source

_REMEMBERED = 24
"""Frames that were decoded last: a group that is recovered together, and the next detection's."""

_READ_ON = 2.0
"""Seconds for which decoding on is no slower than seeking."""


def see_chunk(video: Path, window: Window, observer: Observes, options: FollowOptions, target: Path) -> int:
    """See the persons of a chunk, and keep that as a file.

    Args:
        video: The video.
        window: The chunk's.
        observer: What sees.
        options: How persons are followed.
        target: The file.

    Returns:
        How many frames there were.

    Raises:
        GlnetError: A frame cannot be used, the network failed, or the file cannot be written.
    """
    recorder = Recorder(observer)
    try:
        source = open_source(video, **window._asdict())
    except InputError:
        if window.start is None:
            raise
        open_source(video).close()  # it can be read at all here, on this machine: else this is an error
        recorder.save(target, None)  # all its frames are damaged, which whoever reads the whole passes over, too
        return 0
    frames = 0
    with source:
        for _ in Follower(recorder, options).ahead(recorder.passing(source)):
            frames += 1
        recorder.save(target, source)
    return frames


def summary(following: Following, motion: Motion) -> dict[str, Any]:
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


class Replay:
    """A source whose frames were seen in chunks: their numbers and times come from the chunks' files, without pictures.

    Args:
        original: The video, open with its whole window; closed with this.
        recordings: The chunks' files, in order.

    Raises:
        InputError: A file is missing or damaged, or the chunks do not follow each other.
    """

    def __init__(self, original: Source, recordings: Sequence[Path]) -> None:
        self._original, self.recordings = original, list(recordings)
        self.firsts: list[int] = []
        self._numbers: list[NDArray[np.int64]] = []
        self._times: list[NDArray[np.float64]] = []
        self.skipped, self.ended_early = 0, ""
        last: tuple[float, float] = (-np.inf, -np.inf)
        for place, path in enumerate(self.recordings):
            arrays = read_recording(path)
            numbers, times = arrays["frame_numbers"], arrays["frame_times"]
            if place:  # the frame that the last chunk ended with
                numbers, times = numbers[numbers > last[0]], times[numbers > last[0]]
            if len(numbers):
                if times[0] <= last[1]:
                    raise InputError(f"The chunks of {original.facts.name} overlap.", why="its time stamps jump")
                last = float(numbers[-1]), float(times[-1])
            first = arrays["frame_numbers"][:1]
            self.firsts.append(int(first[0]) if len(first) else int(last[0] if np.isfinite(last[0]) else 0) + 1)
            self._numbers.append(numbers)
            self._times.append(times)
            self.skipped += int(arrays["skipped"])
            if str(arrays["ended_early"]):  # what is behind was not read, where the whole is read at once
                self.ended_early = str(arrays["ended_early"])
                break

    @property
    def facts(self) -> SourceFacts:
        """See :class:`Source`."""
        return self._original.facts

    @property
    def start(self) -> float:
        """See :class:`Source`."""
        return self._original.start

    @property
    def end(self) -> float | None:
        """See :class:`Source`."""
        return self._original.end

    @property
    def rate(self) -> float:
        """See :class:`Source`."""
        return self._original.rate

    @property
    def expected(self) -> int | None:
        """See :class:`Source`."""
        return sum(map(len, self._numbers))

    @property
    def notes(self) -> tuple[str, ...]:
        """See :class:`Source`."""
        return self._original.notes

    def __iter__(self) -> Iterator[VideoFrame]:
        shape = (self.facts.height, self.facts.width, 3)
        nothing = np.broadcast_to(np.zeros((), np.uint8), shape)  # takes no memory; its size is what following asks for
        for numbers, times in zip(self._numbers, self._times, strict=True):
            for number, time in zip(numbers.tolist(), times.tolist(), strict=True):
                yield VideoFrame(number, time, nothing)

    def close(self) -> None:
        """See :class:`Source`."""
        self._original.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Memory:
    """Sees what was seen in the chunks. What nobody saw, at the seams, is seen now.

    At a chunk's beginning nobody knew who was there before: whom the detector misses there is followed by keypoints, or
    kept by an unsure detection, only where the whole is known.

    Args:
        replay: The chunks.
        observer: What sees.
        reopen: Opens the video from some time on, in seconds.
        intrinsics: The video's camera.

    Attributes:
        seen_again: In how many frames something had to be seen now.
    """

    def __init__(
        self, replay: Replay, observer: Observes, reopen: Callable[[float], Source], intrinsics: Intrinsics
    ) -> None:
        self._replay, self._observer, self._intrinsics = replay, observer, intrinsics
        self._pictures = _Pictures(reopen)
        self._chunks: dict[int, _Chunk] = {}
        self._again: set[int] = set()

    @property
    def seen_again(self) -> int:
        """In how many frames something had to be seen now."""
        return len(self._again)

    def find(self, frame: VideoFrame) -> Seen:
        """See :class:`Observes`."""
        seen = self._chunk(frame.index).seen(frame.index)
        if seen is None:
            self._again.add(frame.index)
            seen = self._observer.find(self._pictures.of(frame))
        return seen

    def recover(self, frames: Sequence[VideoFrame], boxes: Sequence[NDArray[np.float64]]) -> list[Meshes]:
        """See :class:`Observes`."""
        size = self._replay.facts.width, self._replay.facts.height
        known = [
            self._chunk(frame.index).meshes(frame.index, asked, self._intrinsics, size)
            for frame, asked in zip(frames, boxes, strict=True)
        ]
        new = [place for place, meshes in enumerate(known) if meshes is None]
        if new:
            self._again.update(frames[place].index for place in new)
            pictures = [self._pictures.of(frames[place]) for place in new]
            for place, meshes in zip(new, self._observer.recover(pictures, [boxes[each] for each in new]), strict=True):
                known[place] = meshes
        return [meshes for meshes in known if meshes is not None]

    def close(self) -> None:
        """Close the video."""
        self._pictures.close()

    def _chunk(self, number: int) -> _Chunk:
        """The chunk of a frame; it and the one before are kept, for frames are read ahead."""
        place = max(bisect_right(self._replay.firsts, number) - 1, 0)
        if place not in self._chunks:
            self._chunks = {each: chunk for each, chunk in self._chunks.items() if abs(each - place) <= 1}
            self._chunks[place] = _Chunk(read_recording(self._replay.recordings[place]))
        return self._chunks[place]


class _Chunk:
    """What was seen in a chunk, by frame and box."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        ends = np.cumsum(arrays["found_counts"])
        self._found = {
            number: slice(end - count, end)
            for number, count, end in zip(
                arrays["found_in"].tolist(), arrays["found_counts"].tolist(), ends.tolist(), strict=True
            )
        }
        self._rows = {
            (number, box.tobytes()): row
            for row, (number, box) in enumerate(zip(arrays["person_frames"].tolist(), arrays["asked_boxes"], strict=True))
        }

    def seen(self, number: int) -> Seen | None:
        """Who was detected in a frame; None where nobody looked."""
        rows = self._found.get(number)
        if rows is None:
            return None
        return Seen(*(self._arrays[f"found_{name}"][rows] for name in ("boxes", "scores", "looks")))

    def meshes(
        self, number: int, boxes: NDArray[np.float64], intrinsics: Intrinsics, size: tuple[int, int]
    ) -> Meshes | None:
        """The persons of a frame at these very boxes; None where one of them was not recovered."""
        rows = [self._rows.get((number, box.tobytes())) for box in boxes]
        if None in rows:
            return None
        chosen = np.asarray(rows, np.int64)
        columns: dict[str, Any] = {name: self._arrays[name][chosen] for name in OF_PERSONS}
        return Meshes(
            vertices=self._arrays["nearest"][chosen],
            **columns,
            intrinsics=intrinsics,
            image_size=size,
            faces=np.zeros((0, 3), np.int32),
            backend=str(self._arrays["backend"]),
        )


class _Pictures:
    """Frames with their pictures, decoded once more; the last few are remembered."""

    def __init__(self, reopen: Callable[[float], Source]) -> None:
        self._reopen = reopen
        self._source: Source | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._last = VideoFrame(-1, -np.inf, np.zeros((0, 0, 3), np.uint8))
        self._recent: deque[VideoFrame] = deque(maxlen=_REMEMBERED)

    def of(self, frame: VideoFrame) -> VideoFrame:
        """The same frame with its picture.

        Raises:
            InputError: It is no longer there.
        """
        for known in self._recent:
            if known.index == frame.index:
                return known
        if frame.index <= self._last.index or frame.time - self._last.time > _READ_ON:
            self.close()
            self._source = self._reopen(frame.time)
            self._frames = iter(self._source)
        for known in self._frames:
            self._recent.append(known)
            self._last = known
            if known.index >= frame.index:
                break
        if self._last.index != frame.index:
            raise InputError(f"The frame at {frame.time:g} s is no longer there.", why="the video was changed meanwhile")
        return self._last

    def close(self) -> None:
        """Close the video."""
        if self._source is not None:
            self._source.close()
        self._source = None
