"""What the model ``glnet_frames`` of a Triton server does: the whole of its ``model.py``.

It runs inside the server's python backend, whose module ``triton_python_backend_utils`` exists there alone: whoever calls
this hands it in. The crops go to the server's own model of the graph, which batches those of all requests together.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends import Outputs
from glnet_infer.backends.triton.outputs import as_promised
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.contract import GRAPH_INPUTS, TensorSpec
from glnet_infer.detection import detector_file
from glnet_infer.errors import BackendError, GlnetError, InputError, first_line
from glnet_infer.persons import Persons, in_groups
from glnet_infer.serving.frames import FRAME_INPUTS, MOST_BOXES, Frames

BUNDLE_FOLDER = "bundle"
"""Folder beside ``model.py`` with the bundle, which has no graph."""

NETWORK, DETECTOR, MOST_CROPS = "network", "detector", "most_crops"
"""Parameters of the model's configuration: the model of the graph, what finds persons, crops in one call.

What finds persons is a name, or a file: its path from ``model.py``, with its family after a colon where it is forced.
"""


class TritonFrames:
    """The model ``glnet_frames``.

    Args:
        utils: The module ``triton_python_backend_utils``.
        arguments: What Triton's python backend gives to ``initialize``.

    Raises:
        BundleError: The bundle beside ``model.py`` is missing, damaged or changed.
        InputError: There is no such detector, or its file cannot be used.
        BackendError: NumPy does not fit the server, or the detector cannot start.
    """

    def __init__(self, utils: Any, arguments: dict[str, str]) -> None:
        check_numpy(utils)
        self._utils = utils
        parameters = json.loads(arguments["model_config"]).get("parameters", {})
        options = {name: entry["string_value"] for name, entry in parameters.items()}
        here = Path(arguments["model_repository"]) / arguments["model_version"]
        outputs = Manifest.read(here / BUNDLE_FOLDER).outputs
        network = CalledNetwork(utils, options[NETWORK], outputs, int(options[MOST_CROPS]))
        detector = options[DETECTOR]
        if detector_file(detector) is not None:  # a relative path begins beside model.py
            detector = str(here / detector)
        self._frames = Frames(here / BUNDLE_FOLDER, network, detector)

    def answers(self, requests: Sequence[Any]) -> list[Any]:
        """The responses to requests, in their order. One that cannot be used gets its error, and disturbs no other.

        The crops of all requests go to the network together, in as few calls as it allows.
        """
        responses: list[Any] = [None] * len(requests)
        prepared: list[tuple[int, Persons]] = []
        for number, request in enumerate(requests):
            try:
                prepared.append((number, self._frames.prepare(self._inputs(request))))
            except Exception as error:  # see _refusal
                responses[number] = self._refusal(error)
        # In groups, so that memory is bounded however many requests ask for however many persons.
        for group in in_groups(prepared, lambda group: sum(len(persons) for _, persons in group) <= MOST_BOXES):
            answers = self._frames.answers([persons for _, persons in group])
            for (number, _), outputs in zip(group, answers, strict=True):
                responses[number] = self._response(outputs)
        return responses

    def _inputs(self, request: Any) -> dict[str, NDArray[Any]]:
        """Inputs of the one image of a request. Triton puts a side for images before the sides of every array.

        Raises:
            InputError: There is another number of images.
        """
        found = ((spec.name, self._utils.get_input_tensor_by_name(request, spec.name)) for spec in FRAME_INPUTS)
        inputs = {name: tensor.as_numpy() for name, tensor in found if tensor is not None}
        for name, array in inputs.items():
            if array.shape[:1] != (1,):
                raise InputError(
                    f"The request's {name} has the shape {array.shape}.",
                    why="its first side counts images, and a request has one: each image has persons of its own number",
                    fix="send each image in a request of its own; the server runs them together",
                )
        return {name: array[0] for name, array in inputs.items()}

    def _response(self, outputs: dict[str, NDArray[Any]] | Exception) -> Any:
        if isinstance(outputs, Exception):
            return self._refusal(outputs)
        utils = self._utils
        try:
            return utils.InferenceResponse([utils.Tensor(name, array[None]) for name, array in outputs.items()])
        except Exception as error:  # see _refusal
            return self._refusal(error)

    def _refusal(self, error: Exception) -> Any:
        """The response to a request that failed. A mistake of ours is logged, and ends no other request."""
        utils = self._utils
        words, code = str(error), utils.TritonError.INTERNAL
        if isinstance(error, InputError):
            code = utils.TritonError.INVALID_ARG
        elif not isinstance(error, GlnetError):
            utils.Logger.log_error("".join(traceback.format_exception(error)))
            words = f"glnet_frames failed in a way that was not foreseen: {type(error).__name__}: {first_line(error)}"
        return utils.InferenceResponse(error=utils.TritonError(words, code))

    def close(self) -> None:
        """Free what it holds."""
        self._frames.close()


class CalledNetwork:
    """The server's own model of the graph, called from within the server.

    Args:
        utils: The module ``triton_python_backend_utils``.
        model: The model's name.
        outputs: The outputs that the bundle's manifest promises.
        batch_size: Most crops that it takes in one call.
    """

    def __init__(self, utils: Any, model: str, outputs: tuple[TensorSpec, ...], batch_size: int) -> None:
        self._utils, self._outputs, self.batch_size = utils, outputs, batch_size
        self.name = f"triton model {model}"
        self._model = model

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        utils = self._utils
        inputs = zip((spec.name for spec in GRAPH_INPUTS), (crops, cameras), strict=True)
        response = utils.InferenceRequest(
            model_name=self._model,
            requested_output_names=[spec.name for spec in self._outputs],
            inputs=[utils.Tensor(name, array) for name, array in inputs],
            preferred_memory=utils.PreferredMemory(utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise BackendError(
                f"{self.name} failed on {len(crops)} crops.",
                why=response.error().message(),
                fix="see the server's log, and whether the model is ready: /v2/models/NAME/ready",
            )
        found = ((spec.name, utils.get_output_tensor_by_name(response, spec.name)) for spec in self._outputs)
        # Copies: the memory is the response's.
        arrays = {name: None if tensor is None else np.array(tensor.as_numpy()) for name, tensor in found}
        return as_promised(arrays, self._outputs, self.name)

    def close(self) -> None:
        """Nothing is held."""


def check_numpy(utils: Any) -> None:
    """Refuse a NumPy that the server's python backend was not built for: arrays would arrive as other numbers, unsaid.

    Triton takes NumPy 2 from 24.11 on (https://github.com/triton-inference-server/python_backend/pull/384).

    Raises:
        BackendError: It is one.
    """
    wanted = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    found = utils.Tensor.from_dlpack("wanted", utils.Tensor("wanted", wanted).to_dlpack()).as_numpy()
    if not np.array_equal(wanted, found):
        raise BackendError(
            f"This server's python backend does not fit NumPy {np.__version__}.",
            why="numbers come out as others",
            fix="use Triton 24.11 or newer",
        )
