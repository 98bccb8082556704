"""What was measured, on which machine, by which code, and how the machine fared meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

from glnet_bench.record.names import check_names


@dataclass(frozen=True)
class EngineFile:
    """An engine of the bundle, from its manifest."""

    sha256: str
    flavor: str
    version: str
    precision: str
    compute_capabilities: tuple[str, ...]
    profile: tuple[int, ...]


@dataclass(frozen=True)
class MeasuredBundle:
    """Which bundle was measured, from its manifest.

    Attributes:
        manifest_sha256: SHA-256 of the manifest, which holds those of all other files.
        graph_sha256: SHA-256 of the graph.
        network: Name of the network.
        weights: ``checkpoint``, or ``random``.
        weights_sha256: SHA-256 of the checkpoint; empty for random weights.
        body: Name of the body.
        vertices: Vertices of a mesh.
        crop_size: Side of a crop, pixels.
        precision: Precision of the graph.
        engines: Engines by file name.
    """

    manifest_sha256: str
    graph_sha256: str
    network: str
    weights: str
    weights_sha256: str
    body: str
    vertices: int
    crop_size: int
    precision: str
    engines: dict[str, EngineFile]


@dataclass(frozen=True)
class Machine:
    """Hardware and versions; None for what the machine does not tell."""

    platform: str
    python: str
    cpu: str
    cores: int
    cpu_governor: str | None
    memory_bytes: int | None
    gpus: tuple[str, ...]
    driver: str | None
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise ValueError("cores must be at least 1")


@dataclass(frozen=True)
class Code:
    """The code that measured.

    Attributes:
        commit: Commit that it was checked out from; None where it was not.
        dirty: Whether files differ from the commit.
        sources_sha256: SHA-256 over all source files.
    """

    commit: str | None
    dirty: bool | None
    sources_sha256: str


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds of all processors since the machine started.

    Attributes:
        all: All of them.
        busy: Those in which this process or any other ran.
        own: Those of this process and its ended children.
        stolen: Those in which a virtual machine wanted to run and its hypervisor ran others.
    """

    all: float
    busy: float
    own: float
    stolen: float


@dataclass(frozen=True)
class GpuState:
    """A GPU at a moment; None for what it does not tell.

    Attributes:
        sm_mhz: Clock of the multiprocessors, MHz.
        sm_max_mhz: Highest clock that they could have, MHz.
        memory_mhz: Clock of the memory, MHz.
        celsius: Temperature, degrees.
        watts: Power.
        load_percent: Share of the last moments in which a kernel ran, percent.
        throttled: What slows the GPU down at this moment.
        held_back_seconds: For how long each of several causes slowed it down, since the driver was loaded: a GPU that rests
            now may have been too hot a second ago.
    """

    sm_mhz: int | None = None
    sm_max_mhz: int | None = None
    memory_mhz: int | None = None
    celsius: int | None = None
    watts: float | None = None
    load_percent: int | None = None
    throttled: tuple[str, ...] | None = None
    held_back_seconds: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """The machine at a moment of the run; None for what cannot be read.

    Attributes:
        load_average: Processes that ran or waited for a processor, over the last minute; None on Windows.
        cpu_mhz: Clock of the first core, MHz.
        cpu_throttle_count: How often the first core was slowed down since the machine started.
        gpu: State of the first GPU.
        cpu_seconds: Use of the processors.
        began: Whether a sitting of the run begins here; what came before it is no matter of the run.
        after: Name of the measurement that ended here; None at the beginning of a sitting.
    """

    load_average: float | None
    cpu_mhz: float | None
    cpu_throttle_count: int | None
    gpu: GpuState | None
    cpu_seconds: ProcessorTime | None = None
    began: bool = False
    after: str | None = None

    def __post_init__(self) -> None:
        if self.after is not None:
            check_names(self.after.split("/"), "measurement")
