"""A run as Markdown: the figures that most people want first, everything else below."""

from __future__ import annotations

from glnet_bench.estimates import FEWEST_TURNS, count_turns
from glnet_bench.record.names import EAGER, NETWORK, Kind
from glnet_bench.record.run import RunRecord
from glnet_bench.record.surroundings import Code, Note
from glnet_bench.report import tables
from glnet_bench.report.disturbances import warnings
from glnet_bench.report.markdown import plain, table
from glnet_bench.report.scaling import Gains, gains

TIMED_REGION = (
    "Network: from inputs in the memory of the device that runs it to outputs there. End-to-end: one call of "
    "MeshRecoverer, from a decoded frame and its boxes in host memory to Meshes in host memory (crop, upload, network, "
    "download, camera and packing), without decoding the frame and without drawing the overlay."
)

UNKNOWN_GPU = "the GPU's clocks, temperature and power are unknown: nvidia-ml-py is not installed, or does not find the GPU"


def markdown(run: RunRecord, *, picture: str | None = None) -> str:
    """The report of a run.

    Args:
        run: What was measured.
        picture: File name of the chart, for a link to it.
    """
    gained = gains(run)
    sections = [
        f"# glnet-bench: {plain(run.bundle.network)}",
        _summary(run, gained),
        _surroundings(run),
        f"![Chart]({picture})" if picture else "",
        tables.backends(run),
        tables.batches(run, gained),
        tables.floor(run),
        tables.frames(run),
        tables.growth(run),
        tables.stages(run),
        tables.starts(run),
        tables.soaks(run),
    ]
    return "\n\n".join(section for section in sections if section)


def _summary(run: RunRecord, gained: Gains) -> str:
    """The one table of four columns."""
    body = []
    for part, backend, row in run.rows_of(Kind.BATCH):
        if NETWORK not in row.times:
            continue
        gain = gained.get((part, backend))
        cell = "1" if backend == EAGER else ""
        if gain:
            turns = min(count_turns(run.rows[part][name].turns(NETWORK)) for name in (backend, EAGER))
            cell = f"{gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f}){'' if turns >= FEWEST_TURNS else ' (few turns)'}"
        body.append([backend, str(part.count), f"{row.times[NETWORK].summary.p50:.1f}", cell])
    if not body:
        return "Nothing was timed: the table of backends says why."
    said = (
        "ms p50: median time of the network for one call with so many crops. x eager: how many times as fast as eager "
        f"PyTorch ({EAGER}), with the 95 % bootstrap interval."
    )
    if any("few turns" in line[-1] for line in body):
        said += f" Few turns: an interval that rests on fewer than {FEWEST_TURNS} is too narrow."
    lines = [*table(["backend", "crops", "ms p50", "x eager"], body, right=(1, 2)), "", said]
    if run.left_out:
        omitted = ", ".join(map(str, run.left_out))
        lines += ["", f"Left out, since a default run has no time for it: {omitted}. --full measures it."]
    return "\n".join(lines)


def _surroundings(run: RunRecord) -> str:
    bundle, machine = run.bundle, run.machine
    weights = "random weights: only speed is measured" if bundle.weights == "random" else "trained weights"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines = [
        f"bundle: {bundle.network}, {weights}, body {bundle.body} with {bundle.vertices} vertices, "
        f"manifest {bundle.manifest_sha256[:12]}, graph {bundle.graph_sha256[:12]}",
        f"machine: {machine.cpu}, {machine.cores} cores"
        + (f", governor {machine.cpu_governor}" if machine.cpu_governor else "")
        + f"; GPU: {'; '.join(machine.gpus) or 'none'}"
        + (f", driver {machine.driver}" if machine.driver else ""),
        f"versions: Python {machine.python}, {versions}",
        *([f"code: {_code(run.code)}"] if run.code else []),
        f"clocks: {_clocks(run)}",
        f"{run.started} to {run.finished or 'not finished'}; up to {run.settings.samples} samples a row, "
        f"{run.settings.threads or 'default'} threads",
        *(f"WARNING: {text}" for text in warnings(run.watched, machine.cores)),
    ]
    return "\n".join(["## What was measured", "", TIMED_REGION, "", *(f"- {plain(line)}" for line in lines)])


def _code(code: Code) -> str:
    changed = " with changes" if code.dirty else ""
    commit = f"commit {code.commit[:12]}{changed}, " if code.commit else ""
    return f"{commit}sources {code.sources_sha256[:12]}"


def _clocks(run: RunRecord) -> str:
    found = []
    frequencies = [note.cpu_mhz for note in run.watched if note.cpu_mhz]
    if frequencies:
        found.append(f"CPU {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
    found += _gpu(run.watched)
    if run.machine.gpus and not any(note.gpu for note in run.watched):
        found.append(UNKNOWN_GPU)
    return ", ".join(found) or "not readable here"


def _gpu(watched: list[Note]) -> list[str]:
    found = []
    for key, unit in (("sm_mhz", "MHz"), ("celsius", "°C"), ("watts", "W")):
        values = [value for note in watched if (value := getattr(note.gpu, key, None)) is not None]
        if values:
            found.append(f"GPU {min(values):.0f} to {max(values):.0f} {unit}")
    return found
