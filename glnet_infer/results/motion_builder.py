"""A motion that grows frame by frame, however long the recording is."""

from __future__ import annotations

import tempfile
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.errors import InputError, OutputError
from glnet_infer.fields import quote
from glnet_infer.forks import HomeProcess
from glnet_infer.numbers import as_floats, is_number
from glnet_infer.results.meshes import Meshes
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import COLUMNS, DOUBTED, OBSERVED, RAW, empty_column

_ROWS_IN_MEMORY = 256
"""Rows that wait for the disk: less than a megabyte."""

_TAKEN = ("confidence", "rotations", "betas", "translation", "joints", "keypoints_2d")


class MotionBuilder:
    """Collects the persons of frames. Rows go to a temporary file, so memory stays flat; a context manager.

    Args:
        intrinsics: The camera; that of the first meshes where None.
        image_size: Width and height in pixels; that of the first meshes where None.
        rate: Frames per second of the recording; 0 where it has no constant rate.
        threshold: Confidence below which a row is marked as doubted, 0 to 1.
        smoothing: How poses are smoothed before they are added, in words; each frame then brings its raw meshes, too.
        body: Name of the body, as in the bundle's manifest.
        bundle: Which bundle recovers the persons.

    Raises:
        OutputError: There is no place for temporary files.
    """

    def __init__(
        self,
        *,
        intrinsics: Intrinsics | None = None,
        image_size: tuple[int, int] | None = None,
        rate: float = 0.0,
        threshold: float = 0.0,
        smoothing: str = "",
        body: str = "",
        bundle: str = "",
    ) -> None:
        self._common: dict[str, Any] = {
            "rate": rate, "threshold": threshold, "smoothing": smoothing, "body": body, "bundle": bundle, "backend": "",
        }  # fmt: skip
        self._intrinsics, self._image_size = intrinsics, image_size
        self._home = HomeProcess()
        self._lock = threading.Lock()  # who takes the motion may be another thread than who adds
        self._type: np.dtype[Any] | None = None
        self._rows: list[NDArray[Any]] = []
        self._numbers, self._times = array("q"), array("d")
        self._written = self._waiting = 0
        with _told():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it

    def __enter__(self) -> MotionBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Rows so far."""
        return self._written + self._waiting

    def add(
        self,
        frame: int,
        time: float,
        meshes: Meshes | None = None,
        tracks: ArrayLike = (),
        scores: ArrayLike | None = None,
        *,
        raw: Meshes | None = None,
    ) -> None:
        """Add a frame.

        Args:
            frame: Its number, larger than those before.
            time: Its time in seconds, later than those before.
            meshes: The N persons in it; None for nobody.
            tracks: N numbers of persons; negative ones are left out.
            scores: N, the detector's trust in each box; 1 where None.
            raw: The same persons before smoothing, where the builder was given ``smoothing``.

        Raises:
            InputError: The frame does not follow the last one, or arrays do not fit together.
            OutputError: The temporary file cannot be written.
        """
        if not (is_number(frame) and is_number(time) and abs(frame) < 1 << 62):
            raise InputError(f"Frame {quote(frame)} at {quote(time)} s cannot be added.", fix="give a number and seconds")
        number, moment = int(frame), float(time)
        last = (self._numbers[-1], self._times[-1]) if self._numbers else (-1, -np.inf)
        if number <= last[0] or not last[1] < moment < np.inf:
            raise InputError(
                f"Frame {number} at {moment} s cannot be added.",
                why=f"the last one was frame {last[0]} at {last[1]} s",
                fix="add frames in their order",
            )
        self._check_home()
        with self._lock:
            if meshes is not None and len(meshes):
                self._add_rows(number, moment, meshes, np.asarray(tracks, np.int64), scores, raw)
            self._numbers.append(number)
            self._times.append(moment)

    def _add_rows(
        self,
        frame: int,
        time: float,
        meshes: Meshes,
        tracks: NDArray[np.int64],
        scores: ArrayLike | None,
        raw: Meshes | None,
    ) -> None:
        count = len(meshes)
        trust = np.ones(count) if scores is None else as_floats(scores, "The scores are not numbers.", fix="give one a box")
        keypoints = meshes.keypoints_2d.shape[1]
        self._check(meshes, raw, tracks, trust, keypoints)
        if self._type is None:
            columns = {**COLUMNS, **(RAW if self._common["smoothing"] else {})}
            sized = {name: tuple(keypoints if n == "K" else n for n in shape) for name, (shape, _) in columns.items()}
            self._type = np.dtype([(name, dtype, sized[name]) for name, (_, dtype) in columns.items()])
        rows = np.zeros(count, self._type)
        for name in _TAKEN:
            rows[name] = getattr(meshes, name)
        rows["frame"], rows["time"], rows["track"], rows["score"], rows["box"] = frame, time, tracks, trust, meshes.boxes
        rows["status"] = np.where(rows["confidence"] < np.float32(self._common["threshold"]), DOUBTED, OBSERVED)
        if raw is not None:
            for name in RAW:
                rows[name] = getattr(raw, name.removeprefix("raw_"))
        rows = np.sort(rows[tracks >= 0], order="track")
        self._rows.append(rows)
        self._waiting += len(rows)
        if self._waiting >= _ROWS_IN_MEMORY:
            self._write()

    def _check_home(self) -> None:
        self._home.check("builder of a motion", "make the motion before the fork, and send that")

    def _check(
        self, meshes: Meshes, raw: Meshes | None, tracks: NDArray[np.int64], scores: NDArray[Any], keypoints: int
    ) -> None:
        count = len(meshes)
        self._intrinsics = self._intrinsics or meshes.intrinsics
        self._image_size = self._image_size or meshes.image_size
        self._common["backend"] = self._common["backend"] or meshes.backend
        real = tracks[tracks >= 0] if tracks.ndim == 1 else tracks
        for wrong, why in (
            (tracks.shape != (count,) or scores.shape != (count,), f"{count} tracks and scores are needed"),
            (len(np.unique(real)) != len(real), "a track is twice in this frame"),
            (meshes.intrinsics != self._intrinsics, "the camera is another than before"),
            (meshes.image_size != self._image_size, "the image has another size than before"),
            (
                self._type is not None and self._type["keypoints_2d"].shape[0] != keypoints,
                "the number of keypoints is another than before",
            ),
            (bool(self._common["smoothing"]) != (raw is not None), "raw meshes are given where poses are smoothed"),
            (raw is not None and len(raw) != count, "there are not as many raw meshes"),
        ):
            if wrong:
                raise InputError("The meshes cannot be added to the motion.", why=why)

    def _write(self) -> None:
        with _told():
            for rows in self._rows:
                self._file.write(rows.tobytes())
            self._file.flush()
        self._written += self._waiting
        self._rows, self._waiting = [], 0

    def motion(self) -> Motion:
        """All that was added so far. More frames may be added afterwards.

        Raises:
            InputError: There was no frame with a person, and neither camera nor image size was given.
        """
        if self._intrinsics is None or self._image_size is None:
            raise InputError(
                "There is no motion.",
                why="no person was added, so the camera and the size of the images are unknown",
                fix="give intrinsics and image_size to MotionBuilder",
            )
        self._check_home()
        with self._lock:
            return self._motion(self._intrinsics, self._image_size)

    def _motion(self, intrinsics: Intrinsics, image_size: tuple[int, int]) -> Motion:
        self._write()
        columns: dict[str, Any] = {name: empty_column(name) for name in COLUMNS}
        if self._type is not None:
            self._file.seek(0)
            rows = np.frombuffer(self._file.read(), self._type)
            columns = {name: np.ascontiguousarray(rows[name]) for name in self._type.names or ()}
        return Motion(
            **columns,
            frame_numbers=np.array(self._numbers, np.int64),
            frame_times=np.array(self._times, np.float64),
            intrinsics=intrinsics,
            image_size=image_size,
            **self._common,
        )

    def close(self) -> None:
        """Remove the temporary file; nothing can be added or taken any more."""
        with suppress(OSError):  # what a full disk did not take is tried once more
            self._file.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turn the system's errors into ours.

    Raises:
        OutputError: The temporary file cannot be made or written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            "The motion so far cannot be kept in a temporary file.",
            why=str(error.strerror or error),
            fix="make room for it, or name another directory in $TMPDIR",
        ) from error
