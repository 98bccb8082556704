"""What a backend answers, as tensors."""

import numpy as np
import torch
from numpy.typing import NDArray

from glnet.recovery import Recovery
from glnet_infer.backends import Backend
from glnet_infer.errors import BackendError


def recovered(backend: Backend, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Recovery:
    """The graph's outputs for a batch of crops.

    Raises:
        BackendError: They are not all finite. Left out of the means, such crops would improve the score.
    """
    outputs = backend.run(crops, cameras)
    for name in Recovery._fields:
        if not np.isfinite(outputs[name]).all():
            raise BackendError(
                f"{backend.name} gave {name} that are not finite numbers.",
                why="the network overflowed, or its weights are damaged",
                fix="score another backend, or the checkpoint itself",
            )
    return Recovery(*(torch.from_numpy(outputs[name]) for name in Recovery._fields))
