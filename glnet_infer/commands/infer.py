"""``glnet-infer``: meshes of the persons in photographs."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.backends import backend_names
from glnet_infer.commands.console import Version, errors_reported, new_app
from glnet_infer.detection import DEFAULT_DETECTOR, DEFAULT_THRESHOLD, detector_names

app = new_app()


@app.command()
def infer(
    images: Annotated[
        list[Path], typer.Argument(help="Photographs, or folders of them.", show_default=False, readable=False)
    ],
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle",
            "-b",
            help="Bundle from glnet-export.",
            envvar="GLNET_BUNDLE",
            show_default=False,
            readable=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the results.", readable=False)] = Path(
        "glnet-output"
    ),
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            help="A person's box x1,y1,x2,y2 in pixels; repeat it for every person. None: the detector finds them.",
            show_default=False,
        ),
    ] = None,
    boxes_file: Annotated[
        Path | None,
        typer.Option(
            help='JSON with boxes by file name: {"photo.jpg": [[x1, y1, x2, y2], ...], ...}.',
            show_default=False,
            readable=False,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help=f"What finds the persons: {', '.join(detector_names())} or FILE.onnx. none: one person fills each image.",
            show_default=DEFAULT_DETECTOR,
        ),
    ] = None,
    detector_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of what counts as a person.", show_default=str(DEFAULT_THRESHOLD)),
    ] = None,
    max_persons: Annotated[
        int | None, typer.Option(min=1, help="Most persons in an image: the surest.", show_default="all")
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(help="The camera fx,fy,cx,cy in pixels.", show_default="focal length = image diagonal"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="overlay, glb, obj, ply, npz or json; repeatable.", show_default="overlay, glb, npz"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help=f"What runs the network: {', '.join(backend_names())}.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of CPU kernels.", show_default="the backend's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    _: Version = False,
) -> None:
    """Recover human meshes from photographs and write overlays and mesh files.

    Written files are listed on stdout, everything else goes to stderr. An image that fails is reported, the others are
    still done, and the exit code is the first failure's (docs/errors.md).
    """
    with errors_reported(as_json):
        from glnet_infer.commands.photographs import Job, run

        job = Job.parse(
            images=images,
            output=output,
            boxes=boxes or [],
            boxes_file=boxes_file,
            detector=detector,
            threshold=detector_threshold,
            most=max_persons,
            intrinsics=intrinsics,
            formats=formats or ["overlay", "glb", "npz"],
        )
        failure = run(job, bundle, backend=backend, threads=threads, as_json=as_json)
        if failure is not None:
            raise typer.Exit(failure.exit_code)


def main() -> None:
    """Entry point."""
    app()
