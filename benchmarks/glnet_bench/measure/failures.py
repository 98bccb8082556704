"""Why something did not run, and whether it may run another time."""

from __future__ import annotations

from typing import Any

from glnet_bench.measure.processes import ProcessDiedError
from glnet_infer.errors import GlnetError, one_line

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "allocate memory", "alloc failed", "bad alloc", "memoryerror")
"""Of PyTorch and CUDA, TensorRT, ONNX Runtime, cuBLAS and cuDNN (``CUBLAS_STATUS_ALLOC_FAILED``), C++, and Python's own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a GPU: smaller calls may still run."""
    text = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, GlnetError):
        return f"{error.what} {error.why}".strip()
    return f"{type(error).__name__}: {one_line(error)}"[:400]


def failed(error: BaseException) -> dict[str, Any]:
    """What a record keeps of a failure.

    Returns:
        ``reason``, and ``retry`` where the failure may have been the moment's: memory that others held, a process that was
        killed or too slow. Such a part is measured again when the run goes on.
    """
    passing = isinstance(error, ProcessDiedError) or is_out_of_memory(error)
    return {"reason": reason(error), **({"retry": True} if passing else {})}
