"""Arrays on the GPU that are shared with other libraries without a copy: frames that come in, results that go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from glnet_infer.errors import BackendError

_CUDA = 2
"""DLPack's number of GPUs' memory (kDLCUDA)."""

_CUDA_MANAGED = 13

COPY_TO_HOST = "copy it to the host: .cpu().numpy() of a torch tensor, .get() of a CuPy or PyCUDA array"


def is_device_array(value: Any) -> bool:
    """Whether something is an array in a GPU's memory, of whatever library."""
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        # Asked first: torch's tensors that require gradients raise where the other attribute is only looked for.
        return int(value.__dlpack_device__()[0]) in (_CUDA, _CUDA_MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def gpu_of(array: Any) -> int | None:
    """Which GPU an array on one lies on, in CUDA's order; None where it does not say."""
    return int(array.__dlpack_device__()[1]) if hasattr(array, "__dlpack_device__") else None


@dataclass(frozen=True, eq=False)
class DeviceFrame:
    """Another library's array on the backend's GPU; the library keeps it for as long as this lives.

    Attributes:
        address: Address of its first element.
        strides: Elements from one to the next along each axis; None where it is C-contiguous.
        owner: Holds on to it.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    strides: tuple[int, ...] | None
    owner: Any


class Lease:
    """The time for which results on the GPU are valid: until the backend runs again or is closed."""

    def __init__(self) -> None:
        self._end = ""

    def end(self, why: str) -> None:
        """From now on the memory holds something else, or is gone."""
        self._end = self._end or why

    def check(self) -> None:
        """Refuse results that are no more.

        Raises:
            BackendError: The lease is over.
        """
        if self._end:
            raise BackendError(
                "These results on the GPU are no longer there.",
                why=self._end,
                fix="use them, or copy them on the GPU, before the next call of the backend; or take the host's arrays",
            )


class DeviceArray:
    """An array on the GPU, C-contiguous, whose work is done: nobody needs to wait for it.

    It speaks ``__cuda_array_interface__`` (version 3) and DLPack, so that PyCUDA, CuPy, Numba and torch take it without a
    copy. Each of these raises :class:`BackendError` once the backend has run again or is closed; what another library made
    of it earlier cannot be called back, and must not be used any more then.

    Args:
        address: Address of the first element.
        shape: Persons first.
        dtype: Type of the elements.
        lease: The time for which it is valid.
        strided: Makes an object that exports DLPack.
    """

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], lease: Lease, strided: Callable[[], Any]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._address = address
        self._lease = lease
        self._strided = strided

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse NumPy, which would otherwise make an array of one object."""
        raise BackendError(
            "This array is on the GPU.", why="NumPy works on the host", fix="take the same field of the meshes themselves"
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._lease.check()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            # Not marked as read-only: torch refuses arrays that are.
            "data": (self._address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self._lease.check()
        return self._strided().__dlpack__(**options)  # whatever the stream: there is nothing to wait for

    def __dlpack_device__(self) -> tuple[int, int]:
        self._lease.check()
        kind, ordinal = self._strided().__dlpack_device__()
        return int(kind), int(ordinal)


@dataclass(frozen=True, eq=False)
class DeviceMeshes:
    """The backend's results on the GPU, N persons in the order of their boxes; valid until the backend's next call.

    Attributes:
        vertices: N x V x 3 float32, camera coordinates, metres.
        joints: N x 29 x 3 float32, camera coordinates, metres.
        keypoints_2d: N x K x 2 float32, pixels of the CROP, not of the image as in ``Meshes``.
        rotations: N x 24 x 3 x 3 float32.
        betas: N x 10 float32.
        translation: N x 3 float32, metres.
        confidence: N float32.
        reference_pixel: N x 2 int32, the chosen pixel in cells of the crop's grid.
    """

    vertices: DeviceArray
    joints: DeviceArray
    keypoints_2d: DeviceArray
    rotations: DeviceArray
    betas: DeviceArray
    translation: DeviceArray
    confidence: DeviceArray
    reference_pixel: DeviceArray
