"""Bodies and checkpoints of the commands, opened with a word on what is odd about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glnet_infer.commands.console import say

if TYPE_CHECKING:
    from glnet.body import Body
    from glnet.checkpoint import Checkpoint
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


def open_weights(path: Path, weights_key: str | None = None) -> Checkpoint:
    """A checkpoint.

    Raises:
        CheckpointError: It cannot be used.
    """
    from glnet.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(path, weights_key=weights_key)
    for note in checkpoint.notes:
        say(f"{path}: {note}")
    return checkpoint


def say_left_out(datasets: Iterable[AnnotatedImages]) -> None:
    """Print how many persons of datasets are not used, and why."""
    for dataset in datasets:
        for reason, count in dataset.left_out.items():
            say(f"{dataset.name}: {count} persons left out: {reason}")
