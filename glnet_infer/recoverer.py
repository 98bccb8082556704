"""From an image and boxes to meshes: the runtime in one class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.backends import (
    Backend,
    DeviceOutputs,
    Frame,
    FrameBackend,
    Outputs,
    open_backend,
    open_fastest,
    usual_batch_size,
)
from glnet_infer.bundle import Bundle
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import GRID_STRIDE, TensorSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.device_arrays import COPY_TO_HOST, DeviceMeshes, is_device_array
from glnet_infer.errors import BackendError, InputError
from glnet_infer.images import check_boxes, check_device_image, check_image
from glnet_infer.results.meshes import Meshes

MAXIMUM_THREADS = 1024
"""More than any machine has; starting a hundred thousand takes minutes."""


class MeshRecoverer:
    """Recovers meshes of the persons in images.

    Args:
        bundle: Directory that ``glnet-export`` made.
        backend: A name from ``glnet_infer.backends.BACKENDS``, or a backend of your own. What is asked for by name is
            used or refused, never replaced; ``repr`` and every result say what runs.
        batch_size: Most crops in one call of the backend; more boxes are run in several calls. Bounds memory. None: what
            suits the backend, :func:`usual_batch_size`. A backend that cuts crops from the frame itself gets all boxes at
            once, and bounds memory by its engine.
        threads: Threads of CPU kernels; the backend's own choice where None.

    Raises:
        BundleError: The bundle is missing, damaged or changed.
        BackendError: The backend is not installed or cannot start.

    With ONNX Runtime, one recoverer may be called from several threads at once. With TensorRT, give each thread its own, on
    a clone of the backend (docs/backends.md).

    Attributes:
        backend_reason: Why ``auto`` took nothing faster although there is a GPU; empty where nothing is lost.
    """

    def __init__(
        self,
        bundle: str | Path,
        backend: str | Backend = "auto",
        *,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise InputError(f"batch_size is {batch_size!r}.", why="it counts crops", fix="use 1 or more, or None")
        if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MAXIMUM_THREADS):
            raise InputError(f"threads is {threads!r}.", fix=f"use a whole number from 1 to {MAXIMUM_THREADS}, or None")
        self.bundle = Bundle.open(bundle)
        self.backend_reason = ""
        if backend == "auto":
            backend, self.backend_reason = open_fastest(self.bundle, threads)
        self._backend = open_backend(backend, self.bundle, threads) if isinstance(backend, str) else backend
        self.batch_size = batch_size or usual_batch_size(self._backend)

    @property
    def backend(self) -> str:
        """What runs the network, and where."""
        return self._backend.name

    def __repr__(self) -> str:
        network = self.bundle.manifest.network
        weights = "random weights, " if network.weights == "random" else ""
        return f"MeshRecoverer({network.name}, {weights}body={self.bundle.manifest.body.name!r}, backend={self.backend!r})"

    def __call__(
        self,
        image: Any,
        boxes: ArrayLike | None = None,
        intrinsics: Intrinsics | ArrayLike | None = None,
    ) -> Meshes:
        """Recover one mesh per box.

        Args:
            image: H x W x 3 uint8, BGR, as ``cv2.imread`` gives it; or such an array on the GPU, of any library that speaks
                ``__cuda_array_interface__`` or DLPack, for the backend ``tensorrt`` (docs/backends.md).
            boxes: N rows of x1, y1, x2, y2 in image pixels; a box may reach over the image's edge. None: one person
                fills the image.
            intrinsics: The image's camera, as :class:`Intrinsics` or 3 x 3 matrix. None:
                :meth:`Intrinsics.guess`, whose distances are only as good as the guess.

        Returns:
            Meshes in the order of the boxes; none for no boxes.

        Raises:
            InputError: Image, boxes or intrinsics cannot be used.
            BackendError: The backend failed.
        """
        frame = self._frame(image)
        height, width = frame.shape[:2]
        checked = check_boxes(boxes, width, height)
        if intrinsics is None:
            intrinsics = Intrinsics.guess(width, height)
        elif not isinstance(intrinsics, Intrinsics):
            intrinsics = Intrinsics.from_matrix(intrinsics)
        squares = CropSquares.around(checked, self.bundle.manifest.crop)
        outputs, device = self._run(frame, squares, squares.cameras(intrinsics))
        cells = outputs["reference_pixel"].astype(np.float64)
        return Meshes(
            vertices=outputs["vertices"],
            joints=outputs["joints"],
            keypoints_2d=squares.to_image(outputs["keypoints_2d"]).astype(np.float32),
            rotations=outputs["rotations"],
            betas=outputs["betas"],
            translation=outputs["translation"],
            confidence=outputs["confidence"],
            reference_points=squares.to_image((cells + 0.5) * GRID_STRIDE).astype(np.float32),
            boxes=checked,
            intrinsics=intrinsics,
            image_size=(width, height),
            faces=self.bundle.faces,
            backend=self.backend,
            device=device,
        )

    def _frame(self, image: Any) -> Frame:
        """What crops are cut from, checked.

        Raises:
            InputError: It is no image, or it lies on the GPU and the backend cannot cut crops from it there.
        """
        if not is_device_array(image):
            return check_image(image)
        if not isinstance(self._backend, FrameBackend):
            raise InputError(
                f"The image is a {type(image).__name__} on the GPU.",
                why=f"the backend {self.backend} takes images of the host",
                fix=f"use the backend tensorrt, or {COPY_TO_HOST}",
            )
        frame = self._backend.view(image)
        check_device_image(frame)
        obstacle = self._backend.frame_obstacle(frame.shape[1], frame.shape[0])
        if obstacle:
            raise InputError(
                f"{self.backend} cannot cut crops from this {type(image).__name__} on the GPU.",
                why=obstacle,
                fix=f"{COPY_TO_HOST}; for larger frames, rebuild with glnet-export CHECKPOINT --trt --frame WIDTHxHEIGHT",
            )
        return frame

    def _run(self, frame: Frame, squares: CropSquares, cameras: NDArray[np.float32]) -> tuple[Outputs, DeviceMeshes | None]:
        """Outputs of all crops, and where they lie on the GPU after a single call of the backend."""
        specs = self.bundle.manifest.outputs
        if not len(cameras):
            return {spec.name: self._empty(spec) for spec in specs}, None
        batches = list(self._batches(frame, squares, cameras))
        if len(batches) == 1:
            (outputs,) = batches
            return outputs, outputs.device if isinstance(outputs, DeviceOutputs) else None
        return {spec.name: np.concatenate([batch[spec.name] for batch in batches]) for spec in specs}, None

    def _batches(self, frame: Frame, squares: CropSquares, cameras: NDArray[np.float32]) -> Iterator[Outputs]:
        """Outputs batch by batch; all at once where the backend cuts the crops out of the frame."""
        height, width = frame.shape[:2]
        backend = self._backend
        if isinstance(backend, FrameBackend) and not backend.frame_obstacle(width, height):
            outputs = backend.run_frame(frame, squares.in_frame(width, height), cameras)
            self._check(outputs, len(cameras))
            yield outputs
            return
        crops = cut_crops(cast(NDArray[np.uint8], frame), squares)  # frames of the GPU have met no obstacle
        for start in range(0, len(crops), self.batch_size):
            batch = slice(start, start + self.batch_size)
            outputs = backend.run(crops[batch], cameras[batch])
            self._check(outputs, len(crops[batch]))
            yield outputs

    def _check(self, outputs: Outputs, count: int) -> None:
        """Refuse outputs that are not what the manifest promises, or not numbers."""
        for spec in self.bundle.manifest.outputs:
            found = outputs[spec.name]
            if found.shape != (count, *spec.shape[1:]):
                raise BackendError(
                    f"{self.backend} gave {spec.name} of shape {found.shape}.",
                    why=f"the bundle promises {(count, *spec.shape[1:])}",
                    fix="use a backend that runs this very bundle",
                )
            if not np.isfinite(found).all():
                raise BackendError(
                    f"{self.backend} gave {spec.name} that are not finite numbers.",
                    why="the network overflowed, or its weights are damaged",
                    fix="compare with another backend, and export the checkpoint again",
                )

    @staticmethod
    def _empty(spec: TensorSpec) -> NDArray[Any]:
        """No rows of an output, of the right width."""
        return np.zeros((0, *(int(side) for side in spec.shape[1:])), dtype=spec.dtype)

    def close(self) -> None:
        """Free the backend."""
        self._backend.close()

    def __enter__(self) -> MeshRecoverer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
