"""``glnet-infer``: meshes of the persons in photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.console import errors_reported

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def infer(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.", show_default=False)],
    bundle: Annotated[
        Path,
        typer.Option("--bundle", "-b", help="Bundle from glnet-export.", envvar="GLNET_BUNDLE", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the results.")] = Path("glnet-output"),
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            help="A person's box x1,y1,x2,y2 in pixels; once per person. None: one person fills each image.",
            show_default=False,
        ),
    ] = None,
    boxes_file: Annotated[
        Path | None,
        typer.Option(help='JSON of boxes by file name: {"photo.jpg": [[x1, y1, x2, y2], ...], ...}.', show_default=False),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(help="The camera fx,fy,cx,cy in pixels.", show_default="focal length = image diagonal"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="overlay, glb, obj, ply, npz, json; repeatable.", show_default="overlay glb npz"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime-cpu or onnxruntime-cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of CPU kernels.", show_default="the backend's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Recover human meshes from photographs and write overlays and mesh files.

    Written files are listed on stdout, everything else goes to stderr. An image that fails is reported, the others are
    still done, and the exit code is the first failure's (docs/errors.md).
    """
    with errors_reported(as_json):
        from glnet_infer.batch import Job, run

        run(
            Job.parse(
                images=images,
                output=output,
                boxes=boxes or [],
                boxes_file=boxes_file,
                intrinsics=intrinsics,
                formats=formats or ["overlay", "glb", "npz"],
            ),
            bundle,
            backend=backend,
            threads=threads,
            as_json=as_json,
        )


def main() -> None:
    """Entry point."""
    app()
