"""``glnet-bench``: latency, throughput and the floor of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from glnet_bench.settings import FULL, QUICK, Scope, Settings, parse_counts, parse_frames
from glnet_infer.commands.console import Version, errors_reported, print_json, print_result, say, start, talk
from glnet_infer.errors import BackendError, CheckpointError, InputError, first_line, install_hint

if TYPE_CHECKING:
    from glnet_bench.record.run import RunRecord
    from glnet_bench.runners.base import Options

MEASURE = "measure"


def _usual(name: str) -> str:
    """What an option is where it is not given."""

    def spoken(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"

    return f"{spoken(getattr(QUICK, name))}; with --full {spoken(getattr(FULL, name))}"


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
    full: Annotated[bool, typer.Option("--full", help="Measure everything: every backend, many sizes, 4K.")] = False,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            help="Backend to measure, from docs/benchmarks.md, or its address; repeatable, or with commas.",
            show_default=f"all but {', '.join(QUICK.left_out)}; with --full all",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Crops in a call, for times of the network.", show_default=_usual("batches")),
    ] = None,
    persons: Annotated[
        str | None,
        typer.Option(help="Persons in a frame, for end-to-end times; 1..16 for each.", show_default=_usual("persons")),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            help="Size of the frame: 480p, 720p, 1080p, 1440p, 4k or WIDTHxHEIGHT; several with commas.",
            show_default=_usual("frames"),
        ),
    ] = None,
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
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Timed calls after which a row is finished.", show_default=_usual("samples")),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Timed seconds after which 5 calls are enough.", show_default=_usual("seconds")),
    ] = None,
    soak: Annotated[int, typer.Option(min=0, help="Frames to watch memory over; 10000 is a good number.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of CPU kernels.", show_default="each backend's own choice")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run instead of going on with it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON on stdout.")] = False,
) -> None:
    """Measure a bundle on the backends of this machine, in turns. A run on two CPU cores takes some minutes.

    It says before what it will measure, and how long that takes as soon as every backend has started once. The report goes
    to stdout and, with raw samples and a chart, to files. A run that is interrupted goes on when the same command is given
    again.
    """
    with errors_reported(as_json):
        _need("onnx")
        from glnet_bench.record.codec import encode
        from glnet_bench.runners.base import Options
        from glnet_infer.bundle import record_file

        if checkpoint is not None and not checkpoint.is_file():
            raise CheckpointError(f"There is no checkpoint {checkpoint}.", fix="check the path")
        path = output or Path(f"bench-{bundle.resolve().name}.json")
        if path.suffix != ".json":
            raise InputError(f"{path} does not end in .json.", fix="name the run's file -o NAME.json")
        scope = FULL if full else QUICK
        names, addresses = _names(backends, scope)
        settings = Settings(
            backends=names,
            addresses=addresses,
            batches=scope.batches if batch is None else parse_counts(batch, "--batch"),
            persons=scope.persons if persons is None else parse_counts(persons, "--persons"),
            frames=parse_frames(",".join(scope.frames) if frame is None else frame),
            samples=scope.samples if samples is None else samples,
            seconds=scope.seconds if seconds is None else seconds,
            soak=soak,
            threads=threads,
            checkpoint_sha256=record_file(checkpoint).sha256 if checkpoint else "",
        )
        # Who says what to measure gets all of it.
        asked = any(given is not None for given in (batch, persons, frame, samples, seconds)) or soak > 0
        if asked:
            scope = dataclasses.replace(scope, budget=None)
        if backends:
            scope = dataclasses.replace(scope, left_out={})
        run = _measured(bundle, settings, scope, Options(threads, checkpoint, addresses), path, replace=fresh)
        text, written = _report(run, path)
        if as_json:
            print_json(encode(run))
        else:
            print_result(text)
        for each in (path, *written):
            say(str(each))
        reasons = {name: entry.reason for name, entry in run.backends.items()}
        if all(reasons.values()):
            raise BackendError(
                "None of the backends ran.",
                why="; ".join(f"{name}: {why}" for name, why in reasons.items()),
                fix="glnet-doctor says what is installed and can run",
            )


@app.command("compare")
def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="A run.", show_default=False, readable=False)],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Another run.", show_default=False, readable=False)],
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Share of intervals that hold the true ratio.")
    ] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say which rows of a second run are faster or slower than the first's, with bootstrap confidence intervals."""
    with errors_reported(as_json):
        from glnet_bench.record.files import differences, read_run
        from glnet_bench.report.comparison import compare, document, table
        from glnet_bench.report.disturbances import warnings
        from glnet_bench.report.markdown import plain

        runs = read_run(first), read_run(second)
        changed = differences(*runs)
        for name, run in zip("AB", runs, strict=True):
            for text in warnings(run.watched, run.machine.cores):
                say(f"WARNING: {name}: {plain(text)}", style="yellow")
        rows = compare(*runs, confidence=confidence)
        if as_json:
            print_json(document(rows, changed, confidence))
            return
        for line in changed:
            say(plain(line))
        print_result(table(rows, confidence))


def _measured(bundle: Path, settings: Settings, scope: Scope, options: Options, path: Path, *, replace: bool) -> RunRecord:
    """Measure what the run's file lacks."""
    from glnet_bench.machine import hardware, nvml, provenance
    from glnet_bench.measure.run import Run, describe_bundle
    from glnet_bench.record.files import RunFile
    from glnet_bench.record.run import RunRecord
    from glnet_infer.bundle import Bundle

    opened = Bundle.open(bundle)
    with nvml.opened() as gpu:
        machine, code = hardware.describe(gpu), provenance.describe()
        begun = RunRecord(settings=settings, bundle=describe_bundle(opened), machine=machine, code=code)
        file = RunFile.open(path, begun, replace=replace)
        if file.resumed:
            say(f"going on with {path}")
        if machine.gpus and gpu is None:
            say(f"The GPU's clocks, temperature and power stay unknown: nvidia-ml-py reads them. {install_hint('bench')}")
        for line in _plan(file.run, scope):
            say(line)
        try:
            with _Progress(file.run) as listener:
                Run(opened, options, file, listener, nvml=gpu, budget=scope.budget)()
        except KeyboardInterrupt:
            say(f"finished parts are in {path}; the same command goes on")
            raise
    return file.run


def _plan(run: RunRecord, scope: Scope) -> list[str]:
    """What a run will do, for its user."""
    settings: Settings = run.settings
    frames = ", ".join(frame.name for frame in settings.frames)
    soak = f"; memory over {settings.soak} frames" if settings.soak else ""
    lines = [
        f"To measure: {', '.join(settings.backends)}.",
        f"Of each: start and memory; the network, {_counted(settings.batches, 'crop')} in a call; whole frames ({frames}) "
        f"with {_counted(settings.persons, 'person')}{soak}.",
    ]
    lines += [f"Left out: {name} ({why}). --full measures it, and more sizes." for name, why in scope.left_out.items()]
    if len(run.starts) < len(settings.backends):
        lines.append("First each backend starts once, in a process of its own; then follows how long the rest takes.")
    return lines


def _counted(counts: tuple[int, ...], noun: str) -> str:
    """``1 and 4 crops``."""
    *first, last = map(str, counts)
    joined = f"{', '.join(first)} and {last}" if first else last
    return f"{joined} {noun}" if counts == (1,) else f"{joined} {noun}s"


def _report(run: RunRecord, path: Path) -> tuple[str, list[Path]]:
    """Write the chart and the report; give the report, and the files that were written."""
    from glnet_bench.report.chart import NoChartError, draw
    from glnet_bench.report.page import markdown
    from glnet_infer.files import replace_file

    page, picture = path.with_suffix(".md"), path.with_suffix(".png")
    written = [page, picture]
    try:
        draw(run, picture)
    except NoChartError as error:
        say(f"{error.what} {error.fix}")
        written.remove(picture)
    text = markdown(run, picture=picture.name if picture in written else None)
    replace_file(page, (text + "\n").encode())
    return text, written


def _names(given: list[str] | None, scope: Scope) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Backends, in the order of the report, and the addresses of those that are on servers.

    Raises:
        GlnetError: There is no such backend, or one has two addresses.
    """
    from glnet_bench.runners.registry import backend_names, row_of, served_names

    asked = dict.fromkeys(name.strip() for text in given or () for name in text.split(","))
    rows = [row_of(name) for name in asked]
    twice = next((row for row in rows if rows.count(row) > 1), None)
    if twice:
        raise InputError(f"{twice} is named twice.", why="a run has one row for it", fix="measure them in two runs")
    left_out = {*scope.left_out, *served_names()}
    names = tuple(name for name in backend_names() if (name in rows if given else name not in left_out))
    return names, tuple(name for name in asked if "://" in name)


def _need(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed.", why=first_line(error), fix=install_hint("export")) from error


class _Progress:
    """A progress bar over the measurements of a run on a terminal, else a line for each."""

    def __init__(self, run: RunRecord) -> None:
        from glnet_bench.measure.forecast import measurements

        parts = measurements(run.settings)
        self._names = list(parts)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=talk, disable=not talk.is_terminal)
        done = sum(all(map(run.has, kept)) for kept in parts.values())
        self._task = self._bar.add_task("", total=len(self._names), completed=done)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, measurement: str) -> None:
        """See ``glnet_bench.measure.run.Listener``."""
        index = self._names.index(measurement)
        self._bar.update(self._task, description=measurement, completed=index)
        if not talk.is_terminal:
            say(f"{index + 1}/{len(self._names)} {measurement}")

    def says(self, text: str) -> None:
        """See ``glnet_bench.measure.run.Listener``."""
        say(text)


def main() -> None:
    """Entry point."""
    start(app)
