"""A bundle's TensorRT engines: loaded, compared with the manifest, shared by the contexts that run them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from glnet_infer.backends.cache_files import CacheFile
from glnet_infer.backends.tensorrt.choice import EngineChoice, build_command, obstacle_to_cropping
from glnet_infer.backends.tensorrt.products import PRODUCTS, log_of
from glnet_infer.backends.tensorrt.tensors import EngineFile, crop_engine, main_engine, problems_of
from glnet_infer.bundle import Bundle, CheckedFile
from glnet_infer.bundle.records import EngineRecord
from glnet_infer.errors import BackendError


class LoadedEngine:
    """One engine, and what its contexts share. Several threads may use it at once.

    A CUDA context must be current in the calling thread, here and in every method.

    Args:
        bundle: Holds the engine.
        choice: The module that runs it.
        recorded: The file, and what the manifest records of it.
        cuda_graphs: Whether TensorRT for RTX shall replay CUDA graphs of its own.
        specialize: Whether it shall compile kernels for every shape that comes, beside the general ones.
        cache_directory: Where TensorRT for RTX keeps compiled kernels; see :class:`CacheFile`.

    Raises:
        BundleError: The engine's file is missing or not what the manifest records.
        BackendError: TensorRT refuses the engine, or it is not what the manifest promises.

    Attributes:
        tensors: Inputs and outputs.
        most_crops: Most crops of one call.
        captures_itself: TensorRT replays CUDA graphs by itself; a capture from outside is neither needed nor allowed.
    """

    def __init__(
        self,
        bundle: Bundle,
        choice: EngineChoice,
        recorded: EngineFile,
        *,
        cuda_graphs: bool,
        specialize: bool,
        cache_directory: Path | None,
    ) -> None:
        self.log = log_of(choice.trt)
        self.tensors = recorded.tensors
        self.most_crops = recorded.most_crops
        self.captures_itself = False
        self._trt: Any = choice.trt
        self._title = f"{PRODUCTS[choice.record.runtime].title} {choice.trt.__version__}"
        self._file = recorded.record.file
        self._command = build_command(choice.record, bundle.directory)
        self._lock = threading.Lock()
        data = CheckedFile(bundle.directory, recorded.record).read()
        mark = self.log.mark()
        self._runtime: Any = self._trt.Runtime(self.log.logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise BackendError(
                f"{self._title} does not load {self._file}.",
                why=self.log.since(mark),
                fix=f"update the NVIDIA driver, or rebuild with {self._command}",
            )
        problems = problems_of(self._engine, self._trt, recorded)
        if problems:
            raise BackendError(
                f"The engine {self._file} is not of this bundle's graph.",
                why="; ".join(problems),
                fix=f"rebuild with {self._command}",
            )
        self._config: Any = None
        self._cache: Any = None
        self._known_kernels = b""
        gpu = re.sub(r"[^a-z0-9]+", "-", choice.gpu.name.lower()).strip("-")
        self._cache_file = CacheFile(
            bundle, f"{recorded.record.sha256[:16]}.{gpu}.cache", "compiled kernels", cache_directory
        )
        if choice.record.flavor == "tensorrt-rtx":
            self._configure(cuda_graphs, specialize)

    @property
    def scratch_size(self) -> int:
        """Bytes on the GPU that a context made by :meth:`new_context` must be given."""
        return int(self._engine.device_memory_size_v2)

    def new_context(self) -> Any:
        """A context: what one thread runs the engine with.

        Raises:
            BackendError: TensorRT makes none.
        """
        mark = self.log.mark()
        how = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED if self._config is None else self._config
        with self._lock:  # the configuration is shared, and TensorRT does not say that it may be used at once
            context = self._engine.create_execution_context(how)
        if context is None:
            raise self.failure("makes no execution context", mark)
        return context

    def failure(self, doing: str, mark: int, said: str = "") -> BackendError:
        """The error of a call that TensorRT refused, in its own words."""
        return BackendError(
            f"{self._title} {doing} for {self._file}.",
            why=said or self.log.since(mark),
            fix="free memory of the GPU (nvidia-smi lists its users), or start the program again; "
            f"if it stays, rebuild the engine with {self._command}",
        )

    def close(self) -> None:
        """Let the engine go, and keep the compiled kernels for the next start."""
        cache, self._cache, self._config, self._engine, self._runtime = self._cache, None, None, None, None
        if cache is not None:
            content = cache.serialize()
            if content is not None and (kernels := bytes(memoryview(content))) != self._known_kernels:
                self._cache_file.write(kernels)

    def _configure(self, cuda_graphs: bool, specialize: bool) -> None:
        """Use what only TensorRT for RTX offers: CUDA graphs of its own, and kernels kept between runs."""
        mark = self.log.mark()
        config = self._engine.create_runtime_config()
        if config is None:
            raise self.failure("makes no runtime configuration", mark)
        # Engines are built with REQUIRE_USER_ALLOCATION.
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        strategies = self._trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategies.DISABLED
        self.captures_itself = cuda_graphs
        if not specialize:
            kinds = self._trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = kinds.NONE
        self._cache = config.create_runtime_cache()
        # False says: of another version, GPU or driver. The cache stays empty then, and its file is replaced.
        fitting = (each for each in self._cache_file.contents() if each and self._cache.deserialize(each))
        self._known_kernels = next(fitting, b"")
        if not config.set_runtime_cache(self._cache):
            raise self.failure("does not take its cache of kernels", mark)
        self._config = config


class EnginePair:
    """The bundle's engine and, where there is one, the engine that cuts its crops; shared by clones.

    A CUDA context must be current in the calling thread, here and in every method.

    Args:
        bundle: Holds the engines.
        choice: The engine, and the module that runs it.
        cuda_graphs: Whether work shall be replayed from CUDA graphs.
        cache_directory: Where TensorRT for RTX keeps compiled kernels.

    Raises:
        BundleError: An engine's file is missing or not what the manifest records.
        BackendError: TensorRT refuses an engine, or it is not what the manifest promises.

    Attributes:
        record: The engine's record in the manifest.
        main: Runs the graph.
        crop: Cuts crops out of frames; None in bundles of earlier versions.
        crop_obstacle: Why there is none; empty where there is one.
    """

    def __init__(
        self, bundle: Bundle, choice: EngineChoice, cuda_graphs: bool = True, cache_directory: Path | None = None
    ) -> None:
        self.record: EngineRecord = choice.record
        self.gpu = choice.gpu
        self.cuda_graphs = cuda_graphs
        self.name = choice.trt.__name__.replace("_", "-") + ("-int8" if choice.record.precision == "int8" else "")
        self._lock = threading.Lock()
        self._users = 1

        def load(recorded: EngineFile, cuda_graphs: bool, specialize: bool) -> LoadedEngine:
            return LoadedEngine(
                bundle,
                choice,
                recorded,
                cuda_graphs=cuda_graphs,
                specialize=specialize,
                cache_directory=cache_directory,
            )

        self.main = load(main_engine(bundle, self.record), cuda_graphs, True)
        crop = crop_engine(bundle, self.record)
        # A handful of kernels on frames of changing sizes and addresses: nothing that a CUDA graph would make faster, and
        # a folder of photographs would have kernels compiled, and kept, for each size.
        self.crop = None if crop is None else load(crop, False, False)
        self.crop_obstacle = obstacle_to_cropping(bundle, self.record)

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
        try:
            self.main.close()
        finally:
            if self.crop is not None:
                self.crop.close()
