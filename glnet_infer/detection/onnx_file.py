"""A detector that the user brings as an ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.detection.base import DEFAULT_THRESHOLD, Detections
from glnet_infer.detection.families import FAMILIES, Family, Shape
from glnet_infer.detection.framing import detections
from glnet_infer.errors import BackendError, InputError, first_line, one_line
from glnet_infer.files import read_file
from glnet_infer.forks import HomeProcess, OfThisProcess, keep_through_forks
from glnet_infer.images import check_image
from glnet_infer.onnx_files import BRANCHES, OnnxContent
from glnet_infer.onnxruntime_sessions import open_session, session_options

LARGEST_FILE = 2 << 30
"""Bytes. More does not fit into an ONNX file."""

USUAL_SIDE = 640
"""Pixels, where the file leaves the size of its input open."""

LARGEST_SIDE = 4096
"""Pixels. Inputs of detectors are far smaller."""

_IMAGE_TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_SIZE_TYPES: dict[str, Any] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class OnnxDetector(OfThisProcess):
    """Finds persons with a network of one of the known families. May be called from several threads at once.

    Args:
        path: The ONNX file.
        family: Name of its family; None finds it by names and shapes.
        threshold: Least score of what counts as a person.
        threads: Threads of ONNX Runtime; one for each core that this process may use where None.
        content: What :func:`detector_content` read, so that nothing else is run. None: the file is read here.

    Raises:
        InputError: The file is missing, damaged or not a detector of a known family.
        BackendError: ONNX Runtime is not installed.

    Attributes:
        family: The family that it belongs to.
    """

    def __init__(
        self,
        path: Path,
        family: str | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        threads: int | None = None,
        content: bytes | None = None,
    ) -> None:
        if family is not None and family not in FAMILIES:
            raise InputError(f"There is no family of detectors {family!r}.", fix=f"families: {', '.join(FAMILIES)}")
        self._path, self._threshold = path, threshold
        self._home = HomeProcess()
        self._session = _open(path, detector_content(path) if content is None else content, threads)
        self._image, self._sizes = self._inputs()
        sides = self._image.shape[2:]
        self._height, self._width = (side if isinstance(side, int) else USUAL_SIDE for side in sides)
        if not all(1 <= side <= LARGEST_SIDE for side in (self._height, self._width)):
            raise self._unknown(
                f"its input has {self._height} x {self._width} pixels, and at most {LARGEST_SIDE} are taken"
            )
        self.family, self._names = self._find(family)

    def __repr__(self) -> str:
        return f"OnnxDetector({str(self._path)!r}, family={self.family.name!r}, threshold={self._threshold})"

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """See :class:`glnet_infer.detection.Detector`."""
        self._home.check(f"detector {self._path}", "open the detector after the fork")
        framed = self.family.frame(check_image(image), self._width, self._height)
        try:
            outputs = self._run(self.family.tensor(framed), framed.size)
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this
            raise BackendError(
                f"The detector {self._path} failed.", why=one_line(error), fix="free memory if it ran out, or give boxes"
            ) from error
        shapes = _shapes(outputs)
        of_image = {name: shapes.get(theirs, ()) for name, theirs in self._names.items()}
        if not self.family.accepts(of_image, self._height, self._width):
            raise BackendError(
                f"The detector {self._path} gave outputs of other shapes than before.",
                why=f"it gave {_in_words(outputs)}",
                fix="export it again",
            )
        with np.errstate(all="ignore"):  # what is no number is dropped
            arrays = {name: outputs[theirs][0].astype(np.float64) for name, theirs in self._names.items()}
            boxes, scores = self.family.read(arrays, framed)
            scores = np.asarray(scores, np.float64).astype(np.float32)
        return detections(boxes, scores, framed.size, self._threshold, duplicates=self.family.duplicates)

    def _inputs(self) -> tuple[Any, Any]:
        """The input for the image, and the one for its size or None."""
        inputs = self._session.get_inputs()
        images = [each for each in inputs if len(each.shape) == 4 and each.shape[1] == 3 and each.type in _IMAGE_TYPES]
        others = [each for each in inputs if each not in images]
        free = all(each.shape[0] == 1 or not isinstance(each.shape[0], int) for each in images)
        sizes = all(len(each.shape) == 2 and each.type in _SIZE_TYPES for each in others)
        if len(images) != 1 or len(others) > 1 or not free or not sizes:
            raise self._unknown("")
        return images[0], others[0] if others else None

    def _find(self, forced: str | None) -> tuple[Family, dict[str, str]]:
        """The file's family, and its names of the outputs. Shapes show when it runs: a file may leave them open."""
        blank = np.full((1, 3, self._height, self._width), 0.5, np.float32)
        try:
            outputs = self._run(blank, (self._width, self._height))
        except Exception as error:  # see above
            raise InputError(
                f"ONNX Runtime does not run {self._path}.", why=one_line(error), fix="export the detector again"
            ) from error
        shapes = _shapes(outputs)
        for family in FAMILIES.values():
            if forced != family.name and (forced or family.forced):
                continue
            if bool(family.sizes) != (self._sizes is not None):
                continue
            if not forced and (self._image.name, getattr(self._sizes, "name", "")) != (family.image, family.sizes):
                continue
            names = family.names(shapes, self._height, self._width, forced=bool(forced))
            if names is not None:
                return family, names
        raise self._unknown(f"it gives {_in_words(outputs)}", forced)

    def _run(self, tensor: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
        """All outputs by name."""
        feeds = {self._image.name: tensor.astype(_IMAGE_TYPES[self._image.type])}
        if self._sizes is not None:
            feeds[self._sizes.name] = np.array([size], _SIZE_TYPES[self._sizes.type])
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feeds), strict=True))

    def _unknown(self, why: str, forced: str | None = None) -> InputError:
        inputs = ", ".join(f"{each.name} {_shape(each.shape)} {each.type}" for each in self._session.get_inputs())
        names = ", ".join(f"{name} ({family.networks})" for name, family in FAMILIES.items())
        known = str(FAMILIES[forced]) if forced else names
        return InputError(
            f"{self._path} is not a detector of {f'the family {forced}' if forced else 'a family that is known'}.",
            why="; ".join(filter(None, (f"it takes {inputs or 'nothing'}", why))),
            fix=f"{'that is' if forced else 'known are'} {known}. FILE.onnx:FAMILY forces one "
            "whose names differ (docs/detectors.md)",
        )


def detector_content(path: Path) -> bytes:
    """The bytes of a detector's file.

    Raises:
        InputError: It cannot be read.
    """
    fix = "check the path and its permissions"
    return read_file(path, InputError, what=f"The detector {path} was not read.", fix=fix, largest=LARGEST_FILE)


def _open(path: Path, content: bytes, threads: int | None) -> Any:
    """A session on the CPU."""
    again = "export the detector again, as one ONNX file without loops"
    try:
        problem = OnnxContent.of(content).problem(BRANCHES)
    except ValueError as error:
        problem = first_line(error)
    if problem:
        raise InputError(f"{path} is not an ONNX file that is taken.", why=problem, fix=again)
    options = session_options(threads)
    options.add_session_config_entry("session.load_model_format", "ONNX")  # which was looked through, and no other
    try:
        session = open_session(content, options)
    except Exception as error:  # see above
        raise InputError(f"ONNX Runtime does not load {path}.", why=one_line(error), fix=again) from error
    keep_through_forks(session)
    return session


def _shapes(outputs: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes without the batch, of the outputs that are numbers of one image."""
    return {
        name: array.shape[1:]
        for name, array in outputs.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.ndim and array.shape[0] == 1
    }


def _in_words(outputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shape(getattr(array, 'shape', ()))}" for name, array in outputs.items())


def _shape(sides: Iterable[Any]) -> str:
    return " x ".join("?" if side is None else str(side) for side in sides)
