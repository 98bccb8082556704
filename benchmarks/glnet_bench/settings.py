"""What a run measures, as it was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from glnet_infer.errors import InputError

FRAMES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440), "4k": (3840, 2160)}
"""Width and height in pixels, by name."""

MOST_CROPS = 1024
"""More crops of one frame than anyone has; a mistyped number would only run out of memory."""

_SMALLEST_SIDE, _LARGEST_SIDE = 16, 16384


@dataclass(frozen=True)
class Frame:
    """A camera's frame: its name, and its size in pixels."""

    name: str
    width: int
    height: int

    def __post_init__(self) -> None:
        if not all(_SMALLEST_SIDE <= side <= _LARGEST_SIDE for side in (self.width, self.height)):
            raise ValueError(f"a frame has sides from {_SMALLEST_SIDE} to {_LARGEST_SIDE}")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is measured; a run is resumed only with the same.

    Attributes:
        backends: Names from ``glnet_bench.runners.registry.backend_names``.
        batches: Crops in a call, for times of the network.
        persons: Persons in a frame, for end-to-end times.
        frames: Frames, for end-to-end times.
        samples: Timed calls of a row that are enough.
        seconds: After so much timed work a row needs only a few calls.
        soak: Frames of the memory run, none where 0.
        threads: Threads of CPU kernels; each backend's own choice where None.
        checkpoint_sha256: SHA-256 of the checkpoint that PyTorch's rows run, empty where none was given.
        addresses: Addresses of those backends that are on servers.

    Raises:
        ValueError: Nothing is measured, or a count is none.
    """

    backends: tuple[str, ...]
    batches: tuple[int, ...]
    persons: tuple[int, ...]
    frames: tuple[Frame, ...]
    samples: int = 100
    seconds: float = 5.0
    soak: int = 0
    threads: int | None = None
    checkpoint_sha256: str = ""
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("backends", "batches", "persons", "frames"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} is empty or says the same twice")
        if not all(1 <= count <= MOST_CROPS for count in (*self.batches, *self.persons)):
            raise ValueError(f"crops and persons are numbers from 1 to {MOST_CROPS}")


@dataclass(frozen=True)
class Scope:
    """What is measured where nobody says otherwise.

    Attributes:
        batches: See ``Settings``, and so on.
        left_out: Backends that are not measured unless they are asked for, each with the reason.
        budget: Seconds that a run should take; None where it takes as long as it takes.
    """

    batches: tuple[int, ...]
    persons: tuple[int, ...]
    frames: tuple[str, ...]
    samples: int
    seconds: float
    left_out: dict[str, str]
    budget: float | None


QUICK = Scope(
    batches=(1, 4),
    persons=(1, 4),
    frames=("1080p",),
    samples=30,
    seconds=1.5,
    left_out={"torch-compile": "compiling takes minutes for each number of crops"},
    budget=150,
)
"""A default run: at most three minutes for the network w32 on two CPU cores."""

FULL = Scope((1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16), ("1080p", "4k"), 100, 5.0, {}, None)
"""A run with ``--full``."""


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """Counts such as ``1,2,4`` or ``1..16`` or both, growing and each once.

    Raises:
        InputError: It is something else.
    """
    counts: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part.strip())
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
        match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", name, re.ASCII)
        size = (int(match[1]), int(match[2])) if match else FRAMES.get(name)
        try:
            frames.append(Frame(name, *(size or (0, 0))))
        except ValueError as error:
            raise InputError(
                f"There is no frame {name!r}.",
                fix=f"use {', '.join(FRAMES)}, or WIDTHxHEIGHT with sides from {_SMALLEST_SIDE} to {_LARGEST_SIDE}",
            ) from error
    return tuple(dict.fromkeys(frames))
