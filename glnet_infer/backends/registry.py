"""The table of backends: what runs a bundle, what it needs, and which of them ``auto`` takes.

Everything that names backends reads this table: :class:`glnet_infer.MeshRecoverer`, help texts, ``glnet-doctor`` and the
benchmark. Other packages join it by the entry point ``glnet_infer.backends`` (docs/backends.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from glnet_infer import devices
from glnet_infer.backends.base import Backend
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import BF16, INT8, INT8_ENGINES, RUNTIME
from glnet_infer.entry_points import with_offered
from glnet_infer.errors import BackendError

ENTRY_POINTS = "glnet_infer.backends"
AUTO = "auto"


@dataclass(frozen=True)
class BackendKind:
    """An entry of the table.

    Attributes:
        name: The name that users ask for, such as ``onnxruntime-cpu``.
        runs: What it runs and where, for help texts.
        open: Opens it on a bundle, with so many threads of CPU kernels (None: its own choice). Raises ``BackendError``.
        state: Whether it can start on this machine, in words, for ``glnet-doctor``.
        obstacle: Why it cannot run a bundle here, as far as shows without starting it; empty where it can.
        serves: Whether a bundle is meant for it.
        extra: The extra of this library that installs it; empty where it comes from elsewhere.
        packages: Distributions whose versions matter to it.
        graph: Purpose of the bundle's graph that it runs, or that its engines are made of.
        caution: What speaks against it on this machine though it runs, a clause; empty where nothing does.
        needs_gpu: Whether it runs on an NVIDIA GPU.
        automatic: Whether ``auto`` may take it, in the table's order. Those of other packages come last, so it never does.
        starts_surely: Whether one that shows no obstacle starts. ``auto`` takes the next where another one does not.
        address: Form of the address that users ask for, such as ``name://HOST/MODEL``; empty where the name is enough.
        at: What opens the one at an address, as ``open`` does otherwise; None where the name is enough. Raises
            ``BackendError`` where the address is none.
    """

    name: str
    runs: str
    open: Callable[[Bundle, int | None], Backend]
    state: Callable[[], str]
    obstacle: Callable[[Bundle], str] = lambda bundle: ""
    serves: Callable[[Bundle], bool] = lambda bundle: True
    extra: str = ""
    packages: tuple[str, ...] = ()
    graph: str = RUNTIME
    caution: Callable[[], str] = str
    needs_gpu: bool = False
    automatic: bool = False
    starts_surely: bool = True
    address: str = ""
    at: Callable[[str], Callable[[Bundle, int | None], Backend]] | None = None


def _open_tensorrt(int8: bool) -> Callable[[Bundle, int | None], Backend]:
    def open_it(bundle: Bundle, threads: int | None) -> Backend:
        from glnet_infer.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(bundle, int8=int8)

    return open_it


def _tensorrt_state() -> str:
    from glnet_infer.backends.tensorrt.choice import describe_runtimes

    return describe_runtimes()


def _tensorrt_obstacle(int8: bool) -> Callable[[Bundle], str]:
    def obstacle(bundle: Bundle) -> str:
        from glnet_infer.backends.tensorrt.choice import choose_engine

        try:
            choose_engine(bundle, int8)
        except BackendError as error:
            return f"no TensorRT: {error.what} {error.why}".rstrip()
        return ""

    return obstacle


def _tensorrt(name: str, runs: str, int8: bool, graph: str) -> BackendKind:
    return BackendKind(
        name,
        runs,
        _open_tensorrt(int8),
        _tensorrt_state,
        obstacle=_tensorrt_obstacle(int8),
        serves=lambda bundle: bool(bundle.manifest.engines_in(int8)),
        extra="trt",
        packages=("tensorrt", "tensorrt-lean", "tensorrt-rtx", "cuda-core", "cuda-bindings"),
        graph=graph,
        needs_gpu=True,
        automatic=not int8,
    )


def _open_onnxruntime(device: str, purpose: str = RUNTIME) -> Callable[[Bundle, int | None], Backend]:
    def open_it(bundle: Bundle, threads: int | None) -> Backend:
        from glnet_infer.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, device, threads, purpose)

    return open_it


def _onnxruntime_state(device: str) -> Callable[[], str]:
    def state() -> str:
        from glnet_infer.backends.onnxruntime import describe

        return describe(device)

    return state


def _open_openvino(purpose: str) -> Callable[[Bundle, int | None], Backend]:
    def open_it(bundle: Bundle, threads: int | None) -> Backend:
        from glnet_infer.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(bundle, threads, purpose=purpose)

    return open_it


def _openvino_state() -> str:
    from glnet_infer.backends.openvino import describe

    return describe()


def _cuda_obstacle(bundle: Bundle) -> str:
    from glnet_infer.backends.onnxruntime import obstacle_to_cuda

    obstacle = obstacle_to_cuda()
    return f"no CUDA: {obstacle}" if obstacle else ""


def _has_graph(purpose: str) -> Callable[[Bundle], bool]:
    return lambda bundle: bundle.manifest.graph_for(purpose) is not None


def _no_graph(purpose: str, name: str) -> Callable[[Bundle], str]:
    return lambda bundle: "" if _has_graph(purpose)(bundle) else f"the bundle has no {name} graph"


def _int8_caution() -> str:
    return "" if devices.has_int8_dot_products() else "this processor lacks instructions for int8 (VNNI)"


def _int8_state() -> str:
    return "; ".join(filter(None, (_onnxruntime_state("cpu")(), _int8_caution())))


def _bf16_caution() -> str:
    return "" if devices.has_bf16_products() else "this processor lacks instructions for bfloat16 (AVX512_BF16 or AMX)"


def _bf16_state() -> str:
    return "; ".join(filter(None, (_openvino_state(), _bf16_caution())))


def _served_by_triton(name: str, protocol: str, port: int) -> BackendKind:
    address = f"{name}://HOST:{port}/MODEL"

    def at(where: str) -> Callable[[Bundle, int | None], Backend]:
        from glnet_infer.backends.triton import Address, TritonBackend

        address = Address.parse(where)
        return lambda bundle, threads: TritonBackend(bundle, address)

    def refuse(bundle: Bundle, threads: int | None) -> Backend:
        raise BackendError(f"The backend {name} is on a server, and none is named.", fix=f"give its address: {address}")

    def state() -> str:
        from glnet_infer.backends.triton import describe

        return describe(name, address)

    return BackendKind(
        name,
        f"the model of a Triton server, by {protocol}",
        refuse,
        state,
        extra="triton",
        packages=("tritonclient",),
        address=address,
        at=at,
    )


BUILT_IN = (
    _tensorrt("tensorrt", "the bundle's engine on an NVIDIA GPU, of whichever kind it is", False, RUNTIME),
    BackendKind(
        "onnxruntime-cuda",
        "the ONNX graph on an NVIDIA GPU",
        _open_onnxruntime("cuda"),
        _onnxruntime_state("cuda"),
        obstacle=_cuda_obstacle,
        extra="gpu",
        packages=("onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
        needs_gpu=True,
        automatic=True,
        starts_surely=False,  # whether CUDA's libraries fit it, and whether the GPU has room, shows only then
    ),
    BackendKind(
        "onnxruntime-cpu",
        "the ONNX graph on the CPU",
        _open_onnxruntime("cpu"),
        _onnxruntime_state("cpu"),
        extra="cpu",
        packages=("onnxruntime",),
        automatic=True,
    ),
    BackendKind(
        "onnxruntime-int8",
        "the bundle's int8 graph on the CPU",
        _open_onnxruntime("cpu", INT8),
        _int8_state,
        obstacle=_no_graph(INT8, "int8"),
        serves=_has_graph(INT8),
        extra="cpu",
        packages=("onnxruntime",),
        graph=INT8,
        caution=_int8_caution,
    ),
    BackendKind(
        "openvino",
        "the ONNX graph on the CPU, by OpenVINO",
        _open_openvino(RUNTIME),
        _openvino_state,
        extra="openvino",
        packages=("openvino",),
    ),
    BackendKind(
        "openvino-bf16",
        "the ONNX graph on the CPU, its first part in bfloat16, by OpenVINO",
        _open_openvino(BF16),
        _bf16_state,
        obstacle=_no_graph(BF16, "bf16"),
        serves=_has_graph(BF16),
        extra="openvino",
        packages=("openvino",),
        graph=BF16,
        caution=_bf16_caution,
    ),
    _tensorrt("tensorrt-int8", "the bundle's int8 engine on an NVIDIA GPU", True, INT8_ENGINES),
    _served_by_triton("triton", "gRPC", 8001),
    _served_by_triton("triton+http", "HTTP", 8000),
)
"""The backends of this library, the fastest first; those of other machines last."""


@functools.cache
def kinds() -> dict[str, BackendKind]:
    """The table by name: this library's backends, then those of other packages. A built-in name cannot be taken over."""
    return with_offered(
        BUILT_IN, ENTRY_POINTS, "backend", lambda name, says, refuse: BackendKind(name, says, refuse, lambda: says), (AUTO,)
    )


def backend_names() -> tuple[str, ...]:
    """Names that users may ask for: ``auto``, the names of the table, and the form of those that are addresses."""
    return (AUTO, *(kind.address or kind.name for kind in kinds().values()))


def find_kind(name: str) -> BackendKind:
    """The entry of a name, or of an address: that one opens what is there.

    Args:
        name: A name of the table, or an address of the form that an entry has.

    Raises:
        BackendError: There is no such backend, or the address is none.
    """
    head, is_address, _ = name.partition("://")
    kind = kinds().get(head)
    if kind is None or (is_address and kind.at is None):
        raise BackendError(
            f"There is no backend {name!r}.",
            fix=f"backends: {', '.join(backend_names())}; tensorrt runs engines of all kinds",
        )
    return replace(kind, open=kind.at(name)) if is_address and kind.at is not None else kind


@dataclass(frozen=True)
class BackendChoice:
    """The backend that ``auto`` stands for on this machine.

    Attributes:
        name: One of the table's names.
        reason: Why nothing faster was taken although there is a GPU; empty where nothing is lost.
    """

    name: str
    reason: str = ""


def choose_backend(bundle: Bundle) -> BackendChoice:
    """The fastest backend that can run a bundle here, as far as shows without starting one.

    TensorRT where GPU, engine and module fit each other; else ONNX Runtime, on the GPU where it is built for that.
    """
    return _candidates(bundle)[0]


def open_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """Open a backend.

    Args:
        name: One of :func:`backend_names`. ``auto`` takes what :func:`open_fastest` does; a backend asked for by name is
            opened or refused, never replaced.
        bundle: The bundle to run.
        threads: Threads of CPU kernels. None: the backend's own choice.

    Raises:
        BackendError: No such backend, or it cannot start.
        BundleError: The engine that it would run is missing or damaged.
    """
    if name == AUTO:
        return open_fastest(bundle, threads)[0]
    return find_kind(name).open(bundle, threads)


def open_fastest(bundle: Bundle, threads: int | None = None) -> tuple[Backend, str]:
    """Open the fastest backend that starts here.

    What :func:`choose_backend` says. Where that is one whose start alone shows whether it runs (ONNX Runtime on a GPU) and
    it does not start, the next is taken. An engine that fits and does not start is an error.

    Returns:
        The backend, and why nothing faster was taken although there is a GPU; empty where nothing is lost.

    Raises:
        BackendError: It does not start.
        BundleError: The engine that was chosen is missing or damaged.
    """
    failures: list[str] = []
    for choice in _candidates(bundle):
        try:
            backend = open_backend(choice.name, bundle, threads)
        except BackendError as error:
            if kinds()[choice.name].starts_surely:
                raise
            failures.append(f"{choice.name}: {error.what} {error.why}".rstrip())
        else:
            return backend, "; ".join(filter(None, (choice.reason, *failures)))
    raise AssertionError("the last candidate starts or raises")


def _candidates(bundle: Bundle) -> list[BackendChoice]:
    """Backends that ``auto`` tries in turn, each with the reasons against faster ones; the last one starts surely."""
    has_gpu = bool(devices.gpus())
    reasons: list[str] = []
    choices: list[BackendChoice] = []
    for kind in kinds().values():
        if not kind.automatic or (kind.needs_gpu and not has_gpu) or not kind.serves(bundle):
            continue
        obstacle = kind.obstacle(bundle)
        if obstacle:
            reasons.append(obstacle)
            continue
        choices.append(BackendChoice(kind.name, "; ".join(reasons)))
        if kind.starts_surely:
            return choices
    return choices
