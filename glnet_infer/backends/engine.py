"""A bundle's TensorRT engine: loaded, compared with the manifest, shared by the contexts that run it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_infer.backends.engine_choice import EngineChoice
from glnet_infer.backends.runtime_cache import RuntimeCacheFile
from glnet_infer.backends.tensorrt_module import TITLES, log_of
from glnet_infer.bundle import Bundle, check_file
from glnet_infer.errors import BackendError
from glnet_infer.manifest import EngineRecord, TensorSpec

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""NumPy's names of TensorRT's types; others, bfloat16 say, NumPy has not."""


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of the engine.

    Attributes:
        name: As in the manifest.
        dtype: NumPy's name of its type.
        shape: Of one crop, without the batch.
        is_input: Or else an output.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool

    def size(self, crops: int) -> int:
        """Bytes of a batch."""
        return crops * math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Engine:
    """An engine, and what its contexts share. Several threads may use it at once.

    A CUDA context must be current in the calling thread, here and in every method.

    Args:
        bundle: Holds the engine.
        choice: Which engine, and what runs it.
        cuda_graphs: Whether work shall be replayed from CUDA graphs.
        cache_directory: Where TensorRT for RTX keeps compiled kernels; see :class:`RuntimeCacheFile`.

    Raises:
        BundleError: The engine's file is missing or not what the manifest records.
        BackendError: TensorRT refuses the engine, or it is not the bundle's graph.

    Attributes:
        tensors: Inputs and outputs.
        captures_itself: TensorRT replays CUDA graphs by itself; a capture from outside is neither needed nor allowed.
    """

    def __init__(
        self, bundle: Bundle, choice: EngineChoice, cuda_graphs: bool = True, cache_directory: Path | None = None
    ) -> None:
        self.record: EngineRecord = choice.record
        self.gpu = choice.gpu
        self.cuda_graphs = cuda_graphs
        self.log = log_of(choice.trt)
        self.name = choice.trt.__name__.replace("_", "-")
        self._trt: Any = choice.trt
        self._title = f"{TITLES[self.record.flavor]} {choice.trt.__version__}"
        self._lock = threading.Lock()
        self._users = 1
        self.tensors = _expected_tensors(bundle)
        data = check_file(bundle.directory, self.record.file).read_bytes()
        mark = self.log.mark()
        self._runtime: Any = self._trt.Runtime(self.log.logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise BackendError(
                f"{self._title} does not load {self.record.file.file}.",
                why=self.log.since(mark),
                fix=f"update the NVIDIA driver, or rebuild with glnet-export CHECKPOINT -o {bundle.directory} --trt",
            )
        problems = [*self._tensor_problems(), *self._profile_problems()]
        if problems:
            raise BackendError(
                f"The engine {self.record.file.file} is not of this bundle's graph.",
                why="; ".join(problems),
                fix=f"rebuild with glnet-export CHECKPOINT -o {bundle.directory} --trt",
            )
        self._config: Any = None
        self._cache: Any = None
        self._cache_file = RuntimeCacheFile(bundle, self.record, self.gpu, cache_directory)
        self.captures_itself = False
        if hasattr(self._engine, "create_runtime_config"):
            self._configure()

    @property
    def most_crops(self) -> int:
        """Most crops of one call."""
        return self.record.profile[2]

    @property
    def scratch_size(self) -> int:
        """Bytes on the GPU that a context made by :meth:`new_context` must be given; 0 where it has its own."""
        return 0 if self._owns_scratch else int(self._engine.device_memory_size_v2)

    @property
    def _owns_scratch(self) -> bool:
        # TensorRT for RTX runs all batch sizes in one context, so there is nothing to share its memory with.
        return self._config is not None and hasattr(self._config, "cuda_graph_strategy")

    def new_context(self) -> Any:
        """A context: what one thread runs the engine with.

        Raises:
            BackendError: TensorRT makes none.
        """
        mark = self.log.mark()
        with self._lock:  # the configuration is shared, and TensorRT does not say that it may be used at once
            if self._owns_scratch:
                context = self._engine.create_execution_context(self._config)
            else:
                context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self.failure("makes no execution context", mark)
        return context

    def failure(self, doing: str, mark: int, said: str = "") -> BackendError:
        """The error of a call that TensorRT refused, in its own words."""
        return BackendError(
            f"{self._title} {doing} for {self.record.file.file}.",
            why=said or self.log.since(mark),
            fix="free memory of the GPU (nvidia-smi lists its users), or start the program again; "
            "if it stays, rebuild the engine with glnet-export --trt",
        )

    def share(self) -> None:
        """One user more.

        Raises:
            BackendError: The last user has just let the engine go.
        """
        with self._lock:
            if not self._users:
                raise BackendError(f"The {self.name} backend is closed.", fix="make a new one")
            self._users += 1

    def release(self) -> None:
        """One user less; the last one keeps the compiled kernels for the next start and lets the engine go."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            cache, self._cache, self._config, self._engine, self._runtime = self._cache, None, None, None, None
        if cache is not None:
            content = cache.serialize()
            if content is not None:
                self._cache_file.write(bytes(memoryview(content)))

    def _configure(self) -> None:
        """What TensorRT for RTX offers beyond TensorRT: CUDA graphs of its own, and kernels kept between runs."""
        mark = self.log.mark()
        config = self._engine.create_runtime_config()
        if config is None:
            raise self.failure("makes no runtime configuration", mark)
        if hasattr(config, "cuda_graph_strategy"):
            strategies = self._trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if self.cuda_graphs else strategies.DISABLED
            self.captures_itself = self.cuda_graphs
        if hasattr(config, "create_runtime_cache"):
            self._cache = config.create_runtime_cache()
            known = self._cache_file.read()
            if known:
                # False says: of another version, GPU or driver. The cache stays empty then, and its file is replaced.
                self._cache.deserialize(known)
            if not config.set_runtime_cache(self._cache):
                raise self.failure("does not take its cache of kernels", mark)
        self._config = config

    def _tensor_problems(self) -> list[str]:
        engine, modes = self._engine, self._trt.TensorIOMode
        found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        expected = {tensor.name: tensor for tensor in self.tensors}
        problems = [f"it lacks {name}" for name in expected if name not in found]
        problems += [f"it has {name}, which the graph has not" for name in found if name not in expected]
        for name in found:
            if name not in expected:
                continue
            tensor, shape = expected[name], tuple(engine.get_tensor_shape(name))
            dtype = engine.get_tensor_dtype(name).name
            if (engine.get_tensor_mode(name) == modes.INPUT) != tensor.is_input:
                problems.append(f"{name} is not an {'input' if tensor.is_input else 'output'}")
            if DTYPES.get(dtype) != tensor.dtype:
                problems.append(f"{name} is {dtype}, not {tensor.dtype}")
            if engine.get_tensor_location(name) != self._trt.TensorLocation.DEVICE:
                problems.append(f"{name} is not in the GPU's memory")
            wanted = (-1, *tensor.shape)
            if len(shape) != len(wanted) or any(side not in (-1, right) for side, right in zip(shape, wanted, strict=True)):
                problems.append(f"{name} is {shape}, not {wanted}")
        return problems

    def _profile_problems(self) -> list[str]:
        known = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        problems = []
        for tensor in self.tensors:
            if tensor.is_input and tensor.name in known:
                found = [tuple(shape) for shape in self._engine.get_tensor_profile_shape(tensor.name, 0)]
                wanted = [(crops, *tensor.shape) for crops in self.record.profile]
                if found != wanted:
                    problems.append(f"its profile of {tensor.name} is {found}, and the manifest says {wanted}")
        return problems


def _expected_tensors(bundle: Bundle) -> tuple[EngineTensor, ...]:
    """What the manifest says of inputs and outputs, with numbers for letters."""
    manifest = bundle.manifest

    def tensors(specs: tuple[TensorSpec, ...], is_input: bool) -> list[EngineTensor]:
        return [
            EngineTensor(
                spec.name,
                spec.dtype,
                tuple(side if isinstance(side, int) else manifest.crop.size for side in spec.shape[1:]),
                is_input,
            )
            for spec in specs
        ]

    return (*tensors(manifest.inputs, True), *tensors(manifest.outputs, False))
