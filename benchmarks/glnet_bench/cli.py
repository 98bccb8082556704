"""``glnet-bench``: latency, throughput and the floor of a bundle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from glnet_infer.commands.console import Version, errors_reported, print_json, print_result, say, talk
from glnet_infer.errors import BackendError, CheckpointError, InputError, first_line, install_hint

MEASURE = "measure"


class _MeasureByDefault(typer.core.TyperGroup):
    """``glnet-bench BUNDLE`` is ``glnet-bench measure BUNDLE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            args = [MEASURE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MeasureByDefault, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True
)


@app.callback()
def _group(_: Version = False) -> None:
    """Measure how long a bundle takes here: glnet-bench BUNDLE. Compare two runs: glnet-bench compare A.json B.json."""


@app.command(MEASURE)
def measure_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle from glnet-export.", show_default=False, readable=False)],
    backends: Annotated[
        list[str] | None,
        typer.Option("--backend", help="One of docs/benchmarks.md; repeatable, or with commas.", show_default="all"),
    ] = None,
    batch: Annotated[str, typer.Option(help="Crops in a call, for engine-only times.")] = "1,2,4,8,16,32",
    persons: Annotated[str, typer.Option(help="Persons in a frame, for end-to-end times; 1..16 for each.")] = "1,2,4,8,16",
    frame: Annotated[str, typer.Option(help="480p, 720p, 1080p, 1440p, 4k or WIDTHxHEIGHT.")] = "1080p,4k",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The run's .json; .md and .png go beside it.", show_default="bench-BUNDLE.json"
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The bundle's checkpoint, for PyTorch's rows.", show_default="random weights: as fast", readable=False
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Timed calls of a row that are enough.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.01, help="After so much timed work 5 calls are enough.")] = 5.0,
    soak: Annotated[int, typer.Option(min=0, help="Frames to watch memory over; 10000 is a good number.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of CPU kernels.", show_default="each backend's own choice")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run instead of going on with it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON on stdout.")] = False,
) -> None:
    """Measure a bundle on the backends of this machine, in turns.

    The report goes to stdout and, with raw samples and a plot, to files. A run that is interrupted goes on when the same
    command is given again.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with errors_reported(as_json):
        _need("onnx")
        from glnet_bench.machine import hardware as machine
        from glnet_bench.machine import provenance
        from glnet_bench.machine.nvidia import open_nvml
        from glnet_bench.measure.run import Run, bundle_head, measurements
        from glnet_bench.record import Record
        from glnet_bench.report.chart import draw
        from glnet_bench.report.page import markdown, save
        from glnet_bench.runners.base import Options
        from glnet_bench.settings import Settings, parse_counts, parse_frames
        from glnet_infer.bundle import Bundle, record_file

        opened = Bundle.open(bundle)
        if checkpoint is not None and not checkpoint.is_file():
            raise CheckpointError(f"There is no checkpoint {checkpoint}.", fix="check the path")
        settings = Settings(
            backends=_names(backends),
            batches=parse_counts(batch, "--batch"),
            persons=parse_counts(persons, "--persons"),
            frames=parse_frames(frame),
            samples=samples,
            seconds=seconds,
            soak=soak,
            threads=threads,
            checkpoint_sha256=record_file(checkpoint).sha256 if checkpoint else "",
        )
        path = output or Path(f"bench-{bundle.resolve().name}.json")
        if path.suffix != ".json":
            raise InputError(f"{path} does not end in .json.", fix="name the run's file -o NAME.json")
        head = {
            "settings": settings.to_document(),
            "bundle": bundle_head(opened),
            "machine": machine.describe(open_nvml()),
            "code": provenance.describe(),
        }
        record = Record.open(path, head, fresh=fresh)
        if record.resumed:
            say(f"going on with {path}")
        try:
            with _bar(measurements(settings), record) as tell:
                Run(opened, settings, Options(threads, checkpoint), record)(tell)
        except KeyboardInterrupt:
            say(f"finished parts are in {path}; the same command goes on")
            raise
        text = markdown(record.document, picture=path.with_suffix(".png").name)
        save(path.with_suffix(".md"), text)
        draw(record.document, path.with_suffix(".png"))
        if as_json:
            print_json(record.document)
        else:
            print_result(text)
        for suffix in (".json", ".md", ".png"):
            say(str(path.with_suffix(suffix)))
        reasons = {name: entry.get("reason") for name, entry in record.document["backends"].items()}
        if all(reasons.values()):
            raise BackendError(
                "None of the backends ran.",
                why="; ".join(f"{name}: {why}" for name, why in reasons.items()),
                fix="glnet-doctor says what is installed and can run",
            )


@app.command("compare")
def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A run.", show_default=False, readable=False)],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another.", show_default=False, readable=False)],
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say which rows of a second run are faster or slower than the first's, with bootstrap confidence intervals."""
    with errors_reported(as_json):
        from glnet_bench.record import differences, read
        from glnet_bench.report.comparison import compare, table
        from glnet_bench.report.disturbances import warnings

        documents = read(first), read(second)
        changed = differences(*documents)
        for name, document in zip("AB", documents, strict=True):
            for text in warnings(document["watched"], document["machine"]["cores"]):
                say(f"WARNING: {name}: {text}", style="yellow")
        rows = compare(*documents, confidence=confidence)
        if as_json:
            print_json({"differences": changed, "confidence": confidence, "rows": [row.to_document() for row in rows]})
            return
        for line in changed:
            say(line)
        print_result(table(rows, confidence))


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Backends, in the order of the report."""
    from glnet_bench.runners.base import BACKENDS

    asked = [name.strip() for text in given or BACKENDS for name in text.split(",")]
    unknown = [name for name in asked if name not in BACKENDS]
    if unknown:
        raise BackendError(f"There is no backend {unknown[0]!r}.", fix=f"backends: {', '.join(BACKENDS)}")
    return tuple(name for name in BACKENDS if name in asked)


def _need(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed.", why=first_line(error), fix=install_hint("export")) from error


@contextmanager
def _bar(parts: dict[str, list[str]], record: Any) -> Iterator[Any]:
    """A progress bar over the measurements of a run on a terminal, else a line for each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    names = list(parts)
    done = sum(all(map(record.has, kept)) for kept in parts.values())
    with Progress(*columns, console=talk, disable=not talk.is_terminal) as progress:
        task = progress.add_task("", total=len(names))

        def tell(name: str) -> None:
            progress.update(task, description=name, completed=names.index(name))
            if not talk.is_terminal:
                say(f"{names.index(name) + 1}/{len(names)} {name}")

        progress.update(task, completed=done)
        yield tell
        progress.update(task, completed=len(names))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Let SIGTERM end a run as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point."""
    app()
