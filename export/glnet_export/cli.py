"""``glnet-export``: from a checkpoint to a bundle."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from glnet_infer.console import Version, errors_reported, new_app, print_json, print_result, talk
from glnet_infer.errors import ExportError, first_line, install_hint

app = new_app()


@app.command()
def export_command(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, or a bare state dict together with --config.", show_default=False, readable=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle's directory.", show_default="./NAME of the checkpoint", readable=False
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Preset (w18-small, w32, w48) or .json file, for a bare state dict.")
    ] = None,
    random_init: Annotated[
        str | None,
        typer.Option(help="Export random weights of this preset or .json file: speed without training."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    body: Annotated[
        str | None,
        typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.", show_default="the checkpoint's own"),
    ] = None,
    parity_crops: Annotated[int, typer.Option(min=16, help="Crops to compare the graph with PyTorch on.")] = 16,
    max_vertex_error: Annotated[
        float, typer.Option(help="Fail when a vertex or joint is further off, in millimetres.")
    ] = 0.05,
    min_pixel_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Fail when a smaller share of crops chooses the same pixel.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
    _: Version = False,
) -> None:
    """Export a GLNet checkpoint to a bundle: one ONNX graph, its manifest, and a parity report in millimetres."""
    if (checkpoint is None) == (random_init is None):
        raise typer.BadParameter("give either a checkpoint or --random-init")
    if random_init is not None and config is not None:
        raise typer.BadParameter("--random-init names the configuration already; leave --config out")
    signal.signal(signal.SIGTERM, _interrupt)
    with errors_reported(as_json):
        with talk.status("starting"):
            try:
                from glnet_export.parity import ParityBounds
                from glnet_export.pipeline import Source, export
            except (ImportError, OSError) as error:  # a broken torch raises OSError
                raise ExportError(
                    "The export is not installed.", why=first_line(error), fix=install_hint("cpu,export")
                ) from error
        name = checkpoint.stem if checkpoint is not None else f"{Path(str(random_init)).stem}-random"
        target = output or Path(name)
        bounds = ParityBounds(
            vertices_mm=max_vertex_error,
            joints_mm=max_vertex_error,
            translation_mm=max_vertex_error,
            pixel_agreement=min_pixel_agreement,
        )
        source = Source(checkpoint, random_init or config, seed, body)
        manifest = export(source, target, parity_crops=parity_crops, bounds=bounds, stage=_Stages().show)
        if as_json:
            print_json(manifest.to_document())
        else:
            print_result(str(target))


class _Stages:
    """A line per stage, with what it found and how long it took."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def show(self, name: str) -> Iterator[list[str]]:
        from glnet_export.pipeline import STAGES

        self.count += 1
        label = f"{self.count}/{len(STAGES)} {name}"
        found: list[str] = []
        start = time.monotonic()
        outcome = "failed"
        try:
            with talk.status(label):
                yield found
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            line = f"{label:<12} {outcome:<7} {time.monotonic() - start:6.1f} s  {'; '.join(found)}"
            talk.print(line.rstrip(), markup=False, soft_wrap=True)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Let SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point."""
    app()
