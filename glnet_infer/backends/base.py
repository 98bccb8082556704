"""The protocol of inference backends, and of those that can do more."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glnet_infer.device_arrays import DeviceFrame, DeviceMeshes
from glnet_infer.errors import BackendError

Outputs = dict[str, NDArray[Any]]
"""Arrays under the names of ``glnet_infer.contract.GRAPH_OUTPUTS``."""

Frame = NDArray[np.uint8] | DeviceFrame
"""An image to cut crops from, on the host or on the GPU."""


USUAL_BATCH_SIZE = 16
"""Crops in one call, for backends that do not say what suits them."""


class DeviceOutputs(dict[str, NDArray[Any]]):
    """Outputs of a backend that leaves them on the GPU, too.

    Attributes:
        device: The arrays on the GPU, valid until the backend's next call. None: the call ran in pieces.
    """

    def __init__(self, arrays: Outputs, device: DeviceMeshes | None) -> None:
        super().__init__(arrays)
        self.device = device


class Backend(Protocol):
    """Runs the graph. One call at a time and thread, unless the implementation says more.

    One that works best on a certain number of crops at once says so in an attribute ``batch_size``, 1 or more.
    """

    @property
    def name(self) -> str:
        """What runs the graph, and where: ``onnxruntime-cpu``, for example. Messages and results show it."""

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """Run N >= 1 crops (N x C x C x 3) with their cameras (N x 4).

        Raises:
            BackendError: The backend failed; its own words are in the message.
        """

    def close(self) -> None:
        """Free what the backend holds. Calling it twice is allowed."""


@runtime_checkable
class FrameBackend(Protocol):
    """A backend that cuts the crops itself."""

    def frame_obstacle(self, width: int, height: int) -> str:
        """Why it cannot cut crops from a frame of this size; empty where it can."""

    def view(self, array: Any) -> DeviceFrame:
        """Another library's array on the GPU as a frame, for the next :meth:`run_frame`.

        Raises:
            InputError: It cannot be taken.
        """

    def run_frame(self, frame: Frame, squares: NDArray[np.float32], cameras: NDArray[np.float32]) -> Outputs:
        """Run N >= 1 crops of a frame.

        Args:
            frame: H x W x 3 uint8, BGR, C-contiguous where it is on the GPU.
            squares: N x levels x 4, as :meth:`glnet_infer.crops.CropSquares.in_frame` gives them.
            cameras: N x 4.

        Raises:
            BackendError: The backend failed.
        """


def usual_batch_size(backend: Backend) -> int:
    """Number of crops that suit a backend in one call: its own ``batch_size``, where it has one.

    Raises:
        BackendError: That is no number of crops.
    """
    size = getattr(backend, "batch_size", USUAL_BATCH_SIZE)
    if not isinstance(size, int) or size < 1:
        raise BackendError(f"The backend {backend.name} has batch_size {size!r}.", fix="let it be a whole number from 1 on")
    return size
