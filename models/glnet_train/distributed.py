"""One process or many: what ``torchrun`` starts, and the few things that processes agree on."""

import os
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        device: Device of this process: its own GPU, or the CPU.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> "Processes":
        """Join the processes that ``torchrun`` started; without it, train alone."""
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if "RANK" not in os.environ:
            return cls(0, 1, device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    def any(self, here: bool) -> bool:
        """Whether something holds in any of the processes: all learn the same."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            distributed.destroy_process_group()
