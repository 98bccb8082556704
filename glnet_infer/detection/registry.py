"""The table of detectors: what finds persons by a name. Everything that names detectors reads it.

Other packages join it by the entry point ``glnet_infer.detectors`` (docs/detectors.md).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from glnet_infer.detection.base import DEFAULT_THRESHOLD, Detector, WholeImage
from glnet_infer.entry_points import with_offered
from glnet_infer.errors import InputError
from glnet_infer.numbers import is_number

ENTRY_POINTS = "glnet_infer.detectors"
FILE_FORM = "FILE.onnx"
DEFAULT_DETECTOR = "nanodet"


@dataclass(frozen=True)
class DetectorKind:
    """An entry of the table.

    Attributes:
        name: The name that users ask for, such as ``nanodet``.
        finds: What it is, for messages.
        open: Opens it with the least score that counts as a person, and so many threads of CPU kernels (None: its own
            choice). Raises ``BackendError``.
    """

    name: str
    finds: str
    open: Callable[[float, int | None], Detector]


def _open_nanodet(threshold: float, threads: int | None) -> Detector:
    from glnet_infer.detection.nanodet import NanoDet

    return NanoDet(threshold)  # OpenCV's threads are the process's, for all that it does


BUILT_IN = (
    DetectorKind(DEFAULT_DETECTOR, "NanoDet-g, which comes with this library", _open_nanodet),
    DetectorKind("none", "one person fills the image", lambda threshold, threads: WholeImage()),
)
"""The detectors of this library."""


@functools.cache
def kinds() -> dict[str, DetectorKind]:
    """The table by name: this library's detectors, then those of other packages. A built-in name cannot be taken over."""
    return with_offered(BUILT_IN, ENTRY_POINTS, "detector", DetectorKind)


def detector_names() -> tuple[str, ...]:
    """Names that users may ask for, beside the path of an ONNX file."""
    return tuple(kinds())


def open_detector(detector: str | Path, *, threshold: float = DEFAULT_THRESHOLD, threads: int | None = None) -> Detector:
    """Open a detector.

    Args:
        detector: One of :func:`detector_names`, or an ONNX file: ``FILE.onnx`` of a known family, or ``FILE.onnx:FAMILY``.
        threshold: Least score of what counts as a person, 0 to 1.
        threads: Threads of CPU kernels. None: the detector's own choice.

    Raises:
        InputError: No such detector, a file of no known family, or a threshold that is no score.
        BackendError: It cannot start.
    """
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise InputError(f"The detector's threshold is {threshold!r:.40}.", why="scores are 0 to 1", fix="give 0 to 1")
    kind = kinds().get(detector) if isinstance(detector, str) else None
    if kind is not None:
        return kind.open(threshold, threads)
    file = detector_file(detector)
    if file is None:
        raise InputError(
            f"There is no detector {str(detector)!r}.",
            fix=f"detectors: {', '.join(f'{each.name} ({each.finds})' for each in kinds().values())}, or {FILE_FORM}",
        )
    from glnet_infer.detection.onnx_file import OnnxDetector

    return OnnxDetector(file.path, file.family, threshold, threads)


class DetectorFile(NamedTuple):
    """A detector that is an ONNX file.

    Attributes:
        path: The file.
        family: Name of its family; None finds it by names and shapes.
    """

    path: Path
    family: str | None

    def __str__(self) -> str:
        return f"{self.path}" if self.family is None else f"{self.path}:{self.family}"

    def sha256(self) -> str:
        """The file's hash.

        Raises:
            InputError: It cannot be read.
        """
        from glnet_infer.detection.onnx_file import detector_content

        return hashlib.sha256(detector_content(self.path)).hexdigest()


def detector_file(detector: str | Path) -> DetectorFile | None:
    """The file that a detector's name means; None for one of the table, and for what is no detector."""
    text = str(detector)
    if isinstance(detector, str) and detector in kinds():
        return None
    head, colon, family = text.rpartition(":")
    if colon and head.lower().endswith(".onnx"):
        return DetectorFile(Path(head), family)
    return DetectorFile(Path(text), None) if text.lower().endswith(".onnx") else None
