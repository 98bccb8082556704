"""A source whose persons are followed: its frames as they pass, and the motion of all that have passed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import cast

import numpy as np

from glnet_infer.camera import Intrinsics
from glnet_infer.detection import Detector
from glnet_infer.errors import InputError
from glnet_infer.forks import HomeProcess, OfThisProcess
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_builder import MotionBuilder
from glnet_infer.results.skin import Skin
from glnet_infer.video.following import FollowedFrame, Follower, FollowOptions, Recovers
from glnet_infer.video.pipeline import Pipeline, Stage
from glnet_infer.video.sources import Source, VideoFrame
from glnet_infer.video.steadying import smooth_motion, steadied, steadied_live


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep NumPy's products to a thread each: its threads wait by spinning, which takes cores from all other steps.

    Ten seconds of 720p with two persons and their overlay took 14.8 seconds on two cores in place of 18. Without
    threadpoolctl nothing is done.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return cast(AbstractContextManager[object], threadpool_limits(limits=1, user_api="blas"))


def _is_steady(motion: Motion) -> bool:
    """Whether all frames lie at whole multiples of the rate's step; some may be missing."""
    steps = np.diff(motion.frame_times) * motion.rate
    return bool((np.abs(steps - np.round(steps)) < 0.05).all())


class Following(OfThisProcess):
    """The persons of a source: iterate over its frames, once; then :meth:`motion` holds all of them.

    Decoding, and finding and recovering persons, work at the same time in threads of their own. Frames of recordings come
    some tenths of a second late. Of a live source, frames that nobody had time for are dropped and counted. What a step
    raises, an InputError, BackendError or OutputError, ends all and comes out of the iteration.

    Use it in a ``with`` statement; it closes the source.

    Args:
        source: An open source.
        recoverer: What recovers persons from boxes.
        detector: What finds boxes.
        options: How persons are followed.
        smooth: Whether the motion is smoothed.
        skin: The body's, from the bundle; gives the bones of the motion's shapes.
        pose: Whether the frames are smoothed, too, as they pass, and posed with the skin, which takes some milliseconds.
        body: Name of the body, for the motion.
        bundle: Which bundle recovers the persons, for the motion.

    Attributes:
        source: The source.
        frames: How many frames have passed so far.
    """

    def __init__(
        self,
        source: Source,
        recoverer: Recovers,
        detector: Detector,
        options: FollowOptions | None = None,
        *,
        smooth: bool = True,
        skin: Skin | None = None,
        pose: bool = True,
        body: str = "",
        bundle: str = "",
    ) -> None:
        self.source, self._smooth, self._skin = source, smooth, skin
        self._poses = smooth and pose and skin is not None
        self.frames = 0
        self._tracks: set[int] = set()
        self._behind: set[int] = set()
        options = options or FollowOptions()
        facts = source.facts
        self._follower = Follower(recoverer, detector, options)
        self._builder = MotionBuilder(
            intrinsics=options.intrinsics or Intrinsics.guess(facts.width, facts.height),
            image_size=(facts.width, facts.height),
            rate=0.0 if facts.live else source.rate,
            threshold=options.confidence,
            body=body,
            bundle=bundle,
        )
        self._pipeline: Pipeline | None = None
        self._home = HomeProcess()
        self._stopped = False

    def __iter__(self) -> Iterator[FollowedFrame]:
        if self._pipeline is not None:
            raise InputError(
                f"{self.source.facts.name} was followed already.", why="frames pass once", fix="open it once more"
            )
        if self._stopped:
            return
        stages: list[Stage] = [self._recorded, self._steadied] if self._poses else [self._recorded]
        self._pipeline = Pipeline(self.source, *stages, drop_late=self.source.facts.live)
        if self._stopped:  # meanwhile, by a signal
            self._pipeline.stop()
        with _one_blas_thread(), self._pipeline:
            for frame in self._pipeline:
                self.frames += 1
                yield frame

    @property
    def persons(self) -> int:
        """How many persons were recovered so far."""
        return len(self._tracks)

    @property
    def behind_camera(self) -> int:
        """How many of them reached behind the camera in some frame."""
        return len(self._behind)

    @property
    def dropped(self) -> int:
        """Frames of a live source that nobody had time for."""
        return 0 if self._pipeline is None else self._pipeline.dropped

    @property
    def busy(self) -> list[float]:
        """Seconds for which decoding, finding and recovering, and smoothing were at work, not waiting for each other."""
        return [] if self._pipeline is None else self._pipeline.busy

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """Take no more frames; those on their way still come. A handler of signals may call this."""
        self._stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def motion(self) -> Motion:
        """The persons of all frames that were recovered so far, smoothed where that was asked for.

        Steps work ahead of each other: these are some frames more than have passed, until all have.

        Raises:
            OutputError: The temporary file that holds them cannot be written.
        """
        motion = self._builder.motion()
        if motion.rate and not _is_steady(motion):
            motion = replace(motion, rate=0.0)
        return smooth_motion(motion, self._skin) if self._smooth else motion

    def close(self) -> None:
        """End the threads, close the source, and forget the frames. In a forked process it does nothing."""
        if not self._home.is_here:
            return
        with closing(self._builder), closing(self.source):
            if self._pipeline is not None:
                self._pipeline.close()

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _recorded(self, frames: Iterator[VideoFrame]) -> Iterable[FollowedFrame]:
        """The persons of frames, which the motion keeps."""
        follow = self._follower.live if self.source.facts.live else self._follower.ahead
        for frame in follow(frames):
            self._builder.add(frame.index, frame.time, frame.raw, frame.tracks, frame.scores)
            self._tracks.update(frame.tracks.tolist())
            self._behind.update(frame.tracks[frame.raw.behind_camera].tolist())
            yield frame

    def _steadied(self, frames: Iterator[FollowedFrame]) -> Iterable[FollowedFrame]:
        assert self._skin is not None
        return (steadied_live if self.source.facts.live else steadied)(frames, self._skin)
