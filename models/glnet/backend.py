"""The PyTorch module itself as a backend of the runtime: the reference that exports are measured against."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glnet.recovery import MeshRecovery


class TorchBackend:
    """Runs a recovery module where its parameters are; hand it to ``MeshRecoverer(bundle, backend=...)``.

    Args:
        recovery: The module in evaluation mode, with the bundle's configuration and body.
    """

    def __init__(self, recovery: MeshRecovery) -> None:
        self._recovery = recovery
        self._device = next(recovery.parameters()).device
        self.name = f"torch-{self._device.type}"

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Run the module on a batch of crops; see ``glnet_infer.backends.Backend``."""
        with torch.inference_mode():
            outputs = self._recovery(torch.from_numpy(crops).to(self._device), torch.from_numpy(cameras).to(self._device))
        return {name: value.cpu().numpy() for name, value in outputs._asdict().items()}

    def close(self) -> None:
        """Nothing to free: the module is the caller's."""
