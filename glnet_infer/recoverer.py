"""From images and boxes to meshes: the runtime in one class."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.backends import (
    Backend,
    DeviceOutputs,
    Frame,
    FrameBackend,
    Outputs,
    find_kind,
    open_backend,
    open_fastest,
    usual_batch_size,
)
from glnet_infer.backends.promise import Promise
from glnet_infer.bundle import Bundle
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import GRID_STRIDE
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.detection import DEFAULT_DETECTOR, Detector, open_detector
from glnet_infer.device_arrays import COPY_TO_HOST, DeviceMeshes, is_device_array
from glnet_infer.errors import BackendError, InputError
from glnet_infer.forks import OfThisProcess
from glnet_infer.images import check_boxes, check_device_image, check_image
from glnet_infer.persons import Persons, found_boxes, in_groups, with_boxes
from glnet_infer.results.meshes import Meshes
from glnet_infer.results.skin import Skin

if TYPE_CHECKING:
    from glnet_infer.video.following import FollowOptions
    from glnet_infer.video.session import Following
    from glnet_infer.video.sources import Source

MAXIMUM_THREADS = 1024
"""More than any machine has; starting a hundred thousand takes minutes."""


class MeshRecoverer(OfThisProcess):
    """Recovers meshes of the persons in images.

    Args:
        bundle: Directory that ``glnet-export`` made, or a :class:`glnet_infer.bundle.Bundle` that is open already.
        backend: A name from :func:`glnet_infer.backends.backend_names`, or a backend of your own. What is asked for by name
            is used or refused, never replaced; ``repr`` and every result say what runs. None is ``auto``.
        batch_size: Most crops in one call of the backend; more boxes are run in several calls. Bounds memory. None: what
            suits the backend, :func:`usual_batch_size`. A backend that cuts crops from the frame itself gets all boxes at
            once, and bounds memory by its engine.
        threads: Threads of CPU kernels; the backend's own choice where None.
        detector: Finds the persons of images that come without boxes: a name or file as
            :func:`glnet_infer.detection.open_detector` takes it, or a detector of your own. None: one person fills such an
            image.

    Raises:
        BundleError: The bundle is missing, damaged or changed.
        BackendError: The backend or the detector is not installed or cannot start.
        InputError: There is no such detector.

    With ONNX Runtime, one recoverer may be called from several threads at once. With TensorRT, give each thread its own, on
    a clone of the backend (docs/backends.md). A process that is forked from this one makes its own.

    Attributes:
        backend_reason: Why ``auto`` took nothing faster although there is a GPU, or what speaks against the one that
            was asked for; empty where nothing is lost.
        detector: The detector; None where there is none.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: str | Backend | None = "auto",
        *,
        batch_size: int | None = None,
        threads: int | None = None,
        detector: Detector | str | Path | None = None,
    ) -> None:
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise InputError(f"batch_size is {batch_size!r}.", why="it counts crops", fix="use 1 or more, or None")
        if threads is not None and (type(threads) is not int or not 1 <= threads <= MAXIMUM_THREADS):
            raise InputError(f"threads is {threads!r}.", fix=f"use a whole number from 1 to {MAXIMUM_THREADS}, or None")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self._named_detector = detector if isinstance(detector, str | Path) else None
        self.detector = open_detector(detector, threads=threads) if isinstance(detector, str | Path) else detector
        self.backend_reason = ""
        if backend is None or backend == "auto":
            backend, self.backend_reason = open_fastest(self.bundle, threads)
        elif isinstance(backend, str):
            self.backend_reason = find_kind(backend).caution()
        self._backend = open_backend(backend, self.bundle, threads) if isinstance(backend, str) else backend
        self._promise = Promise(self.bundle)
        self._threads, self._closed = threads, False
        self.batch_size = batch_size or usual_batch_size(self._backend)

    @property
    def backend(self) -> str:
        """What runs the network, and where: ``onnxruntime-cpu``, for example."""
        return self._backend.name

    @functools.cached_property
    def skin(self) -> Skin | None:
        """The body's skin, for :class:`glnet_infer.Motion`; None where the bundle has none.

        Raises:
            BundleError: The bundle has one, and it was changed.
            InputError: The bundle has one, and it is damaged.
        """
        content = self.bundle.skin()
        return None if content is None else Skin.load(content)

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
            boxes: N rows of x1, y1, x2, y2 in image pixels; a box may reach over the image's edge. None: the persons that
                the detector finds; without a detector, one person fills the image.
            intrinsics: The image's camera, as :class:`Intrinsics` or 3 x 3 matrix. None:
                :meth:`Intrinsics.guess`, whose distances are only as good as the guess.

        Returns:
            Meshes in the order of the boxes, or of the detector's scores; none for no boxes.

        Raises:
            InputError: Image, boxes or intrinsics cannot be used.
            BackendError: The backend or the detector failed.
        """
        return self.recover([self.prepare(image, boxes, intrinsics)])[0]

    def recover_many(
        self,
        images: Iterable[Any],
        boxes: Iterable[ArrayLike | None] | None = None,
        intrinsics: Intrinsics | ArrayLike | None = None,
    ) -> Iterator[Meshes]:
        """Recover the persons of many images: a video, or photographs with few persons each.

        Crops are run in batches across images, which is faster than one image at a time. Only the crops of one batch are
        held, never the images. A backend that cuts crops from the frame itself runs image by image.

        Args:
            images: Images of one or several sizes, each as :meth:`__call__` takes it. They are taken when they are needed.
            boxes: The boxes of each image, as :meth:`__call__` takes them. None: none are known, of any image.
            intrinsics: The camera of all images. None: :meth:`Intrinsics.guess` of each image's size.

        Yields:
            The meshes of each image, in order, up to a batch behind ``images``.

        Raises:
            InputError: An image, its boxes or the camera cannot be used, or there are not as many boxes as images.
            BackendError: The backend or the detector failed.
        """
        pairs = zip(images, repeat(None)) if boxes is None else with_boxes(images, boxes)
        prepared = (self.prepare(image, each, intrinsics) for image, each in pairs)
        for group in in_groups(prepared, self.fits):
            yield from self.recover(group)

    def follow(
        self,
        source: Source | str | Path,
        *,
        detector: Detector | str | Path | None = None,
        options: FollowOptions | None = None,
        smooth: bool = True,
        pose: bool = True,
    ) -> Following:
        """Follow the persons of a video, webcam or stream.

        ::

            with recoverer.follow("clip.mp4") as following:
                for frame in following:
                    print(frame.time, frame.tracks, frame.meshes.joints.shape)
                following.motion().save("clip.npz")

        Args:
            source: What :func:`glnet_infer.video.sources.open_source` takes, or a source that it opened. Closed with the
                result.
            detector: Finds the persons, as in the constructor. None: the recoverer's own, or else the one that comes with
                this library. One that is given by name is opened so that it tells of unsure persons, too.
            options: How persons are followed: how often they are looked for, how many, which are doubted.
            smooth: Whether poses are smoothed: with what lies ahead in recordings, without in live sources.
            pose: Whether the meshes of frames are smoothed as well, not only the motion. Who draws nothing saves time.

        Returns:
            The frames, and afterwards their motion.

        Raises:
            InputError: The source cannot be opened, or there is no such detector.
            BackendError: The detector cannot start.
        """
        from glnet_infer.video.following import UNSURE, FollowOptions
        from glnet_infer.video.observing import Observer
        from glnet_infer.video.session import Following
        from glnet_infer.video.sources import open_source

        options = options or FollowOptions()
        found = detector or self._named_detector or self.detector or DEFAULT_DETECTOR
        if isinstance(found, str | Path):
            # Unsure detections keep a track.
            found = open_detector(found, threshold=min(UNSURE, options.score), threads=self._threads)
        skin = self.skin if smooth else None
        manifest = self.bundle.manifest
        return Following(
            open_source(source) if isinstance(source, str | Path) else source,
            Observer(self, found, options.intrinsics),
            options,
            smooth=smooth,
            skin=skin,
            pose=pose,
            body=manifest.body.name,
            bundle=manifest.network.name,
        )

    def fits(self, images: Sequence[Persons]) -> bool:
        """Whether :meth:`recover` runs the persons of so many images in one call of the backend."""
        return sum(map(len, images)) <= self.batch_size and all(persons.crops is not None for persons in images)

    def prepare(
        self,
        image: Any,
        boxes: ArrayLike | None = None,
        intrinsics: Intrinsics | ArrayLike | None = None,
    ) -> Persons:
        """Check one image and cut its crops: the first half of :meth:`__call__`, with its arguments.

        Raises:
            InputError: Image, boxes or intrinsics cannot be used.
            BackendError: The detector failed.
        """
        frame = self._frame(image)
        height, width = frame.shape[:2]
        if boxes is None and self.detector is not None:
            boxes = found_boxes(frame, self.detector)
        checked = check_boxes(boxes, width, height)
        if intrinsics is None:
            intrinsics = Intrinsics.guess(width, height)
        elif not isinstance(intrinsics, Intrinsics):
            intrinsics = Intrinsics.from_matrix(intrinsics)
        intrinsics.check_image(width, height)
        squares = CropSquares.around(checked, self.bundle.manifest.crop)
        crops = None
        if not isinstance(self._backend, FrameBackend) or self._backend.frame_obstacle(width, height):
            crops = cut_crops(cast(NDArray[np.uint8], frame), squares)  # frames of the GPU have met no obstacle
        return Persons(
            checked,
            squares,
            squares.cameras(intrinsics),
            intrinsics,
            (width, height),
            crops,
            frame if crops is None else None,
        )

    def recover(self, images: Sequence[Persons]) -> list[Meshes]:
        """Run the network on the persons of several images: the second half of :meth:`__call__`.

        Args:
            images: The persons of each image, from :meth:`prepare`.

        Returns:
            The meshes of each image, in the order of its boxes.

        Raises:
            BackendError: The backend failed.
        """
        if self._closed:
            raise BackendError("This recoverer is closed.", fix="make a new MeshRecoverer")
        crops = [persons.crops for persons in images if persons.crops is not None]
        cameras = [persons.cameras for persons in images if persons.crops is not None]
        batched = self._run_crops(np.concatenate(crops), np.concatenate(cameras)) if crops else {}
        single = len(images) == 1
        results, start = [], 0
        for persons in images:
            if persons.crops is None:
                outputs = self._run_frame(persons)
            elif single:
                outputs = batched
            else:
                stop = start + len(persons)
                # Copies: who keeps one image's meshes shall not keep those of all.
                outputs = {name: array[start:stop].copy() for name, array in batched.items()}
                start = stop
            device = outputs.device if isinstance(outputs, DeviceOutputs) else None
            results.append(self._meshes(persons, outputs, device))
        return results

    def _meshes(self, persons: Persons, outputs: Outputs, device: DeviceMeshes | None) -> Meshes:
        cells = outputs["reference_pixel"].astype(np.float64)
        return Meshes(
            vertices=outputs["vertices"],
            joints=outputs["joints"],
            keypoints_2d=persons.squares.to_image(outputs["keypoints_2d"]).astype(np.float32),
            rotations=outputs["rotations"],
            betas=outputs["betas"],
            translation=outputs["translation"],
            confidence=outputs["confidence"],
            reference_points=persons.squares.to_image((cells + 0.5) * GRID_STRIDE).astype(np.float32),
            boxes=persons.boxes,
            intrinsics=persons.intrinsics,
            image_size=persons.image_size,
            faces=self.bundle.faces,
            backend=self.backend,
            device=device,
        )

    def _frame(self, image: Any) -> Frame:
        """The image that crops are cut from, checked.

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
                fix=f"{COPY_TO_HOST}; for larger frames, glnet-export engine BUNDLE --frame WIDTHxHEIGHT",
            )
        return frame

    def _run_frame(self, persons: Persons) -> Outputs:
        """Outputs of the crops that the backend cuts out of a frame, all at once."""
        if not len(persons):
            return self._nobody()
        width, height = persons.image_size
        backend = cast(FrameBackend, self._backend)
        outputs = backend.run_frame(cast(Frame, persons.frame), persons.squares.in_frame(width, height), persons.cameras)
        self._promise.check_outputs(outputs, len(persons), self.backend)
        return outputs

    def _run_crops(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """Outputs of N >= 0 crops, in batches."""
        batches = []
        for start in range(0, len(crops), self.batch_size):
            batch = slice(start, start + self.batch_size)
            outputs = self._backend.run(crops[batch], cameras[batch])
            self._promise.check_outputs(outputs, len(crops[batch]), self.backend)
            batches.append(outputs)
        if not batches:
            return self._nobody()
        if len(batches) == 1:
            return batches[0]
        specs = self.bundle.manifest.outputs
        return {spec.name: np.concatenate([batch[spec.name] for batch in batches]) for spec in specs}

    def _nobody(self) -> Outputs:
        """Outputs without rows."""
        specs = self.bundle.manifest.outputs
        return {spec.name: np.zeros((0, *map(int, spec.shape[1:])), dtype=spec.dtype) for spec in specs}

    def close(self) -> None:
        """Free the backend."""
        self._closed = True
        self._backend.close()

    def __enter__(self) -> MeshRecoverer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
