"""What a video costs, stage by stage: ``python -m glnet_bench.video_stages CLIP BUNDLE``.

The detector's and the network's calls of a run are recorded and repeated alone. Then the whole is timed: to the motion's
file, and with the overlay. Stages work at the same time, so their sum is more than the whole.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from glnet_infer import MeshRecoverer
from glnet_infer.claims import temporary_folder
from glnet_infer.detection import Detections, Detector, find_persons, open_detector
from glnet_infer.results.meshes import Meshes
from glnet_infer.video.following import UNSURE, FollowOptions
from glnet_infer.video.observing import Observer
from glnet_infer.video.pipeline import Pipeline, each
from glnet_infer.video.session import Following
from glnet_infer.video.sources import open_source
from glnet_infer.video.writers import VideoWriter

Calls = list[Callable[[], Any]]


class Recorded:
    """A recoverer and a detector that remember what they were asked."""

    def __init__(self, recoverer: MeshRecoverer, detector: Detector) -> None:
        self._recoverer, self._detector = recoverer, detector
        self.detections: Calls = []
        self.recoveries: Calls = []

    def detect(self, image: Any) -> Detections:
        """The detector's answer."""
        self.detections.append(partial(find_persons, self._detector, image))
        return self._detector(image)

    def prepare(self, image: Any, boxes: Any, intrinsics: Any) -> Any:
        """See :class:`glnet_infer.video.observing.Recovers`."""
        return self._recoverer.prepare(image, boxes, intrinsics)

    def recover(self, images: Any) -> list[Meshes]:
        """See :class:`glnet_infer.video.observing.Recovers`."""
        self.recoveries.append(partial(self._recoverer.recover, images))
        return self._recoverer.recover(images)


def seconds(calls: Calls) -> float:
    """Time of calls one after the other."""
    began = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - began


def timed(spent: dict[str, float], stage: str, call: Callable[[], Any]) -> Any:
    """The result of a call, whose time is added to its stage's."""
    began = time.perf_counter()
    result = call()
    spent[stage] += time.perf_counter() - began
    return result


def whole(
    clip: Path, recoverer: MeshRecoverer, detector: Detector, options: FollowOptions, overlay: bool
) -> tuple[float, dict[str, float]]:
    """Seconds of a run to the motion's file, and what each stage was busy for."""
    spent: dict[str, float] = defaultdict(float)
    with temporary_folder() as folder:
        began = time.perf_counter()
        with recoverer.follow(clip, detector=detector, options=options, pose=overlay) as following:
            if overlay:
                _draw(following, folder / "overlay.mp4", spent)
            else:
                for _ in following:
                    pass
            motion = timed(spent, "motion smoothed", following.motion)
            timed(spent, "npz", lambda: motion.save(folder / "motion.npz"))
        return time.perf_counter() - began, {
            **dict(zip(("decode", "detect and recover", "smooth and pose"), following.busy, strict=False)),
            **spent,
        }


def _draw(following: Following, path: Path, spent: dict[str, float]) -> None:
    draw = each(lambda frame: (frame, timed(spent, "draw", lambda: frame.meshes.overlay(frame.image))))
    with VideoWriter.like(path, following.source) as writer, Pipeline(following, draw) as frames:
        for frame, image in frames:
            timed(spent, "encode", partial(writer.write, image, frame.time))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--max-persons", type=int, default=None)
    arguments = parser.parse_args()
    options = FollowOptions(most=arguments.max_persons)
    detector = open_detector("nanodet", threshold=UNSURE)
    with MeshRecoverer(arguments.bundle) as recoverer:
        recorded = Recorded(recoverer, detector)
        with (
            open_source(arguments.clip) as source,
            Following(source, Observer(recorded, recorded.detect), options, smooth=False) as following,
        ):
            persons = sum(len(frame.tracks) for frame in following)
            count = following.frames
        alone = seconds(recorded.detections), seconds(recorded.recoveries)
        print(f"{count} frames, {persons} persons in them, {recoverer!r}")
        print(f"detector alone: {alone[0]:.2f} s, {len(recorded.detections)} calls")
        print(f"network alone: {alone[1]:.2f} s, {len(recorded.recoveries)} calls")
        for name, overlay in (("to npz", False), ("to npz and overlay", True)):
            took, spent = whole(arguments.clip, recoverer, detector, options, overlay)
            print(f"{name}: {took:.2f} s, {took / sum(alone):.2f} times the calls alone")
            for stage, busy in spent.items():
                print(f"  {stage}: {busy:.2f} s, {1000 * busy / count:.2f} ms a frame")


if __name__ == "__main__":
    main()
