"""The tables of a report, below its first one."""

from __future__ import annotations

from glnet_bench.estimates import FEWEST_TURNS
from glnet_bench.record.names import EAGER, END_TO_END, HOST, NETWORK, STAGES, Kind
from glnet_bench.record.results import ALLOWED_GROWTH, Outcome, Row, Times
from glnet_bench.record.run import RunRecord
from glnet_bench.report.disturbances import STEADY
from glnet_bench.report.markdown import interval, mebibytes, plain, section, table
from glnet_bench.report.scaling import Gains, scalings

_ORDER = ("min", "p50", "p90", "p99", "max")


def backends(run: RunRecord) -> str:
    """What runs, or why it does not."""
    header = ["backend", "what runs", "device", "precision", "network's clock", "crops at once"]
    body = [
        [
            name,
            f"cannot run: {entry.reason}" if entry.reason else entry.description,
            *(entry.device, entry.precision, entry.clock),
            str(entry.at_once or ""),
        ]
        for name, entry in run.backends.items()
    ]
    return section("Backends", header, body)


def batches(run: RunRecord, gained: Gains) -> str:
    """Times of the network and of whole calls, by the crops in a call."""
    header = ["backend", "crops", *(f"network {name}" for name in _ORDER), "crops/s", "x floor", "x by layer", "x eager"]
    header += [*(f"end-to-end {name}" for name in _ORDER), "persons/s", "note"]
    body = []
    for part, backend, row in run.rows_of(Kind.BATCH):
        network, whole = row.times.get(NETWORK), row.times.get(END_TO_END)
        floor_times = run.floor_of(backend, part.count)
        ratios = ["", ""]
        if network and floor_times:
            ratios = [f"{network.summary.p50 / floor:.1f}" for floor in (floor_times.bound, floor_times.by_layer)]
        eager = interval(gained.get((part, backend)))
        cells = [backend, str(part.count), *_times(network), _rate(network), *ratios, eager]
        body.append([*cells, *_times(whole), _rate(whole), _note(row)])
    for backend, entry in run.backends.items():
        if entry.reason and not entry.retry:  # those have rows
            body.append([backend, "all", *[""] * (len(header) - 3), _note(entry)])
    introduction = (
        f"Milliseconds of a call; end-to-end on a {run.settings.frames[0].name} frame with as many persons as crops. x "
        "floor and x by layer: how many times as long as the floor. x eager: how many times as fast as the network in "
        f"{EAGER}, with the 95 % bootstrap interval."
    )
    return section("Network and end-to-end, by batch", header, body, introduction)


def floor(run: RunRecord) -> str:
    """The machine's ceilings, the graphs' costs, and what follows from both."""
    found = run.floor
    if found is None:
        return ""
    lines = []
    for device, ceiling in found.ceilings.items():
        rates = ((ceiling.operations, "float32"), (ceiling.half_operations, "float16"))
        said = [f"{rate / 1e9:.0f} GFLOP/s in {precision}" for rate, precision in rates if rate]
        said.append(f"{ceiling.bandwidth / 1e9:.1f} GB/s")
        lines.append(f"{device}: {', '.join(said)} ({ceiling.how})")
    lines += [f"{device}: not measured: {reason}" for device, reason in found.no_ceilings.items()]
    for precision, cost in found.costs.items():
        unknown = f"; not counted: {', '.join(cost.not_counted)}" if cost.not_counted else ""
        lines.append(
            f"{precision} graph, one crop: {(cost.operations + cost.half_operations) / 1e9:.2f} GFLOP "
            f"({cost.half_operations / 1e9:.2f} in float16), {cost.weights / 1e6:.1f} MB of weights, "
            f"{cost.interface / 1e6:.2f} MB in and out, {cost.moved / 1e6:.0f} MB layer by layer{unknown}"
        )
    lines += [f"{precision}: not counted: {reason}" for precision, reason in found.no_costs.items()]
    text = ["## Floor", "", *(f"- {plain(line)}" for line in lines)]
    body = [
        [case.device, case.precision, str(case.crops), f"{times.bound:.3f}", f"{times.by_layer:.3f}"]
        for case, times in found.times.items()
    ]
    if body:
        text += ["", *table(["device", "precision", "crops", "bound ms", "by layer ms"], body)]
    return "\n".join(text)


def frames(run: RunRecord) -> str:
    """Times of whole frames."""
    header = ["backend", "frame", "persons", *_ORDER, "ms per person", "persons/s", "note"]
    body = []
    for part, backend, row in run.rows_of(Kind.FRAME):
        whole = row.times.get(END_TO_END)
        each = f"{whole.summary.p50 / part.count:.3f}" if whole else ""
        body.append([backend, part.frame, str(part.count), *_times(whole), each, _rate(whole), _note(row)])
    return section("End-to-end, by frame and persons", header, body, "Milliseconds of a frame.")


def growth(run: RunRecord) -> str:
    """How times grow with persons and with the frame."""
    persons = run.settings.persons
    header = ["backend", "frame", f"per person, {max(persons)} / {min(persons)} persons", "end-to-end / network, 1 crop"]
    header += ["this frame / the smallest", "note"]
    body = []
    for found in scalings(run):
        ratios = [interval(ratio) for ratio in (found.per_person, found.by_network, found.by_frame)]
        note = f"few turns: {found.turns}" if found.turns < FEWEST_TURNS else ""
        body.append([found.backend, found.frame, *ratios, note])
    introduction = (
        "Ratios of medians with their 95 % bootstrap intervals. All rows took turns with each other; end-to-end and "
        "network are of the same calls, frames are compared with the fewest persons."
    )
    return section("Growth", header, body, introduction)


def stages(run: RunRecord) -> str:
    """What a frame goes through, stage by stage."""
    body = []
    for part, backend, row in run.rows_of(Kind.FRAME):
        if not row.times:
            continue
        host = run.rows[part].get(HOST, Row())
        times = {**host.times, **row.times}
        cells = [f"{times[name].summary.p50:.3f}" if name in times else "-" for name in STAGES]
        body.append([backend, part.frame, str(part.count), *cells])
    introduction = (
        "Median milliseconds; packing is the camera and the packing of Meshes. Decoding (a JPEG) and overlay are outside "
        "end-to-end and the same for all backends."
    )
    if any(line[0].startswith("tensorrt") for line in body):
        introduction += (
            " TensorRT's stages are timed with crops that are cut on the CPU; end to end, a bundle with a crop engine has "
            "them cut on the GPU, and its stages do not add up."
        )
    return section("Stages", ["backend", "frame", "persons", *STAGES], body, introduction)


def starts(run: RunRecord) -> str:
    """What starting a backend costs."""
    header = ["backend", "import s", "load s", "first call s", "start to first result s", "later call s"]
    header += ["peak host MiB", "device MiB", "note"]
    body = []
    for backend, start in run.starts.items():
        seconds = start.seconds
        times = [""] * 5
        if seconds:
            in_order = (seconds.importing, seconds.loading, seconds.first_call, seconds.total, seconds.later_call)
            times = [f"{value:.3f}" for value in in_order]
        body.append([backend, *times, mebibytes(start.host_peak), mebibytes(start.device), _note(start)])
    return section("Start and memory, in a process of its own", header, body)


def soaks(run: RunRecord) -> str:
    """Memory over many frames."""
    memory = ("growth MiB", "growth", "flat")
    header = ["backend", "persons", *(f"{where} {what}" for where in ("host", "device") for what in memory), "note"]
    body = []
    for backend, soak in run.soaks.items():
        cells = []
        for where in ("host", "device"):
            grown = soak.growth(where)
            if grown:
                cells += [mebibytes(grown.bytes), f"{grown.share:.2%}", "yes" if grown.is_flat else "NO"]
            else:
                cells += ["", "", "not read"]
        body.append([backend, str(soak.persons or ""), *cells, _note(soak)])
    introduction = f"Growth from a tenth of the frames to the last; flat is no more than {ALLOWED_GROWTH:.0%}."
    return section(f"Memory over {run.settings.soak} frames", header, body, introduction)


def _times(times: Times | None) -> list[str]:
    return [f"{getattr(times.summary, name):.3f}" if times else "" for name in _ORDER]


def _rate(times: Times | None) -> str:
    return f"{times.per_second:.1f}" if times and times.per_second else ""


def _note(result: Outcome) -> str:
    """What a reader of the row must know."""
    row = result if isinstance(result, Row) else Row()
    notes = []
    if result.reason:
        notes.append(f"{'failed after these samples' if row.times else 'cannot run'}: {result.reason}")
    if row.warm_up and row.warm_up.stable is None:
        notes.append("too few calls in the warm-up to tell whether times are stable")
    elif row.warm_up and not row.warm_up.stable:
        notes.append("not stable after warm-up")
    samples = next((times.summary.samples for times in row.times.values()), None)
    if samples is not None and samples < 100:
        notes.append(f"{samples} samples")
    clocks = [clock for clock in row.clocks_mhz if clock]
    if clocks and min(clocks) < STEADY * max(clocks):
        notes.append(f"GPU clock {min(clocks):.0f} to {max(clocks):.0f} MHz")
    return "; ".join(notes)
