"""Write a contact sheet of synthetic crops."""

import math
from pathlib import Path
from typing import Annotated

import cv2
import typer

from glnet.body import Body, find_body, load_body
from glnet.training.synthetic import SyntheticSource
from glnet.training.synthetic.contact_sheet import contact_sheet, draw_keypoints
from glnet_infer.console import errors_reported
from glnet_infer.errors import OutputError
from glnet_infer.manifest import CropSpec


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG or JPEG file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Crops.")] = 64,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    size: Annotated[int, typer.Option(min=16, help="Side of a crop, pixels.")] = 192,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of photographs to put behind the persons.")] = None,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0: easy crops only; 1: the full distribution.")] = 1.0,
    keypoints: Annotated[bool, typer.Option("--keypoints", help="Draw the skeletons.")] = False,
    body: Annotated[str, typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.")] = "demo",
) -> None:
    """Write a contact sheet of synthetic training crops."""
    with errors_reported():
        model = Body(load_body(find_body(body)))
        source = SyntheticSource(model, CropSpec(size), seed=seed, backgrounds=backgrounds, difficulty=difficulty)
        sample = source.sample(count)
        crops = draw_keypoints(sample, model) if keypoints else sample.crops.numpy()
        sheet = contact_sheet(crops, columns=math.ceil(math.sqrt(count)))
        try:
            written = cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise OutputError(
                f"{output} was not written.", why=str(error), fix="give a name ending in .png or .jpg"
            ) from error
        if not written:
            raise OutputError(f"{output} was not written.", fix="give a file in a directory that exists")
    typer.echo(output)


if __name__ == "__main__":
    typer.run(main)
