"""PyTorch's rows: eager in float32 and mixed precision, compiled, and replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glnet.adopted import KEY, adopt, read_adopted, untrained
from glnet.backend import TorchBackend
from glnet.body import Body, find_body, load_body
from glnet.checkpoint import Checkpoint
from glnet.config import GLNetConfig
from glnet.decoding import GLNetRecovery
from glnet.random_init import random_recovery, settle_batch_norms
from glnet.recovery import MeshRecovery, Recovery
from glnet_bench.machine.clocks import CudaEvents
from glnet_bench.machine.cuda import CudaDriver
from glnet_bench.runners.base import Options, Runner, whole_calls
from glnet_bench.runners.staged import StagedCalls
from glnet_export.textures import textured_crops
from glnet_infer.backends import Backend, Outputs
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.errors import BackendError, CheckpointError

_SETTLING_CROPS = 4
_COMPILED_SHAPES = 64
"""Batch sizes that are compiled; beyond its limit of 8, PyTorch would run eagerly and say nothing."""


def open_torch(name: str, bundle: Bundle, options: Options) -> Runner:
    """One of PyTorch's rows, on the GPU where there is one.

    Raises:
        BackendError: It needs a GPU, or cannot be compiled.
        CheckpointError: The checkpoint is not what the bundle was made from.
        BodyError: The bundle's body is not found.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "torch-cuda-graph" and device == "cpu":
        raise BackendError(
            "CUDA graphs need an NVIDIA GPU.",
            why=f"this PyTorch {torch.__version__} finds none",
            fix="check nvidia-smi and that PyTorch is built with CUDA",
        )
    if name == "torch-mixed" and device == "cpu" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        raise BackendError(
            "This CPU does not compute in half precision.",
            why="PyTorch would emulate it, many times slower than float32",
            fix="measure mixed precision on a GPU",
        )
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    # What the graph calls float32 shall be float32: TF32, the default of convolutions, keeps 10 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    recovery, weights = _recovery(bundle, options)
    # On a CPU half precision is slower than float32, so nobody would compile it.
    mixed = name in ("torch-mixed", "torch-cuda-graph") or (name == "torch-compile" and device == "cuda")
    if mixed:
        recovery.use_mixed_precision()
    recovery.to(device)
    if device == "cuda":
        # The baseline in its best form: convolutions want channels last, and cuDNN's choice by measurement.
        recovery.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.backends.cudnn.benchmark = True
    call: Any = _compiled(recovery) if name == "torch-compile" else recovery
    precision = "mixed" if mixed else "fp32"
    description = f"PyTorch {torch.__version__}, {weights}"
    if device == "cpu":
        description = f"{description}, {torch.get_num_threads()} threads"
        runner = whole_calls(name, TorchBackend(call), precision, description)
    else:
        steps = GraphSteps(recovery) if name == "torch-cuda-graph" else EagerSteps(call)
        stopwatch = CudaEvents(CudaDriver().start(), torch.cuda.current_stream().cuda_stream)
        calls = StagedCalls(name, steps, stopwatch)
        runner = Runner(name, calls, calls, device, precision, stopwatch.what, description, None, calls.close)
    if name == "torch-compile":
        try:
            # Constants come to the GPU in an eager call; else every compiled call would copy them.
            _call_once(TorchBackend(recovery), bundle)
            _compile(runner.backend, bundle)
        except BaseException:
            runner.close()
            raise
    return runner


def _recovery(bundle: Bundle, options: Options) -> tuple[MeshRecovery, str]:
    """The module that the bundle was traced from, or one of the same shapes; and which."""
    manifest = bundle.manifest
    body, config = Body(load_body(find_body(manifest.body.name))), manifest.network.config
    if options.checkpoint is not None:
        found = record_file(options.checkpoint).sha256
        if manifest.network.sha256 and found != manifest.network.sha256:
            raise CheckpointError(
                f"{options.checkpoint} is not what the bundle was made from.",
                why=f"its SHA-256 is {found[:12]}..., the manifest says {manifest.network.sha256[:12]}...",
                fix=f"give {manifest.network.source}, or leave --checkpoint out: speed does not depend on weights",
            )
        key = manifest.network.weights_key or None
        said = f"weights of {options.checkpoint.name}"
        if KEY in config:
            adopted = read_adopted(options.checkpoint, key)
            assert adopted is not None, "the hash is that of an adopted network's file"
            return adopt(adopted.kind, adopted.state, body, flip_test=config.get("flip_test") is True), said
        checkpoint = Checkpoint.load(options.checkpoint, GLNetConfig.from_dict(config), key)
        return GLNetRecovery(checkpoint.network(), body).eval(), said
    recovery: MeshRecovery
    recovery = untrained(config, body) if KEY in config else random_recovery(GLNetConfig.from_dict(config), body)
    # Else activations grow from block to block until half precision overflows.
    settle_batch_norms(recovery.network, torch.from_numpy(textured_crops(_SETTLING_CROPS, recovery.crop.size)))
    return recovery, "random weights of the bundle's configuration"


def _compiled(recovery: MeshRecovery) -> Any:
    """The module, compiled when it is called; for each batch size, as an engine is."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _COMPILED_SHAPES
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(recovery, dynamic=False)


def _compile(backend: Backend, bundle: Bundle) -> None:
    """Compile for one crop, by the call that a product makes: Dynamo compiles anew for inputs of another kind.

    Raises:
        BackendError: It cannot be compiled here.
    """
    try:
        _call_once(backend, bundle)
    except Exception as error:  # the compiler passes on what any of its parts raises
        raise BackendError(
            "torch.compile failed.",
            why=" ".join(str(error).split())[:300],
            fix="it needs a C++ compiler on a CPU, and Triton on a GPU",
        ) from error


def _call_once(backend: Backend, bundle: Bundle) -> None:
    size = bundle.manifest.crop.size
    backend.run(np.zeros((1, size, size, 3), dtype=np.uint8), np.ones((1, 4), dtype=np.float32))


class EagerSteps:
    """A module on the GPU, eager or compiled.

    Args:
        module: Module that takes crops and cameras.
    """

    def __init__(self, module: Callable[[torch.Tensor, torch.Tensor], Recovery]) -> None:
        self._module = module
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._outputs: Recovery | None = None

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        # From pinned memory: the GPU copies by itself.
        self._inputs = tuple(torch.from_numpy(array).pin_memory().cuda(non_blocking=True) for array in (crops, cameras))

    def execute(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        with torch.inference_mode():
            self._outputs = self._module(*self._inputs)

    def download(self) -> Outputs:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        assert self._outputs is not None
        return {name: value.cpu().numpy() for name, value in self._outputs._asdict().items()}

    def close(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._inputs, self._outputs = (), None


class GraphSteps:
    """A module replayed from CUDA graphs, one for each batch size, captured when the size first comes.

    Args:
        module: Module on the GPU.
    """

    def __init__(self, module: MeshRecovery) -> None:
        self._module = module
        self._graphs: dict[int, tuple[Any, tuple[torch.Tensor, ...], Recovery]] = {}
        self._size = 0

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._size = len(crops)
        given = torch.from_numpy(crops), torch.from_numpy(cameras)
        if self._size not in self._graphs:
            self._graphs[self._size] = self._capture(tuple(value.cuda() for value in given))
        for target, source in zip(self._graphs[self._size][1], given, strict=True):
            target.copy_(source.pin_memory(), non_blocking=True)

    def execute(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._graphs[self._size][0].replay()

    def download(self) -> Outputs:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        return {name: value.cpu().numpy() for name, value in self._graphs[self._size][2]._asdict().items()}

    def close(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._graphs.clear()

    def _capture(self, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, tuple[torch.Tensor, ...], Recovery]:
        current = torch.cuda.current_stream()
        # A capture that fails leaves its own stream current: all that follows would run, and be timed, beside it.
        with torch.inference_mode(), torch.cuda.stream(current):
            # PyTorch's recipe: a few runs on a side stream let libraries choose kernels and workspaces before the capture.
            side = torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._module(*inputs)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = self._module(*inputs)
        return graph, inputs, outputs
