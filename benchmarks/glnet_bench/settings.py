"""What a run measures, as it was asked for."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from glnet_infer.errors import InputError

FRAMES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440), "4k": (3840, 2160)}
"""Width and height in pixels, by name."""

MOST_CROPS = 1024
"""More crops of one frame than anyone has; a mistyped number would only run out of memory."""

_LARGEST_SIDE = 16384


@dataclass(frozen=True)
class Frame:
    """A camera's frame: its name, and its size in pixels."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is measured; a run is resumed only with the same.

    Attributes:
        backends: Names from ``glnet_bench.runners.base.BACKENDS``.
        batches: Crops in a call, for engine-only times.
        persons: Persons in a frame, for end-to-end times.
        frames: Frames, likewise.
        samples: Timed calls of a row that are enough.
        seconds: After so much timed work a row needs only a few calls.
        soak: Frames of the memory run, none where 0.
        threads: Threads of CPU kernels; each backend's own choice where None.
        checkpoint_sha256: Of the checkpoint that PyTorch's rows run, empty where none was given.
    """

    backends: tuple[str, ...]
    batches: tuple[int, ...]
    persons: tuple[int, ...]
    frames: tuple[Frame, ...]
    samples: int = 100
    seconds: float = 5.0
    soak: int = 0
    threads: int | None = None
    checkpoint_sha256: str = field(default="")

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Counts such as ``1,2,4`` or ``1..16`` or both, growing and each once.

    Raises:
        InputError: It is something else.
    """
    counts: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        low = int(match[1]) if match else 0
        high = int(match[2] or low) if match else 0
        if not 1 <= low <= high <= MOST_CROPS:
            raise InputError(
                f"{option} {text!r} is not understood.",
                why=f"{part!r} is neither a number from 1 to {MOST_CROPS} nor a growing range",
                fix=f"write {option} 1,2,4 or {option} 1..16",
            )
        counts.update(range(low, high + 1))
    return tuple(sorted(counts))


def parse_frames(text: str) -> tuple[Frame, ...]:
    """Frames such as ``1080p,4k,800x600``, in this order, each once.

    Raises:
        InputError: It is something else.
    """
    frames = []
    for name in (part.strip().lower() for part in text.split(",")):
        match = re.fullmatch(r"(\d+)x(\d+)", name)
        size = (int(match[1]), int(match[2])) if match else FRAMES.get(name)
        if size is None or not all(16 <= side <= _LARGEST_SIDE for side in size):
            raise InputError(
                f"There is no frame {name!r}.",
                fix=f"use {', '.join(FRAMES)}, or WIDTHxHEIGHT with sides from 16 to {_LARGEST_SIDE}",
            )
        frames.append(Frame(name, *size))
    return tuple(dict.fromkeys(frames))
