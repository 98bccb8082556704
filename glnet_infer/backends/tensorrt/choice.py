"""Which of a bundle's engines runs here, decided by the manifest before any engine is loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from glnet_infer import devices
from glnet_infer.backends.tensorrt.device_memory import import_cuda_core
from glnet_infer.backends.tensorrt.products import PRODUCTS, RTX, load_runtime
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import ENGINE_FLAVORS, EngineRecord
from glnet_infer.devices import Gpu
from glnet_infer.errors import BackendError


@dataclass(frozen=True)
class EngineChoice:
    """An engine that fits this machine.

    Attributes:
        record: The engine's record in the manifest.
        trt: TensorRT's module that runs it.
        gpu: The GPU that it runs on.
    """

    record: EngineRecord
    trt: ModuleType
    gpu: Gpu


def choose_engine(bundle: Bundle, int8: bool = False) -> EngineChoice:
    """The bundle's engine for the first GPU of this machine; TensorRT's before TensorRT for RTX's.

    Args:
        bundle: The opened bundle.
        int8: Choose among the engines in int8, else among the others.

    Raises:
        BackendError: There is no GPU or no engine, TensorRT is not installed, or no engine was built for this GPU and
            the installed version.
    """
    found = devices.gpus()
    if not found:
        raise BackendError(
            "TensorRT needs an NVIDIA GPU, and there is none here.",
            why="the NVIDIA driver offers no GPU to this process",
            fix="check nvidia-smi and CUDA_VISIBLE_DEVICES, or run on the CPU with the backend onnxruntime-cpu",
        )
    records = sorted(bundle.manifest.engines_in(int8), key=lambda record: ENGINE_FLAVORS.index(record.flavor))
    if not records:
        raise BackendError(
            f"The bundle {bundle.directory} has no TensorRT engine{' in int8' if int8 else ''}.",
            why="none was built for it yet",
            fix=f"build one on this machine: glnet-export engine {bundle.directory}{' --precision int8' if int8 else ''}",
        )
    refusals = []
    for record in records:
        try:
            module = fitting_module(record, found[0], bundle.directory)
        except BackendError as error:
            refusals.append(error)
            continue
        _warn_of_another_model(record, found[0], bundle.directory)
        obstacle = obstacle_to_cropping(bundle, record)
        if record.crop is not None and obstacle:
            warnings.warn(f"crops are cut on the CPU: {obstacle}", RuntimeWarning, stacklevel=2)
        return EngineChoice(record, module, found[0])
    if len(refusals) == 1:
        raise refusals[0]
    raise BackendError(
        f"None of the {len(refusals)} TensorRT engines of {bundle.directory} runs here.",
        why="; ".join(
            f"{record.file.file}: {error.what} {error.why}" for record, error in zip(records, refusals, strict=True)
        ),
        fix="; or ".join(dict.fromkeys(error.fix for error in refusals)),
    ) from refusals[0]


def obstacle_to_cropping(bundle: Bundle, record: EngineRecord) -> str:
    """Why an engine's crops cannot be cut on the GPU; empty where nothing shows against it."""
    if record.crop is None:
        return "the bundle has no crop engine: an earlier glnet-export made it"
    if not bundle.manifest.cuts_as_defined(record.crop.graph):
        return (
            f"{record.crop.file.file} of {bundle.directory} samples large persons without averaging, as earlier versions "
            "did; export the checkpoint again"
        )
    return ""


def describe_runtimes() -> str:
    """Whether TensorRT can start here, in words; a bundle's engine must have been built for the GPU and the version."""
    found, missing = [], []
    for product in PRODUCTS.values():
        try:
            module = load_runtime(product.name)
            import_cuda_core(product.extra)
        except BackendError as error:
            missing.append(f"{error.what} {error.fix}")
        else:
            found.append(f"{product.title} {module.__version__}")
    if not found:
        return "; ".join(missing)
    return f"available: {', '.join(found)}" if devices.gpus() else f"no GPU ({', '.join(found)})"


def fitting_module(record: EngineRecord, gpu: Gpu, directory: Path) -> ModuleType:
    """The installed module that runs an engine.

    Args:
        record: The engine's record.
        gpu: The GPU that shall run it.
        directory: The bundle's, for messages.

    Raises:
        BackendError: TensorRT or cuda-core is not installed, or the engine was built for another version or GPU.
    """
    module = load_runtime(record.runtime)
    import_cuda_core(PRODUCTS[record.runtime].extra)
    is_for_gpu = gpu.compute_capability in record.compute_capabilities
    if is_for_gpu and same_version(record.version, module.__version__):
        return module
    title = PRODUCTS[record.runtime].title
    fix = _rebuild(record, gpu, directory)
    if is_for_gpu:
        fix += f", or install what built it: pip install {record.runtime}=={record.version}"
    raise BackendError(
        f"The engine {record.file.file} does not fit this machine.",
        why=f"built for sm {', '.join(record.compute_capabilities)} with {title} {record.version}; "
        f"here sm {gpu.compute_capability} ({gpu.name}) with {title} {module.__version__}",
        fix=fix,
    )


def _warn_of_another_model(record: EngineRecord, gpu: Gpu, directory: Path) -> None:
    """TensorRT chooses kernels by measuring them; on another model of the same kind, it only says so to its log."""
    if record.built_on not in ("", gpu.name):
        warnings.warn(
            f"the engine {record.file.file} was built on {record.built_on} and runs on {gpu.name}, maybe slower than it "
            f"could: {_rebuild(record, gpu, directory)}",
            RuntimeWarning,
            stacklevel=3,
        )


def same_version(built: str, installed: str) -> bool:
    """Whether an installed TensorRT is the one that built an engine, as far as both say: 1.7.1 is any build of 1.7.1.

    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/version-compatibility.html
    """
    pairs = zip(built.split("."), installed.split("."), strict=False)
    return all(left == right for left, right in pairs)


def build_command(record: EngineRecord, directory: Path) -> str:
    """The command that builds an engine of the same kind from the bundle's own graph, for messages."""
    options = (" --lean" if record.lean else "") + (" --precision int8" if record.precision == "int8" else "")
    return f"glnet-export engine {directory}{options}"


def _rebuild(record: EngineRecord, gpu: Gpu, directory: Path) -> str:
    command = build_command(record, directory)
    if record.flavor == "tensorrt":
        return f"rebuild on this machine with {command}"
    if gpu.compute_capability not in RTX.compute_capabilities:
        return f"rebuild on this machine with TensorRT ({command}); {RTX.title} does not support this GPU"
    return f"rebuild with {command} --sm {gpu.compute_capability.replace('.', '')}"
