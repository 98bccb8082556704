"""Write a contact sheet of synthetic crops."""

import math
from pathlib import Path
from typing import Annotated

import cv2
import typer

from glnet.body import Body, find_body, load_body
from glnet.training.recipe import Recipe
from glnet.training.synthetic import Spread, SyntheticSource
from glnet.training.synthetic.contact_sheet import contact_sheet, draw_keypoints
from glnet_infer.console import errors_reported
from glnet_infer.formats import write_image
from glnet_infer.manifest import CropSpec


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG or JPEG file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Crops.")] = 64,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    size: Annotated[int, typer.Option(min=16, help="Side of a crop, pixels.")] = 192,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs to put behind the persons.")] = None,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: easy crops only; 1: the full distribution.")] = 1.0,
    tilted: Annotated[
        float, typer.Option(min=0, max=1, help="Share of persons who are the less upright of two; 0 as in scoring.")
    ] = Recipe.tilted,
    bystanders: Annotated[
        float, typer.Option(min=0, max=1, help="Share of crops with another person; 0 as in scoring.")
    ] = Recipe.bystanders,
    keypoints: Annotated[bool, typer.Option("--keypoints", help="Draw the skeletons.")] = False,
    body: Annotated[str, typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.")] = "demo",
) -> None:
    """Write a contact sheet of synthetic training crops."""
    with errors_reported():
        model = Body(load_body(find_body(body)))
        spread = Spread(difficulty, tilted, bystanders)
        source = SyntheticSource(model, CropSpec(size), seed=seed, backgrounds=backgrounds, spread=spread)
        sample = source.sample(count)
        crops = draw_keypoints(sample, model) if keypoints else sample.crops.numpy()
        sheet = contact_sheet(crops, columns=math.ceil(math.sqrt(count)))
        write_image(output, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    typer.echo(output)


if __name__ == "__main__":
    typer.run(main)
