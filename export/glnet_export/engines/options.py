"""What may be asked of an engine, and how it is written on a command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from glnet_infer.contract import LARGEST_BATCH, LARGEST_FRAME, SMALLEST_FRAME


@dataclass(frozen=True)
class EngineOptions:
    """How to build an engine.

    Attributes:
        flavor: ``tensorrt`` or ``tensorrt-rtx``; None chooses by what is installed and which GPU is present.
        compute_capabilities: GPUs to compile for, such as ``8.9``; TensorRT for RTX only. Empty: this machine's, or the
            usual ones.
        profile: Smallest, most usual and largest number of crops in one run.
        largest_frame: Width and height of the largest frame that crops are cut from on the GPU.
        level: Effort of the builder, 0 to 5; its own choice where None.
        workspace: Scratch memory that layers may use on the GPU, MiB; no limit of ours where None.
        lean: Build for TensorRT's lean runtime, which alone runs the engine then; classic TensorRT only.
        timing_cache: File that keeps the builder's measurements for the next build; classic TensorRT only.
        precision: ``mixed`` or ``int8``: which of the bundle's graphs it is built from.
    """

    flavor: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    profile: tuple[int, int, int] = (1, 4, 16)
    largest_frame: tuple[int, int] = (3840, 2160)
    level: int | None = None
    workspace: int | None = None
    lean: bool = False
    timing_cache: Path | None = None
    precision: str = "mixed"


@dataclass(frozen=True)
class HalfOptions:
    """Mixed precision of the module, and what it may cost.

    Attributes:
        float32_modules: Names of modules that stay in float32, with ``*`` and ``?``.
        crops: Rendered crops that half precision is compared with float32 on.
        max_error_mm: Largest mean vertex error that it may cost, millimetres.
        min_agreement: Least share of crops whose vertices must move by less than 2 mm on average.
    """

    float32_modules: tuple[str, ...] = ()
    crops: int = 32
    max_error_mm: float = 1.0
    min_agreement: float = 0.95


def parse_profile(text: str) -> tuple[int, int, int]:
    """``1:4:16`` as numbers of crops.

    Raises:
        ValueError: It is written otherwise, or not in ascending order.
    """
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not MIN:OPT:MAX, such as 1:4:16")
    smallest, usual, largest = (int(number) for number in match.groups())
    if not 1 <= smallest <= usual <= largest <= LARGEST_BATCH:
        raise ValueError(f"{text!r} is not 1 <= MIN <= OPT <= MAX <= {LARGEST_BATCH}")
    return smallest, usual, largest


def parse_frame(text: str) -> tuple[int, int]:
    """``3840x2160`` as width and height.

    Raises:
        ValueError: It is written otherwise, or no frame has such sides.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not WIDTHxHEIGHT, such as 3840x2160")
    width, height = int(match[1]), int(match[2])
    if not all(SMALLEST_FRAME <= side <= LARGEST_FRAME for side in (width, height)):
        raise ValueError(f"{text!r} has a side that is not from {SMALLEST_FRAME} to {LARGEST_FRAME}")
    return width, height


def parse_compute_capabilities(text: str) -> tuple[str, ...]:
    """``86,89,120`` as ``8.6``, ``8.9``, ``12.0``; in this order, each once.

    Raises:
        ValueError: It is written otherwise.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part.strip(), re.IGNORECASE)
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a compute capability, such as 89")
        found.append(f"{int(match[1])}.{match[2]}")
    return tuple(dict.fromkeys(found))
