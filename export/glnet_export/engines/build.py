"""From an ONNX graph to a TensorRT engine: one builder for classic TensorRT and TensorRT for RTX."""

import functools
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from glnet_export.engines.options import EngineOptions
from glnet_export.engines.progress import Progress, new_monitor, silent
from glnet_export.engines.readback import LEARNED, NetworkFacts, read_engine, read_network
from glnet_export.engines.toolkit import Toolkit
from glnet_infer.backends.tensorrt.products import LEAN, RTX, TENSORRT, Product, log_of
from glnet_infer.bundle import record_file
from glnet_infer.bundle.records import NOT_RUN, CropEngineRecord, EngineRecord, Flavor, Precision
from glnet_infer.contract import CROP_INPUTS, CROP_OUTPUTS, GRAPH_INPUTS, GRAPH_OUTPUTS, SMALLEST_FRAME, TensorSpec
from glnet_infer.devices import gpus, newest_cuda
from glnet_infer.errors import ExportError, OutputError, first_line, one_line, tested_versions
from glnet_infer.files import replace_file
from glnet_infer.onnx_files import OnnxContent

Said = Callable[[], str]
"""What TensorRT said since the build began."""

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, most usual and largest shape of an input."""

USUAL_FRAME = (1920, 1080)
"""Width and height that crop engines are fastest at, where their largest frame is larger."""

_Value = TypeVar("_Value")


def build(
    graph: Path,
    directory: Path,
    toolkit: Toolkit,
    options: EngineOptions,
    *,
    half_layers: int,
    int8_layers: int = 0,
    sha256: str = "",
    progress: Progress = silent,
) -> EngineRecord:
    """Build an engine and write it into a directory, under a name that says what it is.

    Ctrl-C stops the builder after its present step (seconds); nothing is written then.

    Args:
        graph: ONNX file with the inputs and outputs ``glnet_infer.contract.GRAPH_INPUTS`` and ``GRAPH_OUTPUTS``.
        directory: Folder for the engine.
        toolkit: Builds it, and says for which GPUs.
        options: Options of the engine.
        half_layers: Convolutions and matrix products that must come out in half precision; 0 for a float32 graph.
        int8_layers: Convolutions that must come out in int8.
        sha256: SHA-256 of the graph, as it was recorded; empty where it was not.
        progress: Told of the builder's phases, from another thread.

    Returns:
        The engine's entry in the manifest; types are read back from what TensorRT made of the graph.

    Raises:
        ExportError: TensorRT refuses the graph or fails, or types are not those that were meant.
        KeyboardInterrupt: The build was interrupted.
    """
    wanted = _Wanted((*GRAPH_INPUTS, *GRAPH_OUTPUTS), half_layers, sha256, int8_layers=int8_layers)
    plan = _compile_beside(graph, toolkit, options, wanted, progress)
    name = f"model.{_tag(toolkit, options)}.{plan.facts.precision}.engine"
    _write(directory / name, plan.data)
    layers = plan.facts.to_document()
    if plan.engine_types:
        layers["engine"] = plan.engine_types
    return EngineRecord(
        file=record_file(directory / name),
        flavor=cast(Flavor, toolkit.product.name),
        version=toolkit.version,
        compute_capabilities=toolkit.compute_capabilities,
        built_on=toolkit.gpu,
        cuda=newest_cuda() if toolkit.gpu else "",
        precision=cast(Precision, plan.facts.precision),
        profile=options.profile,
        tensors=plan.facts.tensors,
        layers=layers,
        state=NOT_RUN,
        parity={},
        seconds=round(plan.seconds, 1),
        lean=options.lean,
        graph=graph.name,
    )


def build_crop(
    graph: Path,
    directory: Path,
    toolkit: Toolkit,
    options: EngineOptions,
    *,
    sha256: str = "",
    progress: Progress = silent,
) -> CropEngineRecord:
    """Build the engine that cuts crops out of frames, and write it into a directory, as :func:`build` does.

    Args:
        graph: ONNX file with the inputs and outputs ``glnet_infer.contract.CROP_INPUTS`` and ``CROP_OUTPUTS``.
        directory: Folder for the engine.
        toolkit: Builds it, and says for which GPUs.
        options: Options of the engine.
        sha256: SHA-256 of the graph, as it was recorded; empty where it was not.
        progress: Told of the builder's phases, from another thread.

    Returns:
        The engine's entry in the record of the engine that it cuts for.

    Raises:
        ExportError: TensorRT refuses the graph or fails.
        KeyboardInterrupt: The build was interrupted.
    """
    shapes = {CROP_INPUTS[0].name: frame_shapes(options.largest_frame)}
    wanted = _Wanted((*CROP_INPUTS, *CROP_OUTPUTS), 0, sha256, shapes)
    plan = _compile_beside(graph, toolkit, options, wanted, progress)
    path = directory / f"crop.{_tag(toolkit, options)}.engine"
    _write(path, plan.data)
    return CropEngineRecord(record_file(path), options.largest_frame, graph.name)


def frame_shapes(largest: tuple[int, int]) -> Shapes:
    """Shapes of the frames up to a width and height."""
    (width, height), (usual_width, usual_height) = largest, USUAL_FRAME
    usual = (min(height, usual_height), min(width, usual_width), 3)
    return (SMALLEST_FRAME, SMALLEST_FRAME, 3), usual, (height, width, 3)


def runs_here(compute_capabilities: tuple[str, ...]) -> bool:
    """Whether the first GPU of this machine is one that an engine was built for."""
    return any(gpu.compute_capability in compute_capabilities for gpu in gpus()[:1])


def _write(path: Path, data: Any) -> None:
    """Write an engine. A file of its name may be a link to a bundle that is in use: that one is left as it is."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _tag(toolkit: Toolkit, options: EngineOptions) -> str:
    """Such as ``rtx-sm86-sm89`` or ``trt-lean-sm90``."""
    targets = (f"sm{each.replace('.', '')}" for each in toolkit.compute_capabilities)
    return "-".join([(LEAN if options.lean else toolkit.product).tag, *targets])


@dataclass(frozen=True)
class _Wanted:
    """What must come out: inputs and outputs, how many layers in which precision; and shapes of inputs without crops.

    The graph's SHA-256 must be the recorded one, where there is one.
    """

    tensors: tuple[TensorSpec, ...]
    half_layers: int
    sha256: str = ""
    shapes: dict[str, Shapes] = field(default_factory=dict)
    int8_layers: int = 0


@dataclass(frozen=True)
class _Plan:
    """A serialized engine: its bytes, what the network was, types of its own layers, and how long the build took."""

    data: Any
    facts: NetworkFacts
    engine_types: dict[str, Any]
    seconds: float


def _compile_beside(graph: Path, toolkit: Toolkit, options: EngineOptions, wanted: _Wanted, progress: Progress) -> _Plan:
    """Compile in a thread beside the main one, which alone gets signals.

    In a callback of the builder, an exception would have to pass through TensorRT.
    """
    monitor = new_monitor(toolkit.trt, progress)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(_compile, graph, toolkit, options, wanted, monitor)
        try:
            return work.result()
        except KeyboardInterrupt:
            monitor.cancel()
            raise


def _compile(graph: Path, toolkit: Toolkit, options: EngineOptions, wanted: _Wanted, monitor: Any) -> _Plan:
    trt, log = toolkit.trt, log_of(toolkit.trt)
    said = functools.partial(log.since, log.mark())
    start = time.monotonic()
    try:
        builder = _made(trt.Builder(log.logger), "a builder", toolkit, said)
        network = _made(builder.create_network(_network_flags(trt)), "a network", toolkit, said)
        parse(toolkit, network, graph, wanted.sha256)
        facts = read_network(network)
        _check(facts, wanted, toolkit.product)
        config = _made(builder.create_builder_config(), "a configuration", toolkit, said)
        _configure(config, toolkit, options, said)
        profile = _made(builder.create_optimization_profile(), "a profile", toolkit, said)
        fill_profile(profile, network, options.profile, wanted.shapes)
        if config.add_optimization_profile(profile) < 0:
            raise _failed("TensorRT does not take the sizes of batches or frames.", said)
        config.progress_monitor = monitor
        data = builder.build_serialized_network(network, config)
    except (RuntimeError, TypeError, ValueError) as error:  # what its bindings raise
        raise _failed(f"{toolkit.product.title} failed.", said, error) from error
    if monitor.failure is not None:
        raise monitor.failure
    if data is None:
        raise _failed(f"{toolkit.product.title} did not build the engine.", said)
    seconds = time.monotonic() - start
    if options.timing_cache is not None and toolkit.product is TENSORRT:
        _save_timing_cache(config, options.timing_cache)
    readable = runs_here(toolkit.compute_capabilities) and not options.lean
    return _Plan(data, facts, read_engine(trt, log, data) if readable else {}, seconds)


def _network_flags(trt: Any) -> int:
    """Strong typing: without the flag, TensorRT 10 would choose types itself. Later versions have nothing else."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def parse(toolkit: Toolkit, network: Any, graph: Path, sha256: str = "") -> None:
    """Read an ONNX file into a network.

    Args:
        toolkit: Has the parser.
        network: Receives the graph.
        graph: The file. It is read once: what is compared and looked through is what is parsed.
        sha256: SHA-256 that it must have; empty where none was recorded.

    Raises:
        ExportError: With the parser's words and the nodes that it does not take; or the file is another one than was
            recorded, names other files, or loops.
    """
    try:
        content = graph.read_bytes()
        problem = OnnxContent.of(content).problem()
    except ValueError as error:
        problem = first_line(error)
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        problem = "it is not the file that the manifest describes; it was changed meanwhile"
    if problem:
        raise ExportError(f"No engine is built from {graph.name}.", why=problem, fix="export the checkpoint again")
    log = log_of(toolkit.trt)
    mark = log.mark()
    parser = toolkit.trt.OnnxParser(network, log.logger)
    if parser.parse(content):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    words = [f"{error.desc()}{_place(error)}" for error in errors]
    raise ExportError(
        f"TensorRT does not read {graph.name}.",
        why="; ".join(dict.fromkeys(words)) or log.since(mark),
        fix=tested_versions(toolkit.product.extra),
    )


def _place(error: Any) -> str:
    """The node of a parser's error."""
    operator, name = error.node_operator(), error.node_name()
    return f" (at {' '.join(filter(None, (operator, name)))})" if operator or name else ""


def _check(facts: NetworkFacts, wanted: _Wanted, product: Product) -> None:
    """Stop before the long part where types or tensors are not the promised ones."""
    promised = {spec.name: spec.dtype for spec in wanted.tensors}
    if facts.tensors != promised:
        wrong = sorted(set(facts.tensors.items()) ^ set(promised.items()))
        raise ExportError(
            "The engine would have other inputs or outputs than promised.",
            why=", ".join(f"{name} {dtype}" for name, dtype in wrong),
            fix=tested_versions(product.extra),
        )
    for dtype, words, least in (("float16", "half precision", wanted.half_layers), ("int8", "int8", wanted.int8_layers)):
        found = facts.count(dtype, *LEARNED)
        if found < least:
            raise ExportError(
                f"The engine would not compute in {words} where it should.",
                why=f"{least} convolutions and matrix products were meant to; {found} do in what TensorRT read",
                fix=f"{tested_versions(product.extra)}; report it together with the checkpoint's configuration",
            )


def _configure(config: Any, toolkit: Toolkit, options: EngineOptions, said: Said) -> None:
    trt = toolkit.trt
    # TF32 keeps 10 bits of what the graph says is float32; emulated in the kinematics, it moves vertices by up to 8 mm.
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # The runtime records runs as CUDA graphs. Without the flag, an engine of TensorRT for RTX may allocate memory
        # while it runs, which a recording does not allow. With it, what could not be recorded fails here already.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.lean:  # a usual engine holds code that the lean runtime has not
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if gpus():
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for read_engine
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
        if config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) != options.workspace << 20:
            raise _failed(f"TensorRT does not take a workspace of {options.workspace} MiB.", said)
    if toolkit.product is RTX:
        config.num_compute_capabilities = len(toolkit.compute_capabilities)
        for index, target in enumerate(toolkit.compute_capabilities):
            value = trt.ComputeCapability.__members__[f"SM{target.replace('.', '')}"]
            if not config.set_compute_capability(value, index):
                raise _failed(f"{RTX.title} does not take compute capability {target}.", said)
    elif options.timing_cache is not None:
        _load_timing_cache(config, options.timing_cache, said)


def fill_profile(
    profile: Any, network: Any, batches: tuple[int, int, int], shapes: Mapping[str, Shapes] = MappingProxyType({})
) -> None:
    """Set the numbers of crops for all inputs, whose other sides are fixed; inputs that are named have their own shapes."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        sides = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *shapes.get(tensor.name, tuple((batch, *sides) for batch in batches)))


def check_timing_cache(path: Path) -> None:
    """Raise OutputError where a timing cache could not be read or written, before minutes of tracing and building."""
    why = ""
    if path.is_dir():
        why = "it is a directory"
    elif path.exists() and not os.access(path, os.R_OK):
        why = "it may not be read"
    elif not path.parent.is_dir():
        why = f"there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        why = f"{path.parent} may not be written"
    if why:
        raise OutputError(f"{path} cannot keep the timing cache.", why=why, fix="name another file with --timing-cache")


def _load_timing_cache(config: Any, path: Path, said: Said) -> None:
    data = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        raise _failed(f"TensorRT does not take the timing cache {path}.", said, fix="delete the file, or name another one")


def _save_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        replace_file(path, bytes(cache.serialize()))
    except OutputError as error:  # the engine is worth more than the cache
        warnings.warn(f"the timing cache was not kept in {path}: {error.why}", RuntimeWarning, stacklevel=2)


def _made(value: _Value | None, what: str, toolkit: Toolkit, said: Said) -> _Value:
    if value is None:
        raise _failed(f"{toolkit.product.title} did not make {what}.", said)
    return value


def _failed(what: str, said: Said, error: BaseException | None = None, fix: str = "") -> ExportError:
    """An error with TensorRT's own words."""
    return ExportError(
        what,
        why="; ".join([said(), *([one_line(error)] if error is not None else [])]),
        fix=fix or "try other options of the engine (glnet-export --help), or another version of TensorRT",
    )
