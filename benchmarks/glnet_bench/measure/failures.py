"""Why something did not run, and whether it may run another time."""

from __future__ import annotations

from typing import TypeVar

from glnet_bench.record.results import Outcome
from glnet_infer.errors import BackendError, GlnetError, one_line

Failed = TypeVar("Failed", bound=Outcome)

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "allocate memory", "alloc failed", "bad alloc", "memoryerror")
"""Words of PyTorch and CUDA, TensorRT, ONNX Runtime, cuBLAS and cuDNN (``CUBLAS_STATUS_ALLOC_FAILED``), C++, and Python."""


class ProcessDiedError(BackendError):
    """A backend took its process with it, or hung in it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a GPU: smaller calls may still run."""
    text = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, GlnetError):
        return f"{error.what} {error.why}".strip()
    return f"{type(error).__name__}: {one_line(error)}"[:400]


def failed(kind: type[Failed], error: BaseException) -> Failed:
    """What a record keeps of a failure.

    Args:
        kind: What there would be a result of.
        error: What happened. Memory that others held, and a process that was killed or too slow, may have been the
            moment's: such a part is measured again when the run goes on.
    """
    passing = isinstance(error, ProcessDiedError) or is_out_of_memory(error)
    return kind(reason=reason(error), retry=passing)
