"""``glnet-train compare``: tables whose rows are trained on one budget, the poster's or one's own."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.commands.console import errors_reported, print_result, say
from glnet_infer.files import replace_file
from glnet_train.commands.opening import WeightsKey, open_backbone, open_body
from glnet_train.commands.requirements import check_installed


def compare_command(
    directory: Annotated[Path, typer.Argument(help="Folder of rows and report; finished rows are kept, others go on.")],
    table: Annotated[
        list[str] | None,
        typer.Option(help="Table: 2, 3, 6, positives, matching, or a .json file of one's own; by default all but files."),
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="Row to train, by default all; may be repeated.")] = None,
    config: Annotated[
        str, typer.Option(help="Preset or .json file of the network, but for the compared switches.")
    ] = "demo",
    steps: Annotated[int, typer.Option(min=1, help="Steps of every row.")] = 2000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 16,
    guidance: Annotated[str, typer.Option(help="Guidance of rows that name no other (docs/training.md).")] = "all",
    curriculum: Annotated[int, typer.Option(min=0, help="Blocks until the full spread of poses.")] = 15,
    pool: Annotated[int, typer.Option(min=1, help="Blocks of rendered crops to draw from.")] = 8,
    block: Annotated[int, typer.Option(min=1, help="Crops of a block.")] = 256,
    crops: Annotated[int, typer.Option(min=1, help="Held-out crops to score on.")] = 512,
    backbone: Annotated[
        Path | None, typer.Option(help="Checkpoint, or weights of HRNet, whose backbone rows start from.")
    ] = None,
    weights_key: WeightsKey = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers; of the first training of a row.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every row, with seeds one after the other.")] = 1,
) -> None:
    """Train the rows of tables on the same budget, and write one report of them beside the poster's numbers.

    Rows that several tables share are trained once. Ctrl-C saves the row in hand, and the same command goes on.
    """
    with errors_reported():
        check_installed()
        from glnet.config import load_config
        from glnet_train.comparison.report import REPORT, report
        from glnet_train.comparison.rows import Budget, Run, open_comparison
        from glnet_train.comparison.tables import TABLES, read_table
        from glnet_train.recipe import Recipe

        tables = []
        for name in table or TABLES:
            if name not in TABLES and not name.endswith(".json"):
                raise typer.BadParameter(f"tables are {', '.join(TABLES)}, or a .json file")
            tables.append(TABLES[name] if name in TABLES else read_table(Path(name)))
        rows = [each for one in tables for each in one.rows]
        unknown = set(row or []) - {each.name for each in rows}
        if unknown:
            raise typer.BadParameter(f"rows are {', '.join(dict.fromkeys(each.name for each in rows))}")
        network = load_config(config)
        recipe = Recipe(
            steps=steps,
            batch=batch,
            warmup=100,
            average=0.99,
            guidance=guidance,
            block=block,
            blocks=pool,
            refresh=64,
            curriculum=curriculum,
            seed=seed,
        )
        body = open_body(network.body)
        trained = None if backbone is None else open_backbone(backbone, network, weights_key)
        budget, drawn = Budget(network, recipe, crops, trained), range(seed, seed + seeds)
        # A row that cannot be trained is refused before the first one is.
        runs = [Run.of(each, budget, one) for one in drawn for each in rows if not row or each.name in row]
        open_comparison(directory, budget)
        stopped = ""
        for run in runs:
            if run.scores(directory) is None and run.train(directory, body, say):
                stopped = run.name
                break
        text = report(tables, budget, drawn, directory)
        replace_file(directory / REPORT, text.encode())
        if stopped:
            say(f"stopped in the row {stopped!r}; the same command goes on")
            raise typer.Exit(130)
        print_result(text)
