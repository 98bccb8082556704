"""OpenVINO, on the CPU."""

from glnet_infer.backends.openvino.backend import OpenVinoBackend
from glnet_infer.backends.openvino.library import check_precision, describe

__all__ = ["OpenVinoBackend", "check_precision", "describe"]
