"""The optimizer: Muon for the weights of hidden layers, AdamW for everything else.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) makes all singular values of a
weight matrix's update alike; a convolution's kernels, of all its groups, count as the rows of a matrix. Its steps are
scaled to the size of AdamW's (Liu et al., "Muon is Scalable for LLM Training", 2025), so one learning rate serves both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from glnet.network import GLNet

ENDS = ("backbone.conv1", "coarse", "confidence", "heads", "local_encoding.offsets")
"""Layers that read pixels or give answers: Muon's authors leave such layers to AdamW."""


class Optimizer:
    """Both optimizers as one.

    Args:
        network: The network that is trained.
        others: Further parameters, for AdamW.
        learning_rate: Learning rate of both optimizers.
        weight_decay: Weight decay of both optimizers.
    """

    def __init__(self, network: GLNet, others: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        ends = tuple(f"{name}." for name in ENDS)
        self._hidden: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if parameter.ndim >= 2 and not name.startswith(ends):
                self._hidden.append(parameter)
            else:
                others = [*others, parameter]
        # torch's Muon takes matrices: these are views of the kernels.
        self._matrices = [nn.Parameter(kernel.detach().view(len(kernel), -1)) for kernel in self._hidden]
        self.parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                self._matrices, learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW(others, learning_rate, weight_decay=weight_decay),
        }

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of the next steps."""
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for kernel, matrix in zip(self._hidden, self._matrices, strict=True):
            kernel.grad = matrix.grad = None
        self.parts["adamw"].zero_grad()

    def take_gradients(self, scaler: torch.amp.GradScaler) -> None:
        """Take over the gradients of a backward pass, without float16's scale; before every :meth:`step`."""
        for kernel, matrix in zip(self._hidden, self._matrices, strict=True):
            if kernel.data_ptr() != matrix.data_ptr():
                raise RuntimeError("a kernel has moved since the optimizer was made; make the optimizer last")
            matrix.grad = None if kernel.grad is None else kernel.grad.view(matrix.shape)
        for part in self.parts.values():
            scaler.unscale_(part)

    def step(self) -> None:
        """Change the parameters."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimizers, for :meth:`load_state_dict`."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            Exception: It is not of these parameters; kinds differ.
        """
        for name, part in self.parts.items():
            before = [dict(group) for group in part.param_groups]
            part.load_state_dict(state[name])
            # PyTorch compares no more than the number of parameters.
            for own, found in zip(before, part.param_groups, strict=True):
                if any(type(found[key]) is not type(own[key]) for key in own.keys() & found.keys()):
                    raise ValueError(f"options of {name} are of other kinds")
            for parameter, values in part.state.items():
                for value in values.values():
                    if not isinstance(value, Tensor) or value.shape not in ((), parameter.shape):
                        raise ValueError(f"the state of {name} is not of its parameters")
