"""Checkpoints: a network's configuration and weights in one file, read without running code."""

import dataclasses
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glnet.config import GLNetConfig
from glnet.network import GLNet
from glnet_infer.errors import CheckpointError, first_line
from glnet_infer.files import replace_file

FORMAT = "glnet-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network's configuration and weights.

    Attributes:
        config: Configuration of the network.
        state: State dict of the network.
        says_body: Whether the configuration came with the weights, and names the body that they were trained with. The
            configuration of a bare state dict is the user's choice, and says nothing about the body.
    """

    config: GLNetConfig
    state: dict[str, Tensor]
    says_body: bool = True

    def network(self) -> GLNet:
        """The network, in evaluation mode.

        Raises:
            CheckpointError: Names or shapes of the weights are not the configuration's.
        """
        network = GLNet(self.config)
        own = network.state_dict()
        broken = [name for name, value in self.state.items() if value.is_floating_point() and not value.isfinite().all()]
        if broken:
            raise CheckpointError(
                "The weights are not finite numbers.",
                why=_examples("NaN or infinite", broken),
                fix="the training diverged before this was saved; use an earlier checkpoint",
            )
        missing = sorted(set(own) - set(self.state))
        unknown = sorted(set(self.state) - set(own))
        shapes = [
            f"{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}"
            for name, value in self.state.items()
            if name in own and value.shape != own[name].shape
        ]
        if missing or unknown or shapes:
            raise CheckpointError(
                f"The weights do not fit the architecture {self.config.name!r}.",
                why="; ".join(
                    text
                    for text in (
                        _examples("missing", missing),
                        _examples("unknown", unknown),
                        _examples("wrong shape", shapes),
                    )
                    if text
                ),
                fix="give the configuration that the checkpoint was trained with: --config PRESET or --config FILE.json",
            )
        network.load_state_dict(self.state)
        return network.eval()

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write the checkpoint.

        Args:
            path: The file.
            **extra: Plain values to store beside it, such as metrics or the epoch.

        Raises:
            OutputError: The file cannot be written.
        """
        document = {
            **extra,
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.to_dict(),
            "state_dict": self.state,
        }
        replace_file(path, lambda file: torch.save(document, file))

    @classmethod
    def of(cls, network: GLNet) -> "Checkpoint":
        """The checkpoint of a network as it is now; weights in half precision become float32."""
        state = {
            name: (value.float() if value.is_floating_point() else value).detach().clone()
            for name, value in network.state_dict().items()
        }
        return cls(network.config, state)

    def compact(self) -> "Checkpoint":
        """The checkpoint with weights rounded to half precision, at half the size; running statistics stay in float32.

        Raises:
            CheckpointError: A weight is too large for half precision.
        """
        state = {
            name: value.half() if value.is_floating_point() and "running_" not in name else value
            for name, value in self.state.items()
        }
        lost = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if lost:
            raise CheckpointError(
                "The checkpoint cannot be made compact.",
                why=_examples("too large for half precision", lost),
                fix="hand on the checkpoint as it is",
            )
        return dataclasses.replace(self, state=state)

    @classmethod
    def load(cls, path: str | Path, config: GLNetConfig | None = None) -> "Checkpoint":
        """Read a checkpoint, or a bare state dict together with ``config``.

        Args:
            path: The file.
            config: Configuration of a bare state dict. Where a checkpoint carries its own, the two must agree.

        Raises:
            CheckpointError: The file is missing, holds more than tensors and plain values, or is not a checkpoint.
        """
        path = Path(path)
        try:
            exists = path.is_file()
        except OSError as error:
            raise CheckpointError(f"{path} was not read.", why=str(error.strerror), fix="check its permissions") from error
        if not exists:
            raise CheckpointError(
                f"There is no checkpoint {path}.",
                fix="give the path of a .pth file; docs/checkpoints.md says what it holds",
            )
        try:
            document = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL (\S+)", str(error))
            raise CheckpointError(
                f"The checkpoint {path} was not read.",
                why=f"it holds a pickled {named[1]}" if named else "it is not a file of PyTorch weights",
                fix="save tensors and plain values only, such as network.state_dict(): other content could run code",
            ) from error
        except Exception as error:  # torch raises several kinds for damaged archives
            raise CheckpointError(
                f"The checkpoint {path} was not read.",
                why=first_line(error),
                fix="copy it again; check its permissions",
            ) from error
        if isinstance(document, dict) and document.get("format") == FORMAT:
            return cls._from_document(path, document, config)
        return cls._from_state(path, document, config)

    @classmethod
    def _from_document(cls, path: Path, document: dict[str, Any], config: GLNetConfig | None) -> "Checkpoint":
        if document.get("version") != VERSION:
            raise CheckpointError(
                f"{path} is a checkpoint of version {document.get('version')}.",
                why=f"this library reads version {VERSION}",
                fix="convert it with the version that wrote it",
            )
        if not isinstance(document.get("config"), dict) or not _is_state(document.get("state_dict")):
            raise CheckpointError(
                f"The checkpoint {path} is incomplete.",
                why="it lacks 'config' or 'state_dict', or they are of another kind",
                fix="write it with glnet.checkpoint.Checkpoint.save",
            )
        own = GLNetConfig.from_dict(document["config"])
        if config is not None and config != own:
            raise CheckpointError(
                f"{path} carries another configuration than the one given.",
                why=f"it was saved as {own.name!r}",
                fix="leave --config out",
            )
        return cls(own, document["state_dict"])

    @classmethod
    def _from_state(cls, path: Path, document: Any, config: GLNetConfig | None) -> "Checkpoint":
        state: Any = document.get("state_dict", document) if isinstance(document, dict) else None
        if not _is_state(state):
            keys = f"; its keys are {', '.join(map(str, list(document)[:5]))}" if isinstance(document, dict) else ""
            raise CheckpointError(
                f"{path} is not a checkpoint.",
                why=f"it holds no state dict of tensors{keys}",
                fix="save the state dict itself, or a dictionary with it under 'state_dict' (docs/checkpoints.md)",
            )
        if config is None:
            raise CheckpointError(
                f"{path} does not say which network it is.",
                why="it is a bare state dict",
                fix="give --config PRESET or --config FILE.json",
            )
        # DistributedDataParallel puts "module." before every name.
        return cls(config, {name.removeprefix("module."): value for name, value in state.items()}, says_body=False)


def _is_state(value: Any) -> bool:
    """Whether a value is a state dict: tensors by name."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _examples(label: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3])
    return f"{label}: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
