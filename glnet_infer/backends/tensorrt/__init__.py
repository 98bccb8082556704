"""TensorRT, its lean runtime and TensorRT for RTX behind one backend."""

from glnet_infer.backends.tensorrt.backend import TensorRtBackend

__all__ = ["TensorRtBackend"]
