"""``glnet-train fit``: a training, new or resumed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from glnet_infer.commands.console import errors_reported, print_result, say
from glnet_infer.errors import InputError, OutputError
from glnet_infer.files import make_directory
from glnet_train.commands.opening import WeightsKey, open_body, open_initial, say_left_out
from glnet_train.commands.requirements import check_installed


def fit_command(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Folder for state, checkpoint and log; resumed if it holds a state.")],
    config: Annotated[str, typer.Option(help="Preset or .json file of the network.")] = "demo",
    initial: Annotated[Path | None, typer.Option(help="Checkpoint, or public weights of HRNet, to start from.")] = None,
    weights_key: WeightsKey = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the whole training.")] = 20_000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step, of all processes together.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    precision: Annotated[str, typer.Option(help="Precision of the network: float32, bfloat16 or float16.")] = "bfloat16",
    pool: Annotated[int, typer.Option(min=1, help="Blocks of 256 rendered crops to draw from.")] = 16,
    refresh: Annotated[int, typer.Option(min=1, help="Steps between two newly rendered blocks of 256 crops.")] = 16,
    curriculum: Annotated[int, typer.Option(min=0, help="Blocks until the full spread of poses.")] = 300,
    positives: Annotated[int, typer.Option(min=1, help="Positive pixels per person.")] = 20,
    costs: Annotated[
        str, typer.Option(help="Costs of matching: keypoints, keypoints+depth or keypoints+depth+rotation.")
    ] = "keypoints",
    static_share: Annotated[
        float, typer.Option(help="Share of the steps, the first ones, whose positives lie around the root; 1: all.")
    ] = 0.5,
    confidence_cost: Annotated[float, typer.Option(help="Weight of the confidence in the matching cost.")] = 8.0,
    guidance: Annotated[
        str, typer.Option(help="Labels that guide the local encoding: all, keypoints, segmentation, iuv or none.")
    ] = "all",
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs to put behind the persons.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSON list of real datasets (docs/training.md).")] = None,
    synthetic: Annotated[float, typer.Option(help="Share of rendered crops; the others come from --data.")] = 1.0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saved states.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
) -> None:
    """Train until the last step; SIGTERM and Ctrl-C save the state first, and the same command goes on from it.

    Several processes, on one GPU each or on the CPU: torchrun --nproc-per-node N --no-python glnet-train fit ...
    """
    with errors_reported():
        check_installed()
        from glnet.config import GLNetConfig, load_config
        from glnet_train.commands.progress import progress_bar
        from glnet_train.data import load_mixture
        from glnet_train.distributed import Processes
        from glnet_train.fit.loop import CHECKPOINT, STATE, run_training
        from glnet_train.fit.progress import Progress
        from glnet_train.fit.state import read_state
        from glnet_train.fit.trainer import Trainer
        from glnet_train.objective.matching import Matching
        from glnet_train.recipe import Recipe

        state = read_state(directory / STATE) if _holds(directory, STATE) else None
        if state is not None:
            _check_same_options(context, state, load_config(config).to_dict())
            network, recipe = GLNetConfig.from_dict(state["config"]), Recipe(**state["recipe"])
        else:
            network = load_config(config)
            recipe = Recipe(
                steps=steps,
                batch=batch,
                learning_rate=learning_rate,
                guidance=guidance,
                precision=precision,
                synthetic=synthetic,
                blocks=pool,
                refresh=refresh,
                curriculum=curriculum,
                seed=seed,
            )
        body = open_body(network.body)
        real = None if data is None else load_mixture(data, body, network.crop, recipe.seed)
        say_left_out([] if real is None else real.datasets)
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
                    matching=Matching(
                        static_share=static_share, positives=positives, costs=costs, confidence_cost=confidence_cost
                    ),
                    backgrounds=backgrounds,
                    real=real,
                    initial=None if initial is None else open_initial(initial, network, weights_key),
                    processes=processes,
                )
            make_directory(directory)  # once nothing else can be wrong
            first = processes.rank == 0
            with progress_bar(recipe.steps, training.step) if first else nullcontext(Progress()) as progress:
                stopped = run_training(training, directory, save_every, progress)
        finally:
            processes.leave()
        if stopped:
            say(f"stopped at step {training.step}; the same command goes on")
            raise typer.Exit(130)
        if first:
            print_result(str(directory / CHECKPOINT))


def _holds(directory: Path, name: str) -> bool:
    """Whether a directory holds a file; raises OutputError where that cannot be known."""
    try:
        return (directory / name).is_file()
    except OSError as error:
        raise OutputError(
            f"Cannot write into {directory}.", why=str(error.strerror or error), fix="choose another directory"
        ) from error


def _check_same_options(context: typer.Context, state: dict[str, Any], network: dict[str, Any]) -> None:
    """Raise InputError where options are given that a training was not begun with."""
    recipe, matching = state["recipe"], state["matching"]
    begun = {**recipe, **matching, "pool": recipe["blocks"]}
    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    other = [
        f"{name} {value}, begun with {begun[name]}" for name, value in given.items() if value != begun.get(name, value)
    ]
    if "config" in given and network != state["config"]:
        other.append(f"config {given['config']}, begun with {state['config']['name']} of other values")
    if other:
        raise InputError(
            f"The training in {context.params['directory']} cannot go on with other options.",
            why="; ".join(other),
            fix="give those that it was begun with, or begin another elsewhere (--initial takes the weights along)",
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
