"""``glnet-train compare``: the rows of the poster's Table 2, trained on one budget."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.commands.console import errors_reported, print_result, say
from glnet_infer.files import make_directory
from glnet_train.commands.opening import WeightsKey, open_backbone, open_body
from glnet_train.commands.requirements import check_installed


def compare_command(
    directory: Annotated[Path, typer.Argument(help="Folder for the scores of each row; rows already there are kept.")],
    config: Annotated[
        str, typer.Option(help="Preset or .json file of the network, but for the compared switches.")
    ] = "demo",
    steps: Annotated[int, typer.Option(min=1, help="Steps of every row.")] = 2000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 16,
    curriculum: Annotated[int, typer.Option(min=0, help="Blocks until the full spread of poses.")] = 15,
    crops: Annotated[int, typer.Option(min=1, help="Held-out crops to score on.")] = 512,
    row: Annotated[list[str] | None, typer.Option(help="Row to train, by default all; may be repeated.")] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Checkpoint, or weights of HRNet, whose backbone rows start from.")
    ] = None,
    weights_key: WeightsKey = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
) -> None:
    """Train the rows of the poster's Table 2 on the same budget, and print the table."""
    with errors_reported():
        check_installed()
        from glnet.config import load_config
        from glnet_train.comparison.rows import ROWS, as_markdown, train_rows
        from glnet_train.recipe import Recipe

        unknown = set(row or []) - set(ROWS)
        if unknown:
            raise typer.BadParameter(f"rows are {', '.join(ROWS)}")
        network = load_config(config)
        recipe = Recipe(
            steps=steps, batch=batch, warmup=100, average=0.99, blocks=8, refresh=64, curriculum=curriculum, seed=seed
        )
        make_directory(directory)
        body = open_body(network.body)
        trained = None if backbone is None else open_backbone(backbone, network, weights_key)
        scores = train_rows(directory, network, recipe, body, crops, row or list(ROWS), trained, say)
        print_result(as_markdown(scores))
