"""Bodies and checkpoints of the commands, opened with a word on what is odd about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glnet_infer.commands.console import say

if TYPE_CHECKING:
    from glnet.backbones import BackboneWeights
    from glnet.body import Body
    from glnet.checkpoint import Checkpoint
    from glnet.config import GLNetConfig
    from glnet_train.data import AnnotatedImages

WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        help="Weights to take where the checkpoint holds several, such as state_dict_ema.",
        show_default=False,
    ),
]


def open_body(name: str | Path) -> Body:
    """A body by its name or file.

    Raises:
        BodyError: It cannot be used.
    """
    from glnet.body import Body, find_body, load_body

    body = Body(load_body(find_body(str(name))))
    for note in body.data.notes:
        say(f"the body {name} is odd: {note}", style="yellow")
    return body


def open_weights(path: Path, weights_key: str | None = None, config: GLNetConfig | None = None) -> Checkpoint:
    """A checkpoint, and what is said of it.

    Args:
        path: The file.
        weights_key: Which weights to take where the file holds several.
        config: The network, for weights that came without a configuration.

    Raises:
        CheckpointError: It cannot be used.
    """
    from glnet.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(path, config, weights_key)
    for note in checkpoint.notes:
        say(f"{path}: {note}")
    return checkpoint


def open_backbone(path: Path, config: GLNetConfig, weights_key: str | None = None) -> BackboneWeights:
    """The backbone in a file, and what is said of it.

    Raises:
        CheckpointError: It cannot be used.
    """
    from glnet.backbones import read_backbone

    weights = read_backbone(path, config.backbone, weights_key)
    for note in weights.notes:
        say(f"{path}: {note}")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
    say(f"crops are normalised by mean {mean} and std {std}; other weights may expect others (docs/network.md)")
    return weights


def open_initial(path: Path, config: GLNetConfig, weights_key: str | None = None) -> Checkpoint | BackboneWeights:
    """What a training starts from: a checkpoint of the whole network, or a backbone alone.

    Args:
        path: The file.
        config: The network that is trained.
        weights_key: Which weights to take where the file holds several.

    Raises:
        CheckpointError: It cannot be used.
    """
    from glnet.checkpoint import holds_network

    kind = holds_network(path, config, weights_key)
    if not kind:
        return open_backbone(path, config, weights_key)
    return open_weights(path, weights_key, None if kind == "document" else config)


def say_left_out(datasets: Iterable[AnnotatedImages]) -> None:
    """Print how many persons of datasets are not used, and why."""
    for dataset in datasets:
        for reason, count in dataset.left_out.items():
            say(f"{dataset.name}: {count} persons left out: {reason}")
