"""Finding persons in images: detectors behind one protocol, opened by name from one table or from an ONNX file."""

from glnet_infer.detection.base import DEFAULT_THRESHOLD, Detections, Detector, find_persons
from glnet_infer.detection.registry import (
    DEFAULT_DETECTOR,
    DetectorKind,
    detector_file,
    detector_names,
    kinds,
    open_detector,
)

__all__ = [
    "DEFAULT_DETECTOR",
    "DEFAULT_THRESHOLD",
    "Detections",
    "Detector",
    "DetectorKind",
    "detector_file",
    "detector_names",
    "find_persons",
    "kinds",
    "open_detector",
]
