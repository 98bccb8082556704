"""A graph that OpenVINO compiled for the CPU: for one crop with all threads, and for several side by side."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import USUAL_BATCH_SIZE, Outputs
from glnet_infer.backends.cache_files import CacheFile
from glnet_infer.backends.openvino.library import core, import_openvino
from glnet_infer.backends.openvino.models import GraphModel, Part
from glnet_infer.devices import cpu_flags
from glnet_infer.errors import BackendError
from glnet_infer.forks import keep_through_forks

FLOAT32, BFLOAT16 = "f32", "bf16"
"""OpenVINO's names of the precisions that are asked for."""

_PRECISION, _THREADS = "INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS"

_DIGEST = hashlib.sha256().digest_size


class CompiledGraph:
    """A graph that takes one crop at a time. Several threads may call it at once, each with a request of its own.

    Args:
        source: The graph.
        part: The part of it that is compiled; the whole graph where None.
        outputs: Names of what it gives.
        precision: :data:`FLOAT32` or :data:`BFLOAT16`.
        threads: Threads that compute.
        cache: Keeps the compiled graph; None: it is not kept.

    Raises:
        BundleError: It is no graph that is run, or not the promised one.
        BackendError: OpenVINO is not installed, refuses the graph, or would compute in another precision.

    Attributes:
        precision: What it computes in, as OpenVINO says itself.
        members: Number of crops that are run side by side.
    """

    def __init__(
        self,
        source: GraphModel,
        part: Part | None,
        outputs: Sequence[str],
        precision: str,
        threads: int,
        cache: CacheFile | None,
    ) -> None:
        self._openvino = import_openvino()
        self._core = core()
        self._source, self._part, self._cache, self.precision = source, part, cache, precision
        self._settings: dict[str, Any] = {
            # By itself it takes bfloat16 where the processor has it, which moves meshes by centimetres.
            _PRECISION: precision,
            _THREADS: threads,
            # Two processes would tie their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._one = self._compiled(1)
        self._outputs = tuple(outputs)
        self.members = min(int(self._one.get_property(_THREADS)), USUAL_BATCH_SIZE)
        self._idle: list[Any] = []
        self._queue: Any = None
        self._queueing = threading.Lock()
        keep_through_forks(self)

    def run(self, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[Outputs]:
        """Outputs of each crop's inputs, as copies. What is left over of the last round is run by all threads together.

        Raises:
            Exception: OpenVINO's own.
        """
        together = len(feeds) // self.members * self.members if self.members > 1 else 0
        found = self._side_by_side(feeds[:together]) if together else []
        return found + [self._alone(feed) for feed in feeds[together:]]

    def _alone(self, feed: Mapping[str, NDArray[Any]]) -> Outputs:
        try:
            request = self._idle.pop()
        except IndexError:  # as many as threads that call at once
            request = self._one.create_infer_request()
        request.infer(feed, share_outputs=True)
        found = _copied(request, self._outputs)
        self._idle.append(request)  # one that failed is not used again
        return found

    def _side_by_side(self, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[Outputs]:
        slots = [_Slot(self._outputs) for _ in feeds]
        with self._queueing:  # two would take twice the threads and the memory
            queue, self._queue = self._queue, None  # one that failed may wait for ever for the request that did
            if queue is None:
                queue = self._openvino.AsyncInferQueue(self._compiled(self.members), self.members)
                queue.set_callback(_take)
            try:
                for slot, feed in zip(slots, feeds, strict=True):
                    queue.start_async(feed, slot)
            finally:
                queue.wait_all()
            self._queue = queue
        error = next((slot.error for slot in slots if slot.error is not None), None)
        found = [slot.found for slot in slots]
        for slot in slots:
            slot.found, slot.error = {}, None  # the queue holds the last ones
        if error is not None:
            raise error
        return found

    def _compiled(self, streams: int) -> Any:
        """The graph for so many crops side by side, from what is kept or else from the file that was checked.

        The model is read again for the second number: held until then, it would take the weights' memory twice.
        """
        settings = {**self._settings, "NUM_STREAMS": streams}
        compiled = self._kept(settings)
        if compiled is None:
            compiled = self._compile(settings)
            if self._cache is not None:
                content = compiled.export_model().getvalue()
                self._cache.write(self._digest(content) + content)
        found = compiled.get_property(_PRECISION).get_type_name()
        if found != self.precision:
            raise BackendError(
                f"OpenVINO would compute {self._source.path.name} in {found}.",
                why=f"it was asked for {self.precision}, and does not take that on this processor",
                fix="use the backend onnxruntime-cpu",
            )
        return compiled

    def _compile(self, settings: Mapping[str, Any]) -> Any:
        model = self._source.read(self._part)
        try:
            return self._core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO's exceptions share no base class but this
            raise self._source.refused(error) from error

    def _kept(self, settings: Mapping[str, Any]) -> Any:
        """What an earlier start compiled; None where there is nothing that can be used."""
        for kept in () if self._cache is None else self._cache.contents():
            digest, content = kept[:_DIGEST], kept[_DIGEST:]
            if digest != self._digest(content):
                continue
            try:
                compiled = self._core.import_model(content, "CPU", settings)
            except Exception:  # it is compiled anew then
                continue
            self._source.check_compiled(compiled, self._part)
            return compiled
        return None

    def _digest(self, content: bytes) -> bytes:
        """Tells what was compiled by another version, and what is damaged."""
        made_by = (self._openvino.get_version(), self._source.sha256, self._part, self.precision)
        digest = hashlib.sha256(repr(made_by).encode())
        digest.update(content)
        return digest.digest()


@dataclass(slots=True)
class _Slot:
    """Where a queue leaves what a request found.

    Attributes:
        names: Names of the outputs.
        found: Copies of them.
        error: Why they were not copied.
    """

    names: tuple[str, ...]
    found: Outputs = field(default_factory=dict)
    error: BaseException | None = None


def _take(request: Any, slot: _Slot) -> None:
    """Copy what a request of a queue found. The process is aborted where this raises.

    The queue calls and frees it in a thread of OpenVINO's. A closure might free the graph, which waits for that thread; so
    might the frames of a traceback.

    Args:
        request: The request.
        slot: Where its outputs go.
    """
    try:
        slot.found = _copied(request, slot.names)
    except BaseException as error:
        slot.error = error.with_traceback(None)


def _copied(request: Any, names: Sequence[str]) -> Outputs:
    """Copies of what a request found, whose memory is used again."""
    return {name: np.array(request.get_tensor(name).data) for name in names}


def processor() -> str:
    """Tells processors apart for which other code is compiled, in eight characters."""
    flags = " ".join(sorted(cpu_flags())) or platform.processor()
    return hashlib.sha256(flags.encode()).hexdigest()[:8]
