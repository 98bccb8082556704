"""``glnet-train sheet``: a picture of what the network is trained on."""

import math
from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.commands.console import errors_reported, print_result
from glnet_train.commands.opening import open_body
from glnet_train.commands.requirements import check_installed
from glnet_train.recipe import Recipe


def sheet_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG or JPEG file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of crops.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    size: Annotated[int, typer.Option(min=16, help="Side of a crop, pixels.")] = 192,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs to put behind the persons.")] = None,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="Spread of the crops, 0 (easy ones) to 1 (all).")] = 1.0,
    tilted: Annotated[
        float, typer.Option(min=0, max=1, help="Share of persons who are the less upright of two; scoring has 0.")
    ] = Recipe.tilted,
    bystanders: Annotated[
        float, typer.Option(min=0, max=1, help="Share of crops with another person; scoring has 0.")
    ] = Recipe.bystanders,
    keypoints: Annotated[bool, typer.Option("--keypoints", help="Draw the skeletons too.")] = False,
    body: Annotated[str, typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.")] = "demo",
) -> None:
    """Write a contact sheet of synthetic training crops."""
    with errors_reported():
        check_installed()
        from glnet_infer.contract import CropSpec
        from glnet_infer.image_files import write_image
        from glnet_render import Spread, SyntheticSource
        from glnet_render.contact_sheet import contact_sheet, draw_keypoints

        model = open_body(body)
        spread = Spread(difficulty, tilted, bystanders)
        source = SyntheticSource(model, CropSpec(size), seed=seed, backgrounds=backgrounds, spread=spread)
        sample = source.sample(count)
        crops = draw_keypoints(sample, model) if keypoints else sample.crops.numpy()
        sheet = contact_sheet(crops, columns=math.ceil(math.sqrt(count)))
        write_image(output, sheet[..., ::-1])
        print_result(str(output))
