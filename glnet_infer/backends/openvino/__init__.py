"""OpenVINO, on the CPU."""

from glnet_infer.backends.openvino.backend import OpenVinoBackend
from glnet_infer.backends.openvino.library import describe

__all__ = ["OpenVinoBackend", "describe"]
