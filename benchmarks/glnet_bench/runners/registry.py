"""Runners opened by name. PyTorch is imported only where one of its names is asked for."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

from glnet_bench.runners.base import TORCH, Options, Runner, whole_calls
from glnet_infer.backends import Backend, BackendKind, find_kind, open_backend
from glnet_infer.backends.registry import BUILT_IN, kinds
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import ENGINE_FLAVORS
from glnet_infer.devices import gpus
from glnet_infer.errors import BackendError, first_line, install_hint
from glnet_infer.onnxruntime_sessions import import_onnxruntime

_GRAPH, _CUDA, _ENGINES = "torch-cuda-graph", "onnxruntime-cuda", "tensorrt"


def backend_names() -> tuple[str, ...]:
    """All rows in the order of the report: PyTorch's, then the runtime's backends, the slowest first, then other packages'.

    The runtime's backend for TensorRT runs engines of both products; here each product has a row. Those of servers come
    last.
    """
    built_in = [kind.name for kind in reversed(BUILT_IN) if not kind.address]
    others = [name for name in kinds() if name not in built_in and name not in served_names()]
    rows = [ENGINE_FLAVORS if name == _ENGINES else (name,) for name in (*built_in, *others, *served_names())]
    return (*TORCH, *(name for names in rows for name in names))


def served_names() -> tuple[str, ...]:
    """Rows of backends on servers: they are measured where their address is given."""
    return tuple(kind.name for kind in kinds().values() if kind.address)


def row_of(name: str) -> str:
    """The row of what users name: a row, or the address of a backend on a server.

    Raises:
        BackendError: There is no such backend, or it needs an address.
    """
    if "://" in name:
        return find_kind(name).name
    if name in served_names():
        raise BackendError(f"{name} needs an address.", fix=f"name it --backend {kinds()[name].address}")
    check_backend(name)
    return name


def _asked_for(name: str, options: Options) -> str:
    """What opens a row: its address, where it has one."""
    return next((address for address in options.addresses if row_of(address) == name), name)


def check_backend(name: str) -> None:
    """Refuse what is not the name of a row.

    Raises:
        BackendError: It is not.
    """
    if name not in backend_names():
        raise BackendError(f"There is no backend {name!r}.", fix=f"backends: {', '.join(backend_names())}")


def obstacle(name: str, bundle: Bundle) -> str:
    """Why a backend cannot run here, as far as shows without starting a process for it; empty where nothing shows."""
    if name in ENGINE_FLAVORS and not any(record.flavor == name for record in bundle.manifest.engines_in(int8=False)):
        return f"The bundle has no {name} engine."
    kind = kinds().get(name)
    if (name == _GRAPH or name in ENGINE_FLAVORS or (kind and kind.needs_gpu)) and not gpus():
        return "There is no NVIDIA GPU, or its driver does not offer it to this process."
    return kind.obstacle(bundle) if kind and name not in ENGINE_FLAVORS else ""


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
    if name == _CUDA:
        from glnet_bench.runners.onnxruntime_runner import open_cuda

        return open_cuda(bundle, options)
    if name in ENGINE_FLAVORS:
        from glnet_bench.runners.tensorrt_runner import open_tensorrt

        return open_tensorrt(_with_engines_of(bundle, name))
    kind = find_kind(_asked_for(name, options))
    backend = kind.open(bundle, options.threads)
    description, precision = _description(kind), (bundle.manifest.graph_for(kind.graph) or bundle.manifest.graph).precision
    if kind.address:
        return whole_calls(name, backend, precision, f"{description}: {backend.name}", "server")
    device = "cuda" if kind.needs_gpu else "cpu"
    return whole_calls(name, backend, precision, description, device)


def _description(kind: BackendKind) -> str:
    """What runs a backend of the CPU, with its version."""
    if "onnxruntime" in kind.packages:
        return f"ONNX Runtime {import_onnxruntime().__version__}"
    return f"OpenVINO {importlib.metadata.version('openvino')}" if "openvino" in kind.packages else kind.runs


def open_product(name: str, bundle: Bundle, options: Options) -> Backend:
    """Open a backend as a product does, without what times its steps.

    Raises:
        GlnetError: It cannot run here.
    """
    if name in TORCH:
        return open_runner(name, bundle, options).backend
    if name in ENGINE_FLAVORS:
        return open_backend(_ENGINES, _with_engines_of(bundle, name), options.threads)
    return open_backend(_asked_for(name, options), bundle, options.threads)


def _with_engines_of(bundle: Bundle, flavor: str) -> Bundle:
    """The bundle without the engines of the other flavor, which would be chosen in their stead."""
    engines = tuple(record for record in bundle.manifest.engines_in(int8=False) if record.flavor == flavor)
    if not engines:
        raise BackendError(
            f"The bundle has no {flavor} engine.",
            why="it was exported without one",
            fix=f"glnet-export CHECKPOINT -o {bundle.directory} --trt --flavor {flavor}",
        )
    return replace(bundle, manifest=replace(bundle.manifest, engines=engines))
