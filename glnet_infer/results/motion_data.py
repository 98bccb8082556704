"""Persons' tracks over time as columns: what every file of motion is made from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.errors import InputError
from glnet_infer.results.posing import chain, posed_joints, rest_joints
from glnet_infer.results.skin import Skin
from glnet_infer.rotations import between
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS

OBSERVED, DOUBTED, MISSING = 0, 1, 2
"""What a row is: recovered and trusted; recovered with a confidence below the threshold; not detected, and filled in."""

STATUS_NAMES = ("observed", "low confidence", "missing")

COLUMNS: dict[str, tuple[tuple[int | str, ...], str]] = {
    "frame": ((), "int64"),
    "time": ((), "float64"),
    "track": ((), "int64"),
    "box": ((4,), "float64"),
    "score": ((), "float32"),
    "confidence": ((), "float32"),
    "status": ((), "uint8"),
    "rotations": ((BODY_JOINTS, 3, 3), "float32"),
    "betas": ((10,), "float32"),
    "translation": ((3,), "float32"),
    "joints": ((SKELETON_JOINTS, 3), "float32"),
    "keypoints_2d": (("K", 2), "float32"),
}
"""Shape of a row and type of every column."""

RAW = {f"raw_{name}": COLUMNS[name] for name in ("rotations", "betas", "translation", "joints")}
"""Columns that are there when something was smoothed: the same rows as they were recovered."""


def empty_column(name: str) -> NDArray[Any]:
    """A column without rows."""
    shape, dtype = COLUMNS[name.removeprefix("raw_")]
    lengths = [SKELETON_JOINTS if isinstance(length, str) else length for length in shape]
    return np.zeros((0, *lengths), dtype)


DEFAULT_RATE = 30.0
"""Frames per second, where a single frame says nothing of it."""

_FARTHEST = 1e6
"""Metres, and ten thousandths of a pixel: far beyond any result, and far inside float32."""

_LATEST = 1e11
"""Seconds: clocks count some 1e9, and streams may have a zero of their own."""

_SAME_BODY = 0.02
"""Metres between a motion's joints and a skin's. Bones that were averaged over a track differ by millimetres."""

Self = TypeVar("Self", bound="MotionData")


@dataclass(frozen=True, eq=False, repr=False)
class MotionData:
    """Rows of persons in frames, ordered by frame and track, and what they have in common.

    Camera coordinates are OpenCV's: x right, y down, z forward, metres. Image coordinates are continuous pixels.

    Attributes:
        frame: R int64, numbers of the frames, from 0.
        time: R float64, seconds, the frame's own time.
        track: R int64, which person; a number stays with its person.
        box: R x 4 float64, x1, y1, x2, y2 in pixels.
        score: R float32, the detector's trust in the box, 0 to 1; 1 for boxes that were given.
        confidence: R float32, the network's, 0 to 1.
        status: R uint8, :data:`OBSERVED`, :data:`DOUBTED` or :data:`MISSING`.
        rotations: R x 24 x 3 x 3 float32, SMPL's pose: relative to the parent, the root's to the camera.
        betas: R x 10 float32, SMPL's shape.
        translation: R x 3 float32, metres: SMPL(rotations, betas) + translation gives vertices and joints.
        joints: R x 29 x 3 float32, metres.
        keypoints_2d: R x K x 2 float32, image pixels, as the network says; not smoothed.
        frame_numbers: F int64, all frames that were looked at, those without a person too.
        frame_times: F float64, their times in seconds, growing.
        intrinsics: The camera.
        image_size: Width and height in pixels.
        rate: Frames per second of the recording; 0 where it has no constant rate.
        body: Name of the body, as in the bundle's manifest.
        bundle: Which bundle recovered it.
        backend: What ran the network.
        smoothing: What was smoothed and how, in words; empty where nothing was.
        threshold: Confidence below which a row is :data:`DOUBTED`.
        raw_rotations: Like ``rotations``, before smoothing; None where nothing was. Of a row that was not detected: what it
            was filled with.
        raw_betas: The same of ``betas``.
        raw_translation: The same of ``translation``.
        raw_joints: The same of ``joints``.

    Raises:
        InputError: Columns do not fit together, or hold what cannot be.
    """

    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    track: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float32]
    confidence: NDArray[np.float32]
    status: NDArray[np.uint8]
    rotations: NDArray[np.float32]
    betas: NDArray[np.float32]
    translation: NDArray[np.float32]
    joints: NDArray[np.float32]
    keypoints_2d: NDArray[np.float32]
    frame_numbers: NDArray[np.int64]
    frame_times: NDArray[np.float64]
    intrinsics: Intrinsics
    image_size: tuple[int, int]
    rate: float = 0.0
    body: str = ""
    bundle: str = ""
    backend: str = ""
    smoothing: str = ""
    threshold: float = 0.0
    raw_rotations: NDArray[np.float32] | None = None
    raw_betas: NDArray[np.float32] | None = None
    raw_translation: NDArray[np.float32] | None = None
    raw_joints: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise InputError("This is not a motion.", why=problem, fix="give rows as MotionBuilder makes them")

    def _problem(self) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        rows = len(self.frame)
        keypoints = self.keypoints_2d.shape[1] if self.keypoints_2d.ndim == 3 else 0
        columns = {**COLUMNS, **{name: spec for name, spec in RAW.items() if getattr(self, name) is not None}}
        for name, (shape, dtype) in columns.items():
            values = getattr(self, name)
            wanted = (rows, *(keypoints if length == "K" else length for length in shape))
            if values.shape != wanted or values.dtype != dtype:
                return f"{name} is {values.dtype} {values.shape}, not {dtype} {wanted}"
            farthest = _LATEST if name == "time" else _FARTHEST
            if values.dtype.kind == "f" and not (np.abs(values) <= farthest).all():
                return f"{name} is not finite, or beyond {farthest:g}"
        if len({getattr(self, name) is None for name in RAW}) > 1:
            return "some columns are raw, and others are missing"
        numbers, times = self.frame_numbers, self.frame_times
        if numbers.ndim != 1 or numbers.shape != times.shape or not (np.abs(times) <= _LATEST).all():
            return "frame_numbers and frame_times do not fit together"
        if (np.diff(numbers) <= 0).any() or (np.diff(times) <= 0).any():
            return "numbers and times of frames do not grow"
        place = np.searchsorted(numbers, self.frame)
        known = place < len(numbers)
        if not known.all() or (numbers[place] != self.frame).any() or (times[place] != self.time).any():
            return "rows are of frames that are not among frame_numbers, or have other times"
        if (self.track < 0).any() or (self.status > MISSING).any():
            return "a track is negative, or a status is unknown"
        if (np.lexsort((self.track, self.frame)) != np.arange(rows)).any():
            return "rows are not ordered by frame and track"
        if ((np.diff(self.frame) == 0) & (np.diff(self.track) == 0)).any():
            return "a track is twice in a frame"
        product = np.swapaxes(self.rotations, -1, -2) @ self.rotations
        if rows and np.abs(product - np.eye(3)).max() > 0.01:
            return "rotations are not orthonormal"
        width, height = self.image_size
        if not (0 < width < 1 << 20 and 0 < height < 1 << 20 and 0 <= self.rate < 1e6 and 0 <= self.threshold <= 1):
            return "the image's size, the rate or the threshold is no such thing"
        return ""

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        tracks = len(self.tracks)
        smoothing = f", smoothing={self.smoothing!r}" if self.smoothing else ""
        return (
            f"{type(self).__name__}({tracks} {'track' if tracks == 1 else 'tracks'}, {len(self.frame_numbers)} frames, "
            f"{len(self)} rows, {self.frame_rate:.6g} frames/s{smoothing})"
        )

    # What is in it

    @property
    def tracks(self) -> list[int]:
        """The numbers of the persons, growing."""
        return [int(track) for track in np.unique(self.track)]

    @property
    def observed(self) -> NDArray[np.bool_]:
        """R: rows that were recovered and are trusted."""
        return np.asarray(self.status == OBSERVED)

    @property
    def bridged(self) -> NDArray[np.bool_]:
        """R: rows that follow from their neighbours, where the motion was smoothed or filled."""
        return ~self.observed

    @property
    def frame_rate(self) -> float:
        """Frames per second: ``rate``, or else the median of the frames' distances."""
        if self.rate:
            return self.rate
        return float(1 / np.median(np.diff(self.frame_times))) if len(self.frame_times) > 1 else DEFAULT_RATE

    def select(self: Self, rows: NDArray[np.bool_] | NDArray[np.integer[Any]] | slice) -> Self:
        """Some of the rows: a mask, growing numbers or a slice. All frames stay."""
        raw = RAW if self.raw_rotations is not None else {}
        return replace(self, **{name: getattr(self, name)[rows] for name in (*COLUMNS, *raw)})

    def at(self: Self, frame: int) -> Self:
        """The persons of one frame; none where there are none."""
        first, last = np.searchsorted(self.frame, (frame, frame + 1)).tolist()
        return self.select(slice(first, last))

    def of(self: Self, track: int) -> Self:
        """The rows of one person; none where there is no such person."""
        return self.select(self.track == track)

    # What follows from it

    def vertices(self, skin: Skin) -> NDArray[np.float32]:
        """The meshes, R x V x 3 metres in the camera's frame. A row takes some 100 kB: select rows first.

        Raises:
            InputError: The skin is of another body.
        """
        self.check_skin(skin)
        return skin.pose(self.rotations, self.betas, self.translation)[0]

    def check_skin(self, skin: Skin) -> None:
        """Refuse the skin of another body than the one that moves here.

        Raises:
            InputError: Its joints are not those of the motion.
        """
        few = self.select(slice(0, None, max(1, len(self) // 16)))
        joints = posed_joints(chain(few.rotations), skin.rest_joints(few.betas)) + few.translation[:, None]
        distance = np.abs(joints - few.joints).max(initial=0)
        if distance > _SAME_BODY:
            raise InputError(
                f"The skin is of another body: {skin.body!r}.",
                why=f"its joints are up to {distance * 1000:.0f} mm from the motion's, whose body is {self.body!r}",
                fix="take skin.npz from the bundle that recovered the motion",
            )

    def rest_joints(self) -> NDArray[np.float64]:
        """Joints of each row's rest pose, R x 29 x 3 metres. They follow from joints and rotations: no body is needed."""
        return rest_joints(chain(self.rotations), self.joints, self.translation)

    # What becomes of it

    def smoothed(
        self: Self,
        how: str,
        *,
        rotations: NDArray[Any],
        betas: NDArray[Any],
        translation: NDArray[Any],
        skin: Skin | None = None,
    ) -> Self:
        """The motion with other poses; joints follow, and what was recovered is kept as raw.

        Args:
            how: What was smoothed and how, in words.
            rotations: R x 24 x 3 x 3.
            betas: R x 10.
            translation: R x 3.
            skin: Gives the bones of the new shapes; without it, they are the median of each track's.
        """
        if skin is None:
            rest = self.rest_joints()
            for track in self.tracks:
                rest[self.track == track] = np.median(rest[self.track == track], axis=0)
        else:
            rest = skin.rest_joints(betas)
        joints = posed_joints(chain(rotations), rest) + np.asarray(translation, np.float64)[:, None]
        poses = {"rotations": rotations, "betas": betas, "translation": translation, "joints": joints}
        new: dict[str, Any] = {name: np.asarray(values, np.float32) for name, values in poses.items()}
        if self.raw_rotations is None:
            new |= {f"raw_{name}": getattr(self, name) for name in poses}
        return replace(self, smoothing=how, **new)

    def filled(self: Self, longest: float) -> Self:
        """The motion with a row for every frame in which a person is missing between two others, as :data:`MISSING`.

        Rotations lie on the geodesic between the neighbours, all else on the straight line. Score and confidence are 0.

        Args:
            longest: Seconds that may lie between the two neighbours; longer absences stay.
        """
        parts = [self] + [gap for track in self.tracks for gap in self._gaps(self.of(track), longest)]
        columns = [*COLUMNS, *(RAW if self.raw_rotations is not None else ())]
        together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        order = np.lexsort((together["track"], together["frame"]))
        return replace(self, **{name: values[order] for name, values in together.items()})

    def _gaps(self: Self, track: Self, longest: float) -> list[Self]:
        steps = np.diff(np.searchsorted(self.frame_numbers, track.frame))
        near = np.diff(track.time) <= longest
        return [self._gap(track.select(slice(row, row + 2))) for row in np.flatnonzero((steps > 1) & near).tolist()]

    def _gap(self: Self, ends: Self) -> Self:
        """Rows for the frames between the two of ``ends``."""
        first, last = np.searchsorted(self.frame_numbers, ends.frame).tolist()
        frames, times = self.frame_numbers[first + 1 : last], self.frame_times[first + 1 : last]
        share = (times - ends.time[0]) / (ends.time[1] - ends.time[0])

        def straight(values: NDArray[Any]) -> Any:
            way = share.reshape(-1, *[1] * (values.ndim - 1))
            return (values[0] + way * (np.asarray(values[1], np.float64) - values[0])).astype(values.dtype)

        new: dict[str, Any] = {field.name: getattr(ends, field.name) for field in fields(ends)}
        new |= {name: straight(new[name]) for name in ("box", "betas", "translation", "keypoints_2d")}
        new["rotations"] = between(ends.rotations[:1], ends.rotations[1:], share[:, None])
        joints = posed_joints(chain(new["rotations"]), straight(ends.rest_joints())) + new["translation"][:, None]
        new |= {"rotations": new["rotations"].astype(np.float32), "joints": joints.astype(np.float32)}
        count = len(frames)
        new |= {"frame": frames, "time": times, "track": np.repeat(ends.track[:1], count)}
        new |= {"score": np.zeros(count, np.float32), "confidence": np.zeros(count, np.float32)}
        new["status"] = np.full(count, MISSING, np.uint8)
        if self.raw_rotations is not None:
            new |= {name: new[name.removeprefix("raw_")] for name in RAW}
        return replace(ends, **new)
