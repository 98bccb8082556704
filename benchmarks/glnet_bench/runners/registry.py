"""Runners opened by name. PyTorch is imported only where one of its names is asked for."""

from __future__ import annotations

from dataclasses import replace

from glnet_bench.runners.base import BACKENDS, TORCH, Options, Runner, on_cpu
from glnet_infer.backends import Backend, open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.manifest import ENGINE_FLAVORS
from glnet_infer.devices import gpus
from glnet_infer.errors import BackendError, first_line, install_hint

_ON_GPUS = ("torch-cuda-graph", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")


def obstacle(name: str, bundle: Bundle) -> str:
    """Why a backend cannot run here, as far as shows without starting a process for it; empty where nothing shows."""
    if name in ENGINE_FLAVORS and not any(record.flavor == name for record in bundle.manifest.engines):
        return f"The bundle has no {name} engine."
    if name in _ON_GPUS and not gpus():
        return "There is no NVIDIA GPU, or its driver does not offer it to this process."
    return ""


def open_runner(name: str, bundle: Bundle, options: Options) -> Runner:
    """Open a backend and what times it.

    Raises:
        GlnetError: It cannot run here; the report shows why.
    """
    check_backend(name)
    if name in TORCH:
        try:
            from glnet_bench.runners.torch_runners import open_torch
        except (ImportError, OSError) as error:  # a broken torch raises OSError
            raise BackendError("PyTorch is not installed.", why=first_line(error), fix=install_hint("export")) from error
        return open_torch(name, bundle, options)
    if name == "onnxruntime-cuda":
        from glnet_bench.runners.onnxruntime_runner import open_cuda

        return open_cuda(bundle, options)
    if name.startswith("tensorrt"):
        from glnet_bench.runners.tensorrt_runner import open_tensorrt

        return open_tensorrt(_with_engines_of(bundle, name))
    backend = open_backend(name, bundle, options.threads)
    import onnxruntime

    return on_cpu(name, backend, bundle.manifest.graph.precision, f"ONNX Runtime {onnxruntime.__version__}")


def open_product(name: str, bundle: Bundle, options: Options) -> Backend:
    """Open a backend as a product does, without what times its steps.

    Raises:
        GlnetError: It cannot run here.
    """
    if name.startswith("tensorrt"):
        from glnet_infer.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(_with_engines_of(bundle, name))
    if name in TORCH:
        return open_runner(name, bundle, options).backend
    return open_backend(name, bundle, options.threads)


def check_backend(name: str) -> None:
    """Refuse what is no name of a backend.

    Raises:
        BackendError: It is none.
    """
    if name not in BACKENDS:
        raise BackendError(f"There is no backend {name!r}.", fix=f"backends: {', '.join(BACKENDS)}")


def _with_engines_of(bundle: Bundle, flavor: str) -> Bundle:
    """The bundle without the engines of the other flavor, which would be chosen in their stead."""
    engines = tuple(record for record in bundle.manifest.engines if record.flavor == flavor)
    if not engines:
        raise BackendError(
            f"The bundle has no {flavor} engine.",
            why="it was exported without one",
            fix=f"glnet-export CHECKPOINT -o {bundle.directory} --trt --flavor {flavor}",
        )
    return replace(bundle, manifest=replace(bundle.manifest, engines=engines))
