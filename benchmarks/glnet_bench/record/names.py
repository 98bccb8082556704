"""Names in a run's file. Those that are put together of others, ``frame/1080p/8`` say, are built and parsed here alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from glnet_bench.settings import MOST_CROPS

EAGER = "torch-fp32"
"""The backend that others are compared with: eager PyTorch in float32."""

HOST = "host"
"""Stands for a backend where none takes part: decoding the frame, drawing the overlay."""

NETWORK = "network"
"""Time of the network alone, whatever runs it."""

END_TO_END = "end_to_end"
"""Time of one call of ``MeshRecoverer``."""

STAGES = ("decode", "crop", "upload", NETWORK, "download", "packing", "overlay")
"""What a frame goes through, in this order."""

TIMED = (NETWORK, END_TO_END, *(stage for stage in STAGES if stage != NETWORK))
"""All that a row has times of."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a backend, a frame or a device."""
    return _NAME.fullmatch(text) is not None


class Kind(Enum):
    """Kinds of parts, by the word that their names begin with."""

    FLOOR = "floor"
    START = "start"
    SOAK = "soak"
    BATCH = "batch"
    FRAME = "frame"


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Attributes:
        kind: What is measured in it.
        backend: Whose start or memory it is; empty for the other kinds.
        frame: Name of the frame; empty for the other kinds.
        count: Crops of a batch, or persons in a frame; 0 for the other kinds.
    """

    kind: Kind
    backend: str = ""
    frame: str = ""
    count: int = 0

    @classmethod
    def start(cls, backend: str) -> Part:
        """The start of a backend in a process of its own."""
        return cls(Kind.START, backend=backend)

    @classmethod
    def soak(cls, backend: str) -> Part:
        """A backend's memory over many frames."""
        return cls(Kind.SOAK, backend=backend)

    @classmethod
    def batch(cls, crops: int) -> Part:
        """The network, and whole frames with as many persons, for so many crops in a call."""
        return cls(Kind.BATCH, count=crops)

    @classmethod
    def of_frame(cls, frame: str, persons: int) -> Part:
        """Whole frames with so many persons."""
        return cls(Kind.FRAME, frame=frame, count=persons)

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of a name.

        Raises:
            ValueError: No part has this name.
        """
        match text.split("/"):
            case ["floor"]:
                return FLOOR
            case ["start", name] if is_name(name):
                return cls.start(name)
            case ["soak", name] if is_name(name):
                return cls.soak(name)
            case ["batch", count] if _is_count(count):
                return cls.batch(int(count))
            case ["frame", name, count] if is_name(name) and _is_count(count):
                return cls.of_frame(name, int(count))
        raise ValueError(f"{text[:100]!r} is not the name of a part")

    def __str__(self) -> str:
        return _joined(self.kind.value, self.backend, self.frame, self.count or "")


FLOOR = Part(Kind.FLOOR)


@dataclass(frozen=True)
class FloorCase:
    """What a floor was computed for.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``mixed``.
        crops: Crops in the call.
    """

    device: str
    precision: str
    crops: int

    @classmethod
    def parse(cls, text: str) -> FloorCase:
        """The case of a name such as ``cpu/fp32/8``.

        Raises:
            ValueError: It is something else.
        """
        match text.split("/"):
            case [device, precision, crops] if is_name(device) and is_name(precision) and _is_count(crops):
                return cls(device, precision, int(crops))
        raise ValueError(f"{text[:100]!r} is not device/precision/crops")

    def __str__(self) -> str:
        return _joined(self.device, self.precision, self.crops)


def _is_count(text: str) -> bool:
    return _COUNT.fullmatch(text) is not None and int(text) <= MOST_CROPS


def _joined(*pieces: object) -> str:
    return "/".join(str(piece) for piece in pieces if piece != "")


def check_names(names: Iterable[str], what: str) -> None:
    """Refuse texts that cannot be names.

    Raises:
        ValueError: One of them cannot.
    """
    for name in names:
        if not is_name(name):
            raise ValueError(f"{name[:100]!r} is not the name of a {what}")
