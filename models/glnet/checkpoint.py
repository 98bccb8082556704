"""Checkpoints: a network's configuration and weights in one file, read without running code."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glnet.config import GLNetConfig
from glnet.network import GLNet
from glnet.weights import find_weights, open_checkpoint
from glnet.weights.tensors import OddTensor
from glnet_infer.errors import CheckpointError, shortened
from glnet_infer.fields import quote
from glnet_infer.files import replace_file

FORMAT = "glnet-checkpoint"
VERSION = 1

WITHOUT_EFFECT = ".num_batches_tracked"
"""Weights that may be missing: counters that only a training looks at."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True)
class Checkpoint:
    """A network's configuration and weights.

    Attributes:
        config: Configuration of the network.
        state: State dict of the network.
        says_body: Whether the configuration came with the weights, and names the body that they were trained with. The
            configuration of a bare state dict is the user's choice, and says nothing about the body.
        notes: Sentences on where in its file the weights were found, for the user.
    """

    config: GLNetConfig
    state: dict[str, Tensor]
    says_body: bool = True
    notes: tuple[str, ...] = ()

    def network(self) -> GLNet:
        """The network, in evaluation mode.

        Raises:
            CheckpointError: Names, shapes or types of the weights are not the configuration's, or their values are none.
        """
        misfits = _misfits(self.state, layout_of(self.config))
        if misfits:
            raise CheckpointError(
                f"The weights do not fit the architecture {self.config.name!r}.",
                why="; ".join(misfits),
                fix="give the configuration that the checkpoint was trained with: --config PRESET or --config FILE.json",
            )
        state = {name: value.to(dtype=layout_of(self.config)[name][1]) for name, value in self.state.items()}
        broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if broken:
            raise CheckpointError(
                "The weights are not finite numbers.",
                why=_examples("NaN or infinite", broken),
                fix="the training diverged before this was saved; use an earlier checkpoint",
            )
        negative = [name for name, value in state.items() if name.endswith("running_var") and (value < 0).any()]
        if negative:
            raise CheckpointError(
                "The weights are not those of a trained network.",
                why=_examples("a variance below zero", negative),
                fix="copy the checkpoint again; check what was done to it since it was saved",
            )
        network = GLNet(self.config)
        network.load_state_dict({**network.state_dict(), **state})
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
    def load(cls, path: str | Path, config: GLNetConfig | None = None, weights_key: str | None = None) -> "Checkpoint":
        """Read a checkpoint, or weights that came without a configuration together with ``config``.

        Args:
            path: A file of ``torch.save``, a safetensors file, or a pickle of arrays.
            config: Configuration of weights that came without one. Where a checkpoint carries its own, the two must agree.
            weights_key: Which weights to take where the file holds several, such as ``state_dict_ema``: keys, joined by
                dots.

        Raises:
            CheckpointError: The file is missing or damaged, is not a checkpoint, or names code that it could run.
        """
        path = Path(path)
        with open_checkpoint(path) as file:
            document = file.document
            is_ours = isinstance(document, dict) and document.get("format") == FORMAT
            own = _own_config(path, document, config) if is_ours else config
            found, notes = find_weights(document, {} if own is None else layout_of(own), weights_key, path=path)
            if own is None:
                raise CheckpointError(
                    f"{path} does not say which network it is.",
                    why="it is a bare state dict",
                    fix="give --config PRESET or --config FILE.json",
                )
            odd = [f"{name} is {value.words}" for name, value in found.items() if isinstance(value, OddTensor)]
            if odd:
                raise CheckpointError(
                    f"The checkpoint {path} was not read.",
                    why=_examples("no plain tensors", odd),
                    fix="save the weights of the network before it was quantised or pruned, dense and on the CPU",
                )
            state = {name: file.read(value) for name, value in found.items()}
        return cls(own, state, says_body=is_ours, notes=notes)


def _own_config(path: Path, document: dict[str, Any], given: GLNetConfig | None) -> GLNetConfig:
    """The configuration that a checkpoint of ours carries."""
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise CheckpointError(
            f"{path} is a checkpoint of version {quote(version) if isinstance(version, str | int | None) else 'unknown'}.",
            why=f"this library reads version {VERSION}",
            fix="convert it with the version that wrote it",
        )
    if not isinstance(document.get("config"), dict) or "state_dict" not in document:
        raise CheckpointError(
            f"The checkpoint {path} is incomplete.",
            why="it lacks 'config' or 'state_dict', or they are of another kind",
            fix="write it with glnet.checkpoint.Checkpoint.save",
        )
    own = GLNetConfig.from_dict(document["config"])
    if given is not None and given != own:
        raise CheckpointError(
            f"{path} carries another configuration than the one given.",
            why=f"it was saved as {quote(own.name)}",
            fix="leave --config out",
        )
    return own


@functools.lru_cache(maxsize=4)
def layout_of(config: GLNetConfig) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of all weights of a network by their names; no memory is taken for them."""
    with torch.device("meta"):
        state = GLNet(config).state_dict()
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


def _wrong_kind(name: str, value: Tensor, dtype: torch.dtype) -> str:
    """What a tensor is that is no plain one of real numbers, or of whole ones; else an empty text."""
    if value.is_nested or value.is_quantized or value.is_meta or value.layout != torch.strided:
        return "no plain tensor"
    allowed = FLOATS if dtype.is_floating_point else INTEGERS
    fits = value.dtype in allowed or (name.endswith(WITHOUT_EFFECT) and value.dtype in FLOATS)
    return "" if fits else str(value.dtype).removeprefix("torch.")


def _misfits(state: dict[str, Tensor], layout: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> list[str]:
    """How weights differ from a network's, told before any of their numbers is looked at."""
    missing = sorted(name for name in set(layout) - set(state) if not name.endswith(WITHOUT_EFFECT))
    shared = [(name, state[name], *layout[name]) for name in layout if name in state]
    wrong = {name: f"{name} is {kind}" for name, value, _, dtype in shared if (kind := _wrong_kind(name, value, dtype))}
    shapes = [
        f"{name} is {tuple(value.shape)}, not {shape}"
        for name, value, shape, _ in shared
        if name not in wrong and value.shape != shape
    ]
    labelled = (
        _examples("missing", missing),
        _examples("unknown", sorted(set(state) - set(layout))),
        _examples("wrong type", list(wrong.values())),
        _examples("wrong shape", shapes),
    )
    return [text for text in labelled if text]


def _examples(label: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(shortened(name, 80) for name in names[:3])
    return f"{label}: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
