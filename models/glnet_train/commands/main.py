"""``glnet-train``: train, score checkpoints and bundles, compare the network's parts, try the whole loop in two minutes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glnet_infer.commands.console import errors_reported, new_app, print_result, say
from glnet_infer.errors import InputError, TrainingError
from glnet_infer.files import make_directory
from glnet_train.commands.evaluate import evaluate_command
from glnet_train.commands.requirements import check_installed, holds
from glnet_train.commands.sheet import sheet_command

SMOKE_STEPS, SMOKE_FACTOR = 60, 0.6

STOPPING = "stopping after this step, or block of first crops; a second signal stops at once, and saves nothing"

app = new_app()


@app.callback()
def train() -> None:
    """Train and score GLNet."""


@app.command()
def fit(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="For state, checkpoint and log; resumed if it holds a state.")],
    config: Annotated[str, typer.Option(help="Preset or .json file of the network.")] = "demo",
    initial: Annotated[Path | None, typer.Option(help="Checkpoint whose weights to start from.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Length of the training.")] = 20_000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step, of all processes together.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Its highest value.")] = 1e-3,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16, where that is safe.")] = "bfloat16",
    pool: Annotated[int, typer.Option(min=1, help="Blocks of 256 rendered crops to draw from.")] = 16,
    refresh: Annotated[int, typer.Option(min=1, help="Steps between two newly rendered blocks of 256 crops.")] = 16,
    curriculum: Annotated[int, typer.Option(min=0, help="Blocks until the full spread of poses.")] = 300,
    positives: Annotated[int, typer.Option(min=1, help="Positive pixels per person.")] = 20,
    costs: Annotated[str, typer.Option(help="keypoints, keypoints+depth or keypoints+depth+rotation.")] = "keypoints",
    static_matching: Annotated[bool, typer.Option(help="Positives around the root instead of by cost.")] = False,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs to put behind the persons.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSON list of real datasets (docs/training.md).")] = None,
    synthetic: Annotated[float, typer.Option(help="Share of rendered crops; the others come from --data.")] = 1.0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saved states.")] = 200,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
) -> None:
    """Train until the last step; SIGTERM and Ctrl-C save the state first, and the same command goes on from it.

    Several processes, on one GPU each or on the CPU: torchrun --nproc-per-node N --no-python glnet-train fit ...
    """
    with errors_reported():
        check_installed()
        from glnet.body import Body, find_body, load_body
        from glnet.checkpoint import Checkpoint
        from glnet.config import GLNetConfig, load_config
        from glnet_train.data import load_mixture
        from glnet_train.distributed import Processes
        from glnet_train.fit.loop import CHECKPOINT, STATE
        from glnet_train.fit.loop import fit as fit_training
        from glnet_train.fit.trainer import Trainer, read_state
        from glnet_train.objective.matching import Matching
        from glnet_train.recipe import Recipe

        state = read_state(directory / STATE) if holds(directory, STATE) else None
        if state is not None:
            _check_same_options(context, state, load_config(config).to_dict())
            network, recipe = GLNetConfig.from_dict(state["config"]), Recipe(**state["recipe"])
        else:
            network = load_config(config)
            recipe = Recipe(
                steps=steps,
                batch=batch,
                learning_rate=learning_rate,
                precision=precision,
                synthetic=synthetic,
                blocks=pool,
                refresh=refresh,
                curriculum=curriculum,
                seed=seed,
            )
        body = Body(load_body(find_body(network.body)))
        real = None if data is None else load_mixture(data, body, network.crop, recipe.seed)
        processes = Processes.join()
        try:
            if state is not None:
                training = Trainer.load(state, body, backgrounds, real, processes)
                say(f"going on from step {training.step} of {recipe.steps}")
            else:
                training = Trainer(
                    network,
                    recipe,
                    body,
                    matching=Matching(dynamic=not static_matching, positives=positives, costs=costs),
                    backgrounds=backgrounds,
                    real=real,
                    initial=None if initial is None else Checkpoint.load(initial),
                    processes=processes,
                )
            make_directory(directory)  # once nothing else can be wrong
            stopped = fit_training(training, directory, save_every, lambda: say(STOPPING))
        finally:
            processes.leave()
        if stopped:
            say(f"stopped at step {training.step}; the same command goes on")
            raise typer.Exit(130)
        if processes.rank == 0:
            print_result(str(directory / CHECKPOINT))


def _check_same_options(context: typer.Context, state: dict[str, Any], network: dict[str, Any]) -> None:
    """Raise InputError where options are given that a training was not begun with."""
    recipe, matching = state["recipe"], state["matching"]
    begun = {**recipe, **matching, "pool": recipe["blocks"], "static_matching": not matching["dynamic"]}
    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    other = [
        f"{name} {value}, begun with {begun[name]}" for name, value in given.items() if value != begun.get(name, value)
    ]
    if "config" in given and network != state["config"]:
        other.append(f"config {given['config']}, begun with {state['config']['name']} of other values")
    if other:
        raise InputError(
            "The training that is there cannot go on with other options.",
            why="; ".join(other),
            fix="give those that it was begun with, or begin another elsewhere (--initial takes the weights along)",
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def compact(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.", readable=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", readable=False)],
) -> None:
    """Write a checkpoint with its weights in half precision: half the size, for handing on."""
    with errors_reported():
        check_installed()
        from glnet.checkpoint import Checkpoint

        whole = Checkpoint.load(checkpoint)
        whole.network()  # complains where the weights do not fit their configuration
        whole.compact().save(output)
        print_result(str(output))


app.command("eval")(evaluate_command)
app.command("sheet")(sheet_command)


@app.command()
def compare(
    directory: Annotated[Path, typer.Argument(help="For the scores of each row; rows already there are kept.")],
    config: Annotated[
        str, typer.Option(help="Preset or .json file of the network, but for the compared switches.")
    ] = "demo",
    steps: Annotated[int, typer.Option(min=1, help="Steps of every row.")] = 2000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 16,
    curriculum: Annotated[int, typer.Option(min=0, help="Blocks until the full spread of poses.")] = 15,
    crops: Annotated[int, typer.Option(min=1, help="Held-out crops to score on.")] = 512,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; may be repeated.")] = None,
    backbone: Annotated[Path | None, typer.Option(help="Checkpoint whose backbone every row starts from.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
) -> None:
    """Train the rows of the poster's Table 2 on the same budget, and print the table."""
    with errors_reported():
        check_installed()
        from glnet.body import Body, find_body, load_body
        from glnet.checkpoint import Checkpoint
        from glnet.config import load_config
        from glnet_train.fit.ablation import ROWS, as_markdown, train_rows
        from glnet_train.recipe import Recipe

        unknown = set(row or []) - set(ROWS)
        if unknown:
            raise typer.BadParameter(f"rows are {', '.join(ROWS)}")
        network = load_config(config)
        recipe = Recipe(
            steps=steps, batch=batch, warmup=100, average=0.99, blocks=8, refresh=64, curriculum=curriculum, seed=seed
        )
        make_directory(directory)
        body = Body(load_body(find_body(network.body)))
        trained = None if backbone is None else Checkpoint.load(backbone)
        scores = train_rows(directory, network, recipe, body, crops, row or list(ROWS), trained, say)
        print_result(as_markdown(scores))


@app.command()
def smoke(
    steps: Annotated[int, typer.Option(min=2, help="Length.")] = SMOKE_STEPS,
) -> None:
    """Train a small network for a moment, and fail unless its loss falls to six tenths."""
    with errors_reported():
        check_installed()
        from glnet.body import Body, find_body, load_body
        from glnet.config import load_config
        from glnet_train.fit.trainer import Trainer
        from glnet_train.recipe import Recipe

        recipe = Recipe(steps=steps, batch=8, warmup=5, block=64, blocks=1, refresh=steps, precision="float32")
        training = Trainer(load_config("demo"), recipe, Body(load_body(find_body("demo"))))
        losses = [terms["loss"] for terms in training.run(steps)]
        tenth = max(len(losses) // 10, 1)
        first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
        print_result(f"loss {first:.2f} -> {last:.2f}")
        if not last <= SMOKE_FACTOR * first:
            raise TrainingError(
                "The loss did not fall enough.",
                why=f"from {first:.2f} to {last:.2f} in {steps} steps; at most {SMOKE_FACTOR * first:.2f} was expected",
                fix="compare with the versions in constraints.txt",
            )


def main() -> None:
    """Entry point."""
    app()
