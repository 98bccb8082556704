"""Public checkpoints of others, through the same export: networks that are recognised by their tensors' names.

Nothing here is copied from their authors: networks are written on this library's modules, and weights stay in the user's
file. ``docs/public-checkpoints.md`` says where the files are, and under which terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glnet.adopted.base import AdoptedRecovery
from glnet.adopted.cliff import Cliff
from glnet.adopted.foreign import FOREIGN
from glnet.adopted.hybrik import HybrikHeatMap, HybrikRegression, HybrikResNet
from glnet.body.smpl import Body
from glnet.estimate import BETAS
from glnet.weights import find_weights, open_checkpoint, read_all
from glnet_infer.errors import CheckpointError
from glnet_infer.fields import quote

ADOPTED: tuple[type[AdoptedRecovery], ...] = (Cliff, HybrikHeatMap, HybrikRegression, HybrikResNet)

ADOPTED_NAMES = tuple(kind.name for kind in ADOPTED)

KEY = "adopted"
"""Key of a manifest's configuration that names an adopted network."""


class AdoptedCheckpoint(NamedTuple):
    """A file of an adopted network.

    Attributes:
        kind: The network.
        state: Its weights, and the authors' copy of SMPL's data.
        notes: Sentences on where in the file the weights were found, for the user.
    """

    kind: type[AdoptedRecovery]
    state: dict[str, Tensor]
    notes: tuple[str, ...]


def read_adopted(path: Path, weights_key: str | None = None) -> AdoptedCheckpoint | None:
    """The checkpoint in a file; None where it is not of an adopted network.

    Args:
        path: The file.
        weights_key: Which weights to take where the file holds several.

    Raises:
        CheckpointError: The file cannot be read, or is of a network that is known and cannot be exported.
    """
    with open_checkpoint(path) as file:
        found, _ = find_weights(file.document, (), weights_key, path=path)
        kind = recognise(found)
        if kind is None:
            return None
        # Only who knows the network's names can say which other weights would fit.
        found, notes = find_weights(file.document, kind.names(), weights_key, path=path)
        return AdoptedCheckpoint(kind, read_all(file, found, path), notes)


def recognise(state: Mapping[str, Any]) -> type[AdoptedRecovery] | None:
    """The adopted network whose state dict this is, by names and shapes; None where it is none of them.

    Raises:
        CheckpointError: It is of a network that is known, and cannot be exported.
    """
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    # Those that are refused look like those that are adopted, and have something else besides.
    for foreign in FOREIGN:
        if foreign.matches(shapes):
            raise CheckpointError(f"This is a checkpoint of {foreign.title}.", why=foreign.why, fix=foreign.fix)
    return next((kind for kind in ADOPTED if kind.matches(shapes)), None)


def adopt(
    kind: type[AdoptedRecovery], state: Mapping[str, Tensor], body: Body, *, flip_test: bool = False
) -> AdoptedRecovery:
    """An adopted network with its weights, in evaluation mode.

    Args:
        kind: What :func:`recognise` found.
        state: The state dict. The authors' copy of SMPL's data in it is left aside.
        body: The body that it decodes to.
        flip_test: Whether the mirrored crop is looked at as well, and both answers averaged.

    Raises:
        CheckpointError: The weights are not the network's, or it has no flip test.
    """
    recovery = _made(kind, body, flip_test)
    own = {name: value for name, value in state.items() if not name.startswith(kind.aside)}
    recovery.network.load(own, kind.title)
    return recovery.eval()


def untrained(document: Mapping[str, Any], body: Body, seed: int = 0) -> AdoptedRecovery:
    """An adopted network with random weights, for measuring its speed.

    Args:
        document: Its configuration, as a manifest holds it.
        body: The body that it decodes to.
        seed: Seed of all random numbers; the caller's generator is left as it was.

    Raises:
        CheckpointError: There is no such network.
    """
    kind = next((each for each in ADOPTED if each.name == document.get(KEY)), None)
    if kind is None:
        fix = f"known are {', '.join(ADOPTED_NAMES)}"
        raise CheckpointError(f"There is no adopted network {quote(document.get(KEY))}.", fix=fix)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recovery = _made(kind, body, document.get("flip_test") is True)
        recovery.network.draw(body.rest_joints(torch.zeros(1, BETAS))[0])
    return recovery.eval()


def _made(kind: type[AdoptedRecovery], body: Body, flip_test: bool) -> AdoptedRecovery:
    recovery = kind(kind.blank(flip_test), body)
    if flip_test and not recovery.flip_test:
        raise CheckpointError(
            f"{kind.title} has no flip test.", why="its authors do not average with the mirrored crop", fix="leave it out"
        )
    return recovery
