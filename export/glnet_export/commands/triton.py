"""``glnet-export triton``: a repository that NVIDIA's Triton Inference Server serves."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from glnet_infer.commands.console import errors_reported, print_json, print_result, say, talk
from glnet_infer.detection import DEFAULT_DETECTOR


class TritonBackends(str, Enum):
    """Triton's backends that run the graph."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def triton_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle from glnet-export.", show_default=False, readable=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory of the repository.", show_default=False, readable=False)
    ],
    backend: Annotated[
        TritonBackends, typer.Option(help="Triton's backend: onnxruntime runs the graph, tensorrt the bundle's engine.")
    ] = TritonBackends.ONNXRUNTIME,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", min=1, help="Most crops of one batch.", show_default="16, or the engine's own"),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, max=64, help="Copies of the graph or engine that run side by side.")] = 1,
    frame_instances: Annotated[
        int, typer.Option("--frame-instances", min=1, max=256, help="Processes that decode images and cut crops.")
    ] = 2,
    gpu: Annotated[
        int | None,
        typer.Option(
            min=0, max=63, help="Number of the GPU.", show_default="the CPU for onnxruntime, every GPU for tensorrt"
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="File name of the engine, where the bundle has several.", show_default=False),
    ] = None,
    server_tensorrt: Annotated[
        str | None,
        typer.Option(
            "--server-tensorrt",
            help="TensorRT's version on the server, such as 10.13.2: engines of another one are refused.",
            show_default="not compared",
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="What finds persons in images without boxes: nanodet, none for one person, or FILE.onnx, which is copied."
        ),
    ] = DEFAULT_DETECTOR,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON on stdout.")] = False,
) -> None:
    """Write a repository for NVIDIA's Triton Inference Server: the graph as one model, images to meshes as another.

    Needs neither torch nor Triton. A repository that an earlier call wrote is replaced, unless a file in it was changed.
    """
    with errors_reported(as_json):
        with talk.status("writing"):
            import dataclasses

            from glnet_export.triton.repository import RepositoryOptions, write_repository

            options = RepositoryOptions(
                backend.value, max_batch, instances, frame_instances, gpu, detector, engine, server_tensorrt
            )
            record = write_repository(bundle, output, options)
        for line in (
            f"Serve it: tritonserver --model-repository={output.resolve()}",
            *record.needs,
            "Health: http://HOST:8000/v2/health/ready. Metrics: http://HOST:8002/metrics.",
        ):
            say(line)
        if as_json:
            print_json(dataclasses.asdict(record))
        else:
            print_result(str(output))
