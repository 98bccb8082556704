"""A run as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from glnet_bench.estimates import FEWEST_TURNS, Interval
from glnet_bench.measure.cases import HOST, STAGES
from glnet_bench.measure.processes import ALLOWED_GROWTH
from glnet_bench.measure.run import TIMED_REGION
from glnet_bench.report.disturbances import STEADY, warnings
from glnet_bench.report.scaling import faster_than_eager, scalings
from glnet_bench.runners.base import EAGER
from glnet_infer.errors import OutputError

_ORDER = ("min", "p50", "p90", "p99", "max")


def markdown(document: dict[str, Any], *, picture: str | None = None) -> str:
    """The report of a run.

    Args:
        document: Of a ``glnet_bench.record.Record``.
        picture: File name of the plot, for a link to it.
    """
    sections = [
        _head(document),
        _backends(document),
        _batches(document),
        _floor(document),
        _frames(document),
        _scaling(document),
        _stages(document),
        _start(document),
        _soak(document),
    ]
    if picture:
        sections.insert(2, f"![Plot]({picture})")
    return "\n\n".join(section for section in sections if section)


def save(path: Path, text: str) -> None:
    """Write the report.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise OutputError(f"{path} was not written.", why=str(error.strerror), fix="choose another -o") from error


def rows(document: dict[str, Any], kind: str) -> Iterator[tuple[list[str], str, dict[str, Any]]]:
    """Rows of a kind of part: what follows the kind in the part's name, the backend, its row."""
    for part, content in document["parts"].items():
        if part.startswith(f"{kind}/"):
            for backend in document["settings"]["backends"]:
                if backend in content:
                    yield part.split("/")[1:], backend, content[backend]


def floor_of(document: dict[str, Any], backend: str, crops: str) -> dict[str, float] | None:
    """The floor of a backend's call, milliseconds: ``bound`` and ``by_layer``; None where it was not measured."""
    entry = document["backends"].get(backend, {})
    times: dict[str, dict[str, float]] = document["parts"].get("floor", {}).get("times", {})
    return times.get(f"{entry.get('device')}/{entry.get('precision')}/{crops}")


def _head(document: dict[str, Any]) -> str:
    bundle, computer, settings = document["bundle"], document["machine"], document["settings"]
    weights = "random weights: only speed is measured" if bundle["weights"] == "random" else "trained weights"
    versions = ", ".join(f"{name} {version}" for name, version in computer["versions"].items())
    lines = [
        f"# glnet-bench: {bundle['network']}",
        "",
        TIMED_REGION,
        "",
        f"- bundle: {bundle['network']}, {weights}, body {bundle['body']} with {bundle['vertices']} vertices, "
        f"manifest {bundle['manifest_sha256'][:12]}, graph {bundle['graph_sha256'][:12]}",
        f"- machine: {computer['cpu']}, {computer['cores']} cores"
        + (f", governor {computer['cpu_governor']}" if computer["cpu_governor"] else "")
        + f"; GPU: {'; '.join(computer['gpus']) or 'none'}"
        + (f", driver {computer['driver']}" if computer["driver"] else ""),
        f"- versions: Python {computer['python']}, {versions}",
        f"- code: {_code(document['code'])}",
        f"- clocks: {_clocks(document['watched'])}",
        f"- {document['started']} to {document['finished'] or 'not finished'}; up to {settings['samples']} samples a row, "
        f"{settings['threads'] or 'default'} threads",
    ]
    lines += [f"- WARNING: {text}" for text in warnings(document["watched"], computer["cores"])]
    return "\n".join(lines)


def _code(code: dict[str, Any]) -> str:
    changed = " with changes" if code["dirty"] else ""
    commit = f"commit {code['commit'][:12]}{changed}, " if code["commit"] else ""
    return f"{commit}sources {code['sources_sha256'][:12]}"


def _clocks(watched: list[dict[str, Any]]) -> str:
    found = []
    frequencies = [note["cpu_mhz"] for note in watched if note["cpu_mhz"]]
    if frequencies:
        found.append(f"CPU {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
    gpus = [note["gpu"] for note in watched if note["gpu"]]
    for key, name, unit in (("sm_mhz", "GPU", "MHz"), ("celsius", "GPU", "°C"), ("watts", "GPU", "W")):
        values = [note[key] for note in gpus if note[key] is not None]
        if values:
            found.append(f"{name} {min(values):.0f} to {max(values):.0f} {unit}")
    return ", ".join(found) or "not readable here"


def _backends(document: dict[str, Any]) -> str:
    body = [
        [name, entry.get("says", f"cannot run: {entry.get('reason')}"), *(entry.get(key, "") for key in _ENTRY)]
        for name, entry in document["backends"].items()
    ]
    return _section("Backends", ["backend", "what runs", "device", "precision", "engine's clock", "crops at once"], body)


_ENTRY = ("device", "precision", "clock", "at_once")


def _batches(document: dict[str, Any]) -> str:
    header = ["backend", "crops", *(f"engine {name}" for name in _ORDER), "crops/s", "x floor", "x by layer", "x eager"]
    header += [*(f"end-to-end {name}" for name in _ORDER), "persons/s", "note"]
    body = []
    for (crops,), backend, row in rows(document, "batch"):
        engine, whole = (row.get("parts", {}).get(part) for part in ("engine", "end_to_end"))
        floor = floor_of(document, backend, crops)
        ratios = ["", ""]
        if engine and floor:
            ratios = [f"{engine['summary']['p50'] / floor[key]:.1f}" for key in ("bound", "by_layer")]
        rate = [f"{part['per_second']:.1f}" if part else "" for part in (engine, whole)]
        eager = _interval(faster_than_eager(document, backend, crops))
        body.append([backend, crops, *_times(engine), rate[0], *ratios, eager, *_times(whole), rate[1], _note(row)])
    for backend, entry in document["backends"].items():
        if "reason" in entry and not entry.get("retry"):  # those have rows
            body.append([backend, "all", *[""] * (len(header) - 3), _note(entry)])
    frame = document["settings"]["frames"][0]["name"]
    said = (
        f"Milliseconds of a call; end-to-end on a {frame} frame with as many persons as crops. x eager: how many times as "
        f"fast as the engine of {EAGER}, with the 95 % bootstrap interval."
    )
    return _section("Engine and end-to-end, by batch", header, body, said)


def _floor(document: dict[str, Any]) -> str:
    found = document["parts"].get("floor")
    if not found:
        return ""
    lines = ["## Floor", ""]
    for device, ceiling in found["ceilings"].items():
        if "reason" in ceiling:
            lines.append(f"- {device}: not measured: {ceiling['reason']}")
            continue
        rates = (("operations", "float32"), ("half_operations", "float16"))
        said = [f"{ceiling[key] / 1e9:.0f} GFLOP/s in {precision}" for key, precision in rates if ceiling[key]]
        said.append(f"{ceiling['bandwidth'] / 1e9:.1f} GB/s")
        lines.append(f"- {device}: {', '.join(said)} ({ceiling['how']})")
    for precision, cost in found["costs"].items():
        if "reason" in cost:
            lines.append(f"- {precision}: not counted: {cost['reason']}")
            continue
        unknown = f"; not counted: {', '.join(cost['not_counted'])}" if cost["not_counted"] else ""
        lines.append(
            f"- {precision} graph, one crop: {(cost['operations'] + cost['half_operations']) / 1e9:.2f} GFLOP "
            f"({cost['half_operations'] / 1e9:.2f} in float16), {cost['weights'] / 1e6:.1f} MB of weights, "
            f"{cost['interface'] / 1e6:.2f} MB in and out, {cost['moved'] / 1e6:.0f} MB layer by layer{unknown}"
        )
    header = ["device", "precision", "crops", "bound ms", "by layer ms"]
    body = [[*key.split("/"), f"{value['bound']:.3f}", f"{value['by_layer']:.3f}"] for key, value in found["times"].items()]
    return "\n".join([*lines, "", *_table(header, body)]) if body else "\n".join(lines)


def _frames(document: dict[str, Any]) -> str:
    header = ["backend", "frame", "persons", *_ORDER, "ms per person", "persons/s", "note"]
    body = []
    for (frame, persons), backend, row in rows(document, "frame"):
        whole = row.get("parts", {}).get("end_to_end")
        each = [f"{whole['summary']['p50'] / int(persons):.3f}", f"{whole['per_second']:.1f}"] if whole else ["", ""]
        body.append([backend, frame, persons, *_times(whole), *each, _note(row)])
    return _section("End-to-end, by frame and persons", header, body, "Milliseconds of a frame.")


def _scaling(document: dict[str, Any]) -> str:
    persons = document["settings"]["persons"]
    header = ["backend", "frame", f"per person, {max(persons)} / {min(persons)} persons", "end-to-end / engine, 1 crop"]
    header += ["this frame / the smallest", "note"]
    body = []
    for found in scalings(document):
        ratios = [_interval(ratio) for ratio in (found.per_person, found.by_engine, found.by_frame)]
        note = f"few turns: {found.turns}" if found.turns < FEWEST_TURNS else ""
        body.append([found.backend, found.frame, *ratios, note])
    said = (
        "Ratios of medians with their 95 % bootstrap intervals. All rows took turns with each other; end-to-end and engine "
        "are of the same calls, frames are compared with the fewest persons."
    )
    return _section("Growth", header, body, said)


def _stages(document: dict[str, Any]) -> str:
    body = []
    for (frame, persons), backend, row in rows(document, "frame"):
        if not row.get("parts"):
            continue
        host = document["parts"][f"frame/{frame}/{persons}"].get(HOST, {})
        parts = {**host.get("parts", {}), **row["parts"]}
        body.append(
            [
                backend,
                frame,
                persons,
                *(f"{parts[name]['summary']['p50']:.3f}" if name in parts else "-" for name in STAGES),
            ]
        )
    said = (
        "Median milliseconds; packing is the camera and the packing of Meshes. Decoding (a JPEG) and overlay are outside "
        "end-to-end and the same for all backends."
    )
    if any(line[0].startswith("tensorrt") for line in body):
        said += (
            " TensorRT's stages are timed with crops that are cut on the CPU; end to end, a bundle with a crop engine has "
            "them cut on the GPU, and its stages do not add up."
        )
    return _section("Stages", ["backend", "frame", "persons", *STAGES], body, said)


def _start(document: dict[str, Any]) -> str:
    header = ["backend", "import s", "load s", "first call s", "start to first result s", "later call s"]
    header += ["peak host MiB", "device MiB", "note"]
    body = []
    for (backend,), row in _by_backend(document, "start"):
        seconds = row.get("seconds", {})
        times = [f"{seconds[key]:.3f}" if seconds else "" for key in ("import", "load", "first", "total", "further")]
        body.append([backend, *times, _mebibytes(row.get("host_peak")), _mebibytes(row.get("device")), _note(row)])
    return _section("Start and memory, in a process of its own", header, body)


def _soak(document: dict[str, Any]) -> str:
    header = ["backend", "persons", *(f"{where} {what}" for where in ("host", "device") for what in _MEMORY), "note"]
    body = []
    for (backend,), row in _by_backend(document, "soak"):
        grown, flat = row.get("growth", {}), row.get("flat", {})
        cells = []
        for where in ("host", "device"):
            memory = grown.get(where) or {}
            share = f"{memory['share']:.2%}" if memory else ""
            cells += [_mebibytes(memory.get("bytes")), share, {None: "not read", True: "yes", False: "NO"}[flat.get(where)]]
        body.append([backend, str(row.get("persons", "")), *cells, _note(row)])
    said = f"Growth from a tenth of the frames to the last; flat is no more than {ALLOWED_GROWTH:.0%}."
    return _section(f"Memory over {document['settings']['soak']} frames", header, body, said)


_MEMORY = ("growth MiB", "growth", "flat")


def _by_backend(document: dict[str, Any], kind: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
    for part, row in document["parts"].items():
        if part.startswith(f"{kind}/"):
            yield part.split("/")[1:], row


def _times(part: dict[str, Any] | None) -> list[str]:
    return [f"{part['summary'][name]:.3f}" if part else "" for name in _ORDER]


def _note(row: dict[str, Any]) -> str:
    """What a reader of the row must know."""
    notes = (
        [f"{'failed after these samples' if row.get('parts') else 'cannot run'}: {row['reason']}"]
        if "reason" in row
        else []
    )
    stable = row.get("warm_up", {}).get("stable", True)
    if stable is None:
        notes.append("too few calls in the warm-up to tell whether times are stable")
    elif not stable:
        notes.append("not stable after warm-up")
    samples = next((part["summary"]["samples"] for part in row.get("parts", {}).values()), None)
    if samples is not None and samples < 100:
        notes.append(f"{samples} samples")
    clocks = [clock for clock in row.get("clocks_mhz", []) if clock]
    if clocks and min(clocks) < STEADY * max(clocks):
        notes.append(f"GPU clock {min(clocks)} to {max(clocks)} MHz")
    return "; ".join(notes)


def _interval(ratio: Interval | None) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if ratio else ""


def _mebibytes(value: int | None) -> str:
    return "" if value is None else f"{value / (1 << 20):.1f}"


def _section(title: str, header: list[str], body: list[list[str]], said: str = "") -> str:
    if not body:
        return ""
    return "\n".join([f"## {title}", "", *([said, ""] if said else []), *_table(header, body)])


def _table(header: list[str], body: Iterable[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *body]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines]
