"""Persons that a bundle keeps, so that an engine can be compared with float32 where it is built, without torch."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_export.engines.progress import StageReport
from glnet_infer.archives import ArraySpec, read_archive
from glnet_infer.backends import open_backend
from glnet_infer.backends.base import Outputs
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import ENGINES, INT8_ENGINES, LARGEST_FILE, FileRecord
from glnet_infer.errors import BackendError, BundleError, ExportError
from glnet_infer.fields import quote
from glnet_infer.results.formats import write_npz

REFERENCE_NAME = "reference.npz"

MAX_MEAN_MM, MIN_SMALL_EFFECT = 1.0, 0.95
"""Bounds where the graph's own comparison recorded none."""

SMALL_EFFECT_MM = 2.0
"""Mean vertex distance from which a crop's answer counts as another one."""


@dataclass(frozen=True)
class EngineReport:
    """An engine compared with float32 on the same crops.

    Distances are between vertices relative to the root joint, over crops that choose the same pixel.

    Attributes:
        crops: Number of crops.
        vertices_mean_mm: Mean distance.
        vertices_max_mm: Largest distance.
        pixel_agreement: Share of crops that choose the same pixel.
        small_effect: Share of crops whose vertices move by less than 2 mm on average.
    """

    crops: int
    vertices_mean_mm: float
    vertices_max_mm: float
    pixel_agreement: float
    small_effect: float

    def __str__(self) -> str:
        return (
            f"{self.crops} crops against float32: vertices {self.vertices_mean_mm:.2f} mm on average, "
            f"{self.vertices_max_mm:.1f} mm at most, same pixel in {self.pixel_agreement:.0%}"
        )


def write_reference(path: Path, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
    """Write the persons into a bundle: N x C x C x 3 crops, RGB, and their N x 4 cameras."""
    write_npz(path, {"crops": crops, "cameras": cameras})


def read_reference(bundle: Bundle, record: FileRecord) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The persons of a bundle: crops and cameras, as :func:`write_reference` takes them.

    Raises:
        BundleError: The file is not what the manifest records, or does not hold persons.
    """
    side = bundle.manifest.crop.size
    arrays = read_archive(
        io.BytesIO(bundle.read(record)),
        {"crops": ArraySpec(("N", side, side, 3), "uint8"), "cameras": ArraySpec(("N", 4), "float32")},
        BundleError,
        what=f"{record.file} of the bundle was not read.",
        fix="where PyTorch is, export the checkpoint again with --mixed",
        limit=LARGEST_FILE,
    )
    return arrays["crops"], arrays["cameras"]


def _bounds(bundle: Bundle, precision: str = "mixed") -> tuple[float, float]:
    """Most millimetres on average, least share of small effects.

    They are what the graph's own comparison was judged by. A graph in int8 was judged by the truth, which a bundle does not
    hold: its engine may move vertices twice as far as the graph did, for the persons are others.
    """
    graph = bundle.manifest.graph_for(INT8_ENGINES if precision == "int8" else ENGINES)
    bounds = {} if graph is None else graph.parity.get("bounds", {})
    defaults: dict[str, float | None] = {"vertices_mean_mm": MAX_MEAN_MM, "small_effect": MIN_SMALL_EFFECT}
    if precision == "int8" and graph is not None:
        bounds, defaults = graph.parity, {"vertices_mean_mm": None}
    found = []
    for name, default in defaults.items():
        value = bounds.get(name, default) if isinstance(bounds, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BundleError(
                f"The bundle {bundle.directory} is damaged.",
                why=f"the bound {name} of {'no graph' if graph is None else graph.file.file} is {quote(value)}",
                fix="copy the bundle again, or export the checkpoint again",
            )
        found.append(float(value))
    return (2 * found[0], 0.0) if precision == "int8" else (found[0], found[1])


def compare_outputs(expected: Outputs, found: Outputs) -> EngineReport:
    """Compare the outputs of two backends on the same crops."""
    relative = [outputs["vertices"] - outputs["joints"][:, :1] for outputs in (expected, found)]
    distances = 1000 * np.linalg.norm(relative[0] - relative[1], axis=-1)
    agree = (expected["reference_pixel"] == found["reference_pixel"]).all(axis=1)
    if not agree.any():
        return EngineReport(len(agree), float("inf"), float("inf"), 0.0, 0.0)
    kept = distances[agree]
    small = distances.mean(axis=1) < SMALL_EFFECT_MM
    return EngineReport(len(agree), float(kept.mean()), float(kept.max()), float(agree.mean()), float(small.mean()))


def judge_by_reference(bundle: Bundle, precision: str = "mixed") -> Any:
    """A judge (``glnet_export.engines.stages.Judge``) that compares an engine with ONNX Runtime on the bundle's persons.

    Args:
        bundle: Holds the persons.
        precision: The engine's, ``mixed`` or ``int8``.
    """

    def judge(backend: TensorRtBackend, report: StageReport) -> dict[str, Any]:
        if bundle.manifest.reference is None:
            report.say("not compared: the bundle holds no persons to compare on")
            return {}
        try:
            float32 = open_backend("onnxruntime-cpu", bundle)
        except BackendError as error:
            report.say(f"not compared with float32: {error.what}")
            return {}
        crops, cameras = read_reference(bundle, bundle.manifest.reference)
        found = compare_outputs(float32.run(crops, cameras), _in_pieces(backend, crops, cameras))
        float32.close()
        report.say(str(found))
        most, least = _bounds(bundle, precision)
        if bundle.manifest.network.weights == "random":
            report.say("random weights: not judged")
        elif not (found.vertices_mean_mm <= most and found.small_effect >= least):
            raise ExportError(
                "The engine is too far from float32.",
                why=f"{found}; at most {most} mm on average, and under {SMALL_EFFECT_MM:g} mm in {least:.0%}, are allowed",
                fix="the module alone is within its bounds: try another version of TensorRT or of the driver",
            )
        return {"backend": backend.name, "reference": "onnxruntime-cpu", **asdict(found)}

    return judge


def _in_pieces(backend: TensorRtBackend, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
    """Outputs of all crops, in batches of all sizes that the engine has."""
    parts, start, turn = [], 0, 0
    while start < len(crops):
        size = backend.buckets[turn % len(backend.buckets)]
        parts.append(backend.run(crops[start : start + size], cameras[start : start + size]))
        start, turn = start + size, turn + 1
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
