"""``glnet-train``: train, score checkpoints and bundles, compare the network's parts, try the whole loop in a minute."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.commands.console import errors_reported, new_app, print_result, start
from glnet_infer.errors import TrainingError, tested_versions
from glnet_train.commands.compare import compare_command
from glnet_train.commands.evaluate import evaluate_command
from glnet_train.commands.opening import WeightsKey, open_body, open_weights
from glnet_train.commands.requirements import check_installed
from glnet_train.commands.sheet import sheet_command
from glnet_train.commands.speed import speed_command
from glnet_train.commands.training import fit_command

SMOKE_STEPS, SMOKE_FACTOR = 60, 0.6

app = new_app()


@app.callback()
def train() -> None:
    """Train and score GLNet."""


app.command("fit")(fit_command)
app.command("eval")(evaluate_command)
app.command("compare")(compare_command)
app.command("sheet")(sheet_command)
app.command("speed")(speed_command)


@app.command()
def compact(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint to read.", readable=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", readable=False)],
    weights_key: WeightsKey = None,
) -> None:
    """Write a checkpoint with its weights in half precision, to hand on at half the size."""
    with errors_reported():
        check_installed()
        whole = open_weights(checkpoint, weights_key)
        whole.network()  # complains where the weights do not fit their configuration
        whole.compact().save(output)
        print_result(str(output))


@app.command()
def smoke(
    steps: Annotated[int, typer.Option(min=2, help="Steps to train.")] = SMOKE_STEPS,
) -> None:
    """Train a small network for a moment, and fail unless its loss falls to six tenths."""
    with errors_reported():
        check_installed()
        from glnet.config import load_config
        from glnet_train.fit.trainer import Trainer
        from glnet_train.recipe import Recipe

        recipe = Recipe(steps=steps, batch=8, warmup=5, block=64, blocks=1, refresh=steps, precision="float32")
        training = Trainer(load_config("demo"), recipe, open_body("demo"))
        losses = [terms["loss"] for terms in training.run(steps)]
        tenth = max(len(losses) // 10, 1)
        first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
        print_result(f"loss {first:.2f} -> {last:.2f}")
        if not last <= SMOKE_FACTOR * first:
            raise TrainingError(
                "The loss did not fall enough.",
                why=f"from {first:.2f} to {last:.2f} in {steps} steps; at most {SMOKE_FACTOR * first:.2f} was expected",
                fix=tested_versions("cpu,train"),
            )


def main() -> None:
    """Entry point."""
    start(app)
