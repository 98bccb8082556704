"""glnet-infer: human meshes from photographs, with a lean runtime.

Importing this package loads numpy and OpenCV, never torch, onnx or an inference backend; a backend is loaded when a
:class:`MeshRecoverer` opens it.
"""

from glnet_infer.camera import Intrinsics
from glnet_infer.errors import (
    BackendError,
    BodyError,
    BundleError,
    CheckpointError,
    ExportError,
    GlnetError,
    InputError,
    OutputError,
    TrainingError,
)
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes
from glnet_infer.results.motion import Motion
from glnet_infer.results.skin import Skin
from glnet_infer.version import __version__

__all__ = [
    "BackendError",
    "BodyError",
    "BundleError",
    "CheckpointError",
    "ExportError",
    "GlnetError",
    "InputError",
    "Intrinsics",
    "MeshRecoverer",
    "Meshes",
    "Motion",
    "OutputError",
    "Skin",
    "TrainingError",
    "__version__",
]
