"""``glnet-export``: from a checkpoint to a bundle."""

import contextlib
import math
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from glnet_export.engines.options import EngineOptions, parse_compute_capabilities, parse_frame, parse_profile
from glnet_infer.commands.console import Version, errors_reported, new_app, print_json, print_result, say, talk
from glnet_infer.errors import ExportError, first_line, install_hint

app = new_app()


class Flavor(str, Enum):
    """Products that build engines."""

    CLASSIC = "tensorrt"
    RTX = "tensorrt-rtx"


def _a_bound(value: float | None) -> float | None:
    """Refuse a bound that nothing keeps, or that is no number, before minutes of work."""
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is no number from 0 up")
    return value


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
        str | None, typer.Option(help="Preset (demo, w18-small, w32, w48) or .json file, for a bare state dict.")
    ] = None,
    random_init: Annotated[
        str | None,
        typer.Option(help="Export random weights of this preset or .json file: speed without training."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 31) - 1, help="Of random weights.")] = 0,
    body: Annotated[
        str | None,
        typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.", show_default="the checkpoint's own"),
    ] = None,
    parity_crops: Annotated[int, typer.Option(min=16, help="Crops to compare the graph with PyTorch on.")] = 16,
    max_vertex_error: Annotated[
        float,
        typer.Option(callback=_a_bound, help="Fail when a vertex or joint is further off, in millimetres."),
    ] = 0.05,
    min_pixel_agreement: Annotated[
        float,
        typer.Option(callback=_a_bound, min=0, max=1, help="Fail when a smaller share of crops chooses the same pixel."),
    ] = 1.0,
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine too, in mixed precision.")] = False,
    flavor: Annotated[
        Flavor | None,
        typer.Option(
            help="Of the engine: TensorRT builds on the GPU that will run it, TensorRT for RTX ahead of time.",
            show_default="tensorrt where it is installed and has a GPU",
        ),
    ] = None,
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="SM,...",
            help="Compute capabilities to compile for, such as 86,89,120; tensorrt-rtx only.",
            show_default="this machine's GPU, or 86,89,120",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:OPT:MAX", help="Fewest, most usual and most crops in a run of the engine.", show_default="1:4:16"
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Largest frame that crops are cut from on the GPU; scratch memory there grows with it. Larger frames are "
            "cut on the CPU.",
            show_default="3840x2160",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="Effort of the engine's builder.", show_default="the builder's own"),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(min=1, help="Scratch memory of the engine's layers, MiB.", show_default="all of the GPU's"),
    ] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="Build for TensorRT's lean runtime, which is small to install; tensorrt only.")
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="File that speeds up the next build; tensorrt only.", show_default=False),
    ] = None,
    fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Modules of the engine that stay in float32, such as 'backbone.stage4'; repeatable."
        ),
    ] = None,
    precision_crops: Annotated[
        int | None,
        typer.Option(min=1, help="Rendered crops to compare half precision with float32 on.", show_default="32"),
    ] = None,
    max_half_error: Annotated[
        float | None,
        typer.Option(
            callback=_a_bound,
            help="Fail when half precision moves vertices by more, in millimetres on average.",
            show_default="1.0",
        ),
    ] = None,
    min_half_agreement: Annotated[
        float | None,
        typer.Option(
            callback=_a_bound,
            min=0,
            max=1,
            help="Fail when half precision leaves a smaller share of crops the same pixel, or one as good.",
            show_default="0.95",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
    _: Version = False,
) -> None:
    """Export a GLNet checkpoint to a bundle: one ONNX graph, its manifest, and a parity report in millimetres.

    With --trt, a TensorRT engine too.
    """
    if (checkpoint is None) == (random_init is None):
        raise typer.BadParameter("give either a checkpoint or --random-init")
    if random_init is not None and config is not None:
        raise typer.BadParameter("--random-init names the configuration already; leave --config out")
    given = {
        "--flavor": flavor,
        "--sm": sm,
        "--batch": batch,
        "--frame": frame,
        "--level": level,
        "--workspace": workspace,
        "--lean": lean or None,
        "--timing-cache": timing_cache,
        "--fp32": fp32,
        "--precision-crops": precision_crops,
        "--max-half-error": max_half_error,
        "--min-half-agreement": min_half_agreement,
    }
    engine = _engine_options(trt, given)
    signal.signal(signal.SIGTERM, _interrupt)
    with errors_reported(as_json):
        with talk.status("starting"):
            try:
                from glnet_export.parity import ParityBounds
                from glnet_export.pipeline import STAGES, STAGES_WITH_ENGINE, Source, export
            except (ImportError, OSError) as error:  # a broken torch raises OSError
                raise ExportError(
                    "The export is not installed.", why=first_line(error), fix=install_hint("export")
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
        stages = _Stages(len(STAGES if engine is None else STAGES_WITH_ENGINE))
        manifest = export(
            source,
            target,
            parity_crops=parity_crops,
            bounds=bounds,
            engine=engine,
            stage=stages.show,
            progress=stages.advance,
        )
        if as_json:
            print_json(manifest.to_document())
        else:
            print_result(str(target))


def _engine_options(trt: bool, given: dict[str, Any]) -> EngineOptions | None:
    """What the options of the engine say.

    Raises:
        typer.BadParameter: They make no sense, or there are some but no --trt.
    """
    asked = {option: value for option, value in given.items() if value is not None}
    if not trt:
        if asked:
            raise typer.BadParameter(f"{', '.join(asked)} is about the engine: add --trt")
        return None
    flavor = asked.get("--flavor")
    if flavor is Flavor.CLASSIC and "--sm" in asked:
        raise typer.BadParameter("TensorRT compiles for the GPU that it builds on: --sm needs --flavor tensorrt-rtx")
    if "--lean" in asked and (flavor is Flavor.RTX or "--sm" in asked):
        raise typer.BadParameter("only TensorRT itself has a lean runtime: leave --lean out, or use --flavor tensorrt")
    return EngineOptions(
        flavor=None if flavor is None else flavor.value,
        compute_capabilities=_parsed("--sm", parse_compute_capabilities, asked, ()),
        profile=_parsed("--batch", parse_profile, asked, EngineOptions.profile),
        largest_frame=_parsed("--frame", parse_frame, asked, EngineOptions.largest_frame),
        level=asked.get("--level"),
        workspace=asked.get("--workspace"),
        lean=asked.get("--lean", False),
        timing_cache=asked.get("--timing-cache"),
        float32_modules=tuple(asked.get("--fp32", ())),
        precision_crops=asked.get("--precision-crops", EngineOptions.precision_crops),
        max_half_error_mm=asked.get("--max-half-error", EngineOptions.max_half_error_mm),
        min_half_agreement=asked.get("--min-half-agreement", EngineOptions.min_half_agreement),
    )


def _parsed(option: str, parse: Callable[[str], Any], given: dict[str, Any], default: Any) -> Any:
    if option not in given:
        return default
    try:
        return parse(given[option])
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


class _Stages:
    """A line per stage, with what it found and how long it took, then its tables; while it lasts, a bar."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = 0
        self._bar: Progress | None = None

    @contextlib.contextmanager
    def show(self, name: str) -> Iterator[list[str]]:
        self.count += 1
        label = f"{self.count}/{self.total} {name}"
        found: list[str] = []
        start = time.monotonic()
        outcome = "failed"
        bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), console=talk
        )
        bar.add_task(label, total=None)
        try:
            with Live(
                bar, console=talk, transient=True
            ):  # Progress by itself prints empty lines where there is no terminal
                self._bar = bar
                yield found
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            self._bar = None
            said, tables = [text for text in found if "\n" not in text], [text for text in found if "\n" in text]
            line = f"{label:<12} {outcome:<7} {time.monotonic() - start:6.1f} s  {'; '.join(said)}"
            for text in (line.rstrip(), *(textwrap.indent(table, " " * 14) for table in tables)):
                say(text)

    def advance(self, phase: str, fraction: float) -> None:
        """Fill the present stage's bar; may be called from any thread."""
        bar = self._bar
        if bar is not None:
            (task,) = bar.tasks
            name = task.description.partition(":")[0]
            bar.update(task.id, description=f"{name}: {phase.lower()}", total=1, completed=fraction)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Let SIGTERM clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point."""
    app()
