"""What every inference backend can do."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]
"""Arrays under the names of ``glnet_infer.manifest.GRAPH_OUTPUTS``."""


class Backend(Protocol):
    """Runs the graph. One call at a time and thread, unless the implementation says more."""

    @property
    def name(self) -> str:
        """What runs the graph and where, for messages and results: ``onnxruntime-cpu``, say."""

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """Run N >= 1 crops (N x C x C x 3) with their cameras (N x 4).

        Raises:
            BackendError: The backend failed; its own words are in the message.
        """

    def close(self) -> None:
        """Free what the backend holds. Calling it twice is allowed."""
