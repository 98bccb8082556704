"""The TensorRT that builds an engine: which of its two products, and for which GPUs."""

import re
from dataclasses import dataclass
from typing import Any

from glnet_export.engines.options import EngineOptions
from glnet_infer.backends.tensorrt.products import RTX, TENSORRT, Product, load_runtime
from glnet_infer.devices import Gpu, gpus
from glnet_infer.errors import BackendError, ExportError, first_line, install_hint

DEFAULT_TARGETS = ("8.6", "8.9", "12.0")
"""GeForce and RTX since 2020, in one engine: TensorRT for RTX compiles kernels where the engine is loaded, so an engine for
the three has the size of an engine for one and takes no longer to build (w32: 94 MB either way)."""


@dataclass(frozen=True)
class Toolkit:
    """A TensorRT that is ready to build.

    Attributes:
        product: Which product.
        trt: Its module.
        compute_capabilities: What it will compile for.
        gpu: Name of the GPU that it builds on; empty when it compiles ahead of time.
        why: Why this one, for people.
    """

    product: Product
    trt: Any
    compute_capabilities: tuple[str, ...]
    gpu: str
    why: str

    @property
    def version(self) -> str:
        """Version of the module."""
        return str(self.trt.__version__)

    def __str__(self) -> str:
        return f"{self.product.title} {self.version} for {', '.join(self.compute_capabilities)} ({self.why})"


def choose(options: EngineOptions) -> Toolkit:
    """Find the TensorRT to build with.

    Without a flavor, it is classic TensorRT where that is installed and has a GPU to build on, else TensorRT for RTX,
    which compiles ahead of time.

    Raises:
        ExportError: It is not installed, too old, has no GPU to build on, or does not know the GPUs that are asked for.
    """
    here = gpus()
    if options.lean:
        return _classic(options, here, "its lean runtime is asked for")
    if options.flavor == RTX.name:
        return _rtx(options, here, "as asked")
    if options.flavor == TENSORRT.name:
        return _classic(options, here, "as asked")
    if options.compute_capabilities:
        return _rtx(options, here, "TensorRT itself compiles for no other GPU than its own")
    if not here:
        return _rtx(options, here, "there is no GPU here, so it compiles ahead of time")
    try:
        return _classic(options, here, f"it is installed, and {here[0].name} is its GPU")
    except ExportError as error:
        return _rtx(options, here, f"TensorRT itself is not available: {error.why}")


def _classic(options: EngineOptions, here: list[Gpu], why: str) -> Toolkit:
    if options.compute_capabilities:
        raise ExportError(
            "TensorRT compiles for the GPU that it builds on, not for others.",
            why=f"compute capabilities {', '.join(options.compute_capabilities)} were asked for",
            fix="leave --sm out, or use --flavor tensorrt-rtx",
        )
    if not here:
        raise ExportError(
            "TensorRT cannot build here.",
            why="it compiles on the GPU that will run the engine, and there is none",
            fix="run glnet-export on a machine with that GPU, or compile ahead of time: "
            f"{'without --lean' if options.lean else 'with --flavor tensorrt-rtx'}",
        )
    return Toolkit(TENSORRT, _load(TENSORRT), (here[0].compute_capability,), here[0].name, why)


def _rtx(options: EngineOptions, here: list[Gpu], why: str) -> Toolkit:
    trt = _load(RTX)
    offered = compute_capabilities(trt)
    unknown = [target for target in options.compute_capabilities if target not in offered]
    if unknown:
        raise ExportError(
            f"{RTX.title} does not compile for compute capability {', '.join(unknown)}.",
            why=f"version {trt.__version__} does for {', '.join(offered)}; for Turing (7.5) it lacks float32 products",
            fix="choose among these with --sm; for other GPUs (9.0 is H100 and H200) use --flavor tensorrt on such a GPU",
        )
    targets = options.compute_capabilities
    if not targets:
        mine = dict.fromkeys(gpu.compute_capability for gpu in here)
        targets = tuple(target for target in mine if target in offered) or DEFAULT_TARGETS
        strangers = [gpu for gpu in here if gpu.compute_capability not in offered]
        if strangers:
            name, capability = strangers[0].name, strangers[0].compute_capability
            why += f"; WARNING: it does not run on {name} ({capability}), for which {install_hint(TENSORRT.extra)}"
    return Toolkit(RTX, trt, targets, "", why)


def compute_capabilities(trt: Any) -> tuple[str, ...]:
    """What a module of TensorRT for RTX compiles our graphs for."""
    matches = (re.fullmatch(r"SM(\d+)(\d)", name) for name in trt.ComputeCapability.__members__)
    found = (f"{match[1]}.{match[2]}" for match in matches if match)
    return tuple(capability for capability in found if capability in RTX.compute_capabilities)


def _load(product: Product) -> Any:
    try:
        trt = load_runtime(product.name)
        version = str(trt.__version__)
    except (BackendError, AttributeError) as error:
        why = error.why if isinstance(error, BackendError) else first_line(error)
        raise ExportError(f"{product.title} is not installed.", why=why, fix=_install(product)) from error
    assert product.oldest is not None, "the lean runtime builds nothing"
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < product.oldest:
        raise ExportError(
            f"{product.title} is too old.",
            why=f"it is version {version}; engines are built from {'.'.join(map(str, product.oldest))} on",
            fix=_install(product),
        )
    return trt


def _install(product: Product) -> str:
    other = f"; {TENSORRT.extra!r} instead of {RTX.extra!r} for a GPU that it does not know, such as H100"
    return install_hint(product.extra) + (other if product is RTX else "")
