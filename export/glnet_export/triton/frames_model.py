"""The model that takes images: cuts crops, has them run by the model of the graph, and gives meshes in the image.

Triton's python backend runs this file. What it does is in ``glnet_infer.serving``, which the server's Python has to have.
"""

from typing import Any

import triton_python_backend_utils as utils

from glnet_infer.serving.triton_frames import TritonFrames


class TritonPythonModel:
    """What the python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once, when the model is loaded."""
        self._frames = TritonFrames(utils, args)

    def execute(self, requests: list[Any]) -> list[Any]:
        """The responses to requests, in their order."""
        return self._frames.answers(requests)

    def finalize(self) -> None:
        """Called once, when the model is unloaded."""
        self._frames.close()
