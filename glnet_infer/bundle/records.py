"""What a manifest records of each thing in a bundle. ``glnet_infer.fields`` reads and checks the records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from glnet_infer.contract import LARGEST_BATCH, LARGEST_FRAME, SMALLEST_FRAME
from glnet_infer.fields import Rule, between, matching

ELSEWHERE = "elsewhere"
"""Marks the record of a file that is not in the bundle."""


def is_file_name(name: str) -> bool:
    """Whether a text names a file of a directory, and no other place, on any system."""
    return (
        0 < len(name) <= 255
        and name not in (".", "..")
        and "\0" not in name
        and PurePosixPath(name).name == name == PureWindowsPath(name).name
    )


LARGEST_FILE = 8 << 30
"""Bytes. Far beyond any engine; a file of holes may claim to have thousands of times as many, and hashing takes as long."""

FileName = Annotated[str, Rule(is_file_name, "a file name")]
Sha256 = Annotated[str, matching("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")]
Count = Annotated[int, Rule(lambda number: number >= 0, "a whole number from 0 on")]
Word = Annotated[str, matching("[a-z0-9-]{1,32}", "a word of lower-case letters and digits")]
TensorName = Annotated[str, Rule(lambda name: 0 < len(name) <= 255, "a tensor's name")]
Precision = Literal["fp32", "mixed", "int8"]
Flavor = Literal["tensorrt", "tensorrt-rtx"]
State = Literal["built, not run", "run"]
Crops = Annotated[int, between(1, LARGEST_BATCH)]
FrameSide = Annotated[int, between(SMALLEST_FRAME, LARGEST_FRAME)]
ComputeCapability = Annotated[str, matching(r"\d{1,3}\.\d", "a compute capability such as 8.9")]


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle, and what it was when the bundle was made."""

    file: FileName
    sha256: Sha256
    bytes: Annotated[int, between(0, LARGEST_FILE)]


RUNTIME = "runtime"
"""Purpose of the graph that ONNX Runtime, or any other runtime of ONNX files, runs. Every bundle has one."""

INT8 = "runtime-int8"
"""Purpose of the graph whose convolutions compute in int8, for processors with instructions for that."""

BF16 = "runtime-bf16"
"""Purpose of the runtime's graph where its first part computes in bfloat16, for processors with instructions for that."""

ENGINES = "engines"
"""Purpose of the graph that TensorRT engines are built from."""

INT8_ENGINES = "engines-int8"
"""Purpose of the graph that TensorRT engines in int8 are built from: what TensorRT demands is slow on a CPU."""

CROPS = "crops"
"""Purpose of the graph that cuts crops out of a frame; engines that do so are built from it."""


@dataclass(frozen=True)
class GraphRecord:
    """An ONNX graph.

    Attributes:
        purpose: :data:`RUNTIME`, :data:`INT8`, :data:`BF16`, :data:`ENGINES`, :data:`INT8_ENGINES`, :data:`CROPS`, or a
            later version's.
        precision: ``fp32``, ``mixed`` or ``int8``, read back from the graph's tensors, or ``bf16``: what its first part is
            run in; later versions may have others.
        opset: Version of the standard operators.
        nodes: How many nodes it has; 0 where a bundle of an earlier version does not say.
        parity: What the graph was compared with, and how far it is from it. Empty where it was not compared.
        kept_in_float32: Modules that stay in float32 although the graph is in mixed precision or int8.
        half_layers: Convolutions and linear layers that compute in half precision.
        int8_layers: Convolutions that compute in int8.
        reductions: Where it cuts crops, ``glnet_infer.contract.CROP_REDUCTIONS`` of the version that made it. Empty in
            bundles of earlier versions, whose graphs average nothing before they sample, and for other graphs.
        cut: Names of the tensors between its two parts. The first part makes them in another precision; the second one
            takes them, and computes in float32. Empty where the graph is run as a whole.
    """

    file: FileRecord
    purpose: Word
    precision: Word
    opset: Count
    nodes: Count
    parity: dict[str, Any] = field(default_factory=dict)
    kept_in_float32: tuple[str, ...] = ()
    half_layers: Count = 0
    int8_layers: Count = 0
    reductions: tuple[Count, ...] = ()
    cut: tuple[TensorName, ...] = ()

    def problems(self) -> list[str]:
        """What is wrong with the values taken together, in words."""
        if len(set(self.cut)) < len(self.cut):
            return ["cut names a tensor twice"]
        return ["cut names no tensor"] if self.purpose == BF16 and not self.cut else []


@dataclass(frozen=True)
class BodyRecord:
    """The body model inside the graph.

    Attributes:
        name: ``demo``, ``smpl``, or what its file is called.
        vertices: How many.
        source: File that it was read from, which is not part of the bundle.
        topology: An ``.npz`` with the triangles.
        skin: An ``.npz`` that poses the body without the network, for files of motion; None where it was left out, and in
            bundles of earlier versions.
    """

    name: str
    vertices: Annotated[int, between(1, 1_000_000)]
    source: FileRecord = field(metadata={ELSEWHERE: True})
    topology: FileRecord
    skin: FileRecord | None = None


@dataclass(frozen=True)
class NetworkRecord:
    """The network inside the graph.

    Attributes:
        name: Preset or name given in the configuration.
        weights: ``checkpoint``, or ``random``: then results mean nothing and only speed can be measured.
        source: File name of the checkpoint, or the seed.
        sha256: Hash of the checkpoint; empty for random weights.
        config: The network's whole configuration.
        origin: Where a network that is not GLNet comes from, an address.
        terms: Under which terms its weights are, a sentence.
        weights_key: Which weights of the checkpoint were asked for; empty where it was left to the export.
    """

    name: str
    weights: str
    source: str
    sha256: str
    config: dict[str, Any]
    origin: str = ""
    terms: str = ""
    weights_key: str = ""


ENGINE_FLAVORS: tuple[Flavor, ...] = get_args(Flavor)
"""Products of NVIDIA that build engines (``glnet_infer.backends.tensorrt.products``), the faster one first."""

NOT_RUN, RUN = get_args(State)


@dataclass(frozen=True)
class CropEngineRecord:
    """The engine that cuts the crops on the GPU; it was built together with the main one, for the same numbers of crops.

    Attributes:
        largest_frame: Width and height of the largest frame that it takes; the smallest has
            ``glnet_infer.contract.SMALLEST_FRAME``.
        graph: File name of the graph that it was built from; empty in bundles of earlier versions, which do not hold it.
    """

    file: FileRecord
    largest_frame: tuple[FrameSide, FrameSide]
    graph: str = ""


@dataclass(frozen=True)
class EngineRecord:
    """A TensorRT engine, and what it was built for.

    Attributes:
        flavor: One of :data:`ENGINE_FLAVORS`.
        version: TensorRT's version; another version does not load the engine.
        compute_capabilities: GPUs that it runs on, such as ``8.9``.
        built_on: Name of the GPU that built it; empty when it was built ahead of time, without one.
        cuda: Newest version of CUDA that the builder's driver ran; empty without a GPU, and in bundles of earlier versions.
        precision: ``mixed``, ``int8`` or ``fp32``, read back.
        profile: Fewest, usual and most crops of one call.
        tensors: Type of every input and output by its name, read back.
        layers: What was read back of the layers: counts of the heavy ones by type, and where that comes from.
        state: :data:`RUN` where it was run and compared, else :data:`NOT_RUN`.
        parity: The comparison with float32; empty where the engine was not run.
        seconds: How long the build took.
        crop: The engine that cuts crops for it; None where there is none.
        lean: Whether it was built for TensorRT's lean runtime, which alone runs it.
        graph: File name of the bundle's graph that it was built from; empty where an earlier version does not say.
    """

    file: FileRecord
    flavor: Flavor
    version: Annotated[str, Rule(bool, "a version")]
    compute_capabilities: Annotated[tuple[ComputeCapability, ...], Rule(bool, "at least one")]
    built_on: str
    precision: Precision
    profile: tuple[Crops, Crops, Crops]
    tensors: dict[str, str]
    layers: dict[str, Any]
    state: State
    parity: dict[str, Any]
    seconds: float
    crop: CropEngineRecord | None = None
    lean: bool = False
    cuda: str = ""
    graph: str = ""

    @property
    def runtime(self) -> str:
        """What runs it: ``tensorrt``, ``tensorrt-lean`` or ``tensorrt-rtx``."""
        return "tensorrt-lean" if self.lean else self.flavor

    def problems(self) -> list[str]:
        """What is wrong with the values taken together, in words."""
        problems = []
        if self.lean and self.flavor != "tensorrt":
            problems.append(f"lean is true, and the flavor is {self.flavor}")
        if sorted(self.profile) != list(self.profile):
            problems.append(f"profile is {self.profile!r}, not three growing numbers of crops")
        return problems


def files_of(record: Any) -> Iterator[FileRecord]:
    """All files of the bundle that a record names, at whatever depth."""
    if isinstance(record, FileRecord):
        yield record
    elif isinstance(record, tuple):
        for each in record:
            yield from files_of(each)
    elif dataclasses.is_dataclass(record):
        for item in dataclasses.fields(record):
            if ELSEWHERE not in item.metadata:
                yield from files_of(getattr(record, item.name))
