"""What this machine can do at most, measured: a large matrix product and a large copy. And the floor that follows.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52(4), 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from glnet_bench.floor.operations import GraphCost
from glnet_bench.machine.clocks import CudaEvents
from glnet_bench.machine.cuda import CudaDriver
from glnet_bench.record.results import Ceilings, FloorTimes
from glnet_infer.backends.onnxruntime import load_cuda
from glnet_infer.errors import BackendError, first_line
from glnet_infer.onnxruntime_sessions import import_onnxruntime, open_session, session_options

CPU_SIDES, GPU_SIDES = (512, 1024, 2048), (2048, 4096, 8192)
"""Sides of the square matrices; which is fastest depends on caches and clocks, so the best of them counts."""

CPU_BYTES, GPU_BYTES = 256 << 20, 1 << 30
"""Bytes of the copied block, more than any cache has."""

_REPEATS = 5
_SECONDS = 0.5
"""Fewest repetitions, and their fewest seconds. The best counts: a ceiling is what the machine can do undisturbed."""


def floor(cost: GraphCost, ceilings: Ceilings) -> FloorTimes:
    """The floor of a call.

    Raises:
        BackendError: The graph computes in a precision whose ceiling was not measured.
    """
    if ceilings.operations is None:
        raise BackendError("There is no floor.", why="products were not measured on this device")
    if cost.half_operations and ceilings.half_operations is None:
        raise BackendError("There is no floor.", why="half precision was not measured on this device")
    half = ceilings.half_operations or ceilings.operations
    compute = cost.operations / ceilings.operations + cost.half_operations / half
    memory = (cost.weights + cost.interface) / ceilings.bandwidth
    layers = sum(
        max(node.operations / (half if node.half else ceilings.operations), node.moved / ceilings.bandwidth)
        for node in cost.nodes
    )
    return FloorTimes(1000 * max(compute, memory), 1000 * layers)


def measure_cpu(threads: int, *, sides: Sequence[int] = CPU_SIDES, size: int = CPU_BYTES) -> Ceilings:
    """The ceilings of a CPU with so many threads: a product in ONNX Runtime, else in NumPy, and a copy.

    Args:
        threads: Threads of the product and of the copy.
        sides: Sides of the matrices; the best counts.
        size: Size of the copied block, bytes.
    """
    rate, how = max(_cpu_rate(side, threads) for side in sides)
    source, target = np.ones(size, dtype=np.uint8), np.empty(size, dtype=np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        parts = [slice(size * index // threads, size * (index + 1) // threads) for index in range(threads)]

        def copy() -> None:
            # One thread does not fill the memory channels of a large machine; NumPy lets go of the lock while it copies.
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        copied = best(copy)
    return Ceilings(rate, None, 2 * size / copied, f"{how}, copy of {size >> 20} MiB, {threads} threads")


def _cpu_rate(side: int, threads: int) -> tuple[float, str]:
    """Operations per second of a product, and what was run."""
    matrices = [np.random.default_rng(seed).standard_normal((side, side), dtype=np.float32) for seed in (0, 1)]
    product, name = _cpu_product(matrices, threads)
    return 2 * side**3 / best(product), f"{name} product {side} x {side} x {side}"


def _cpu_product(matrices: list[Any], threads: int) -> tuple[Callable[[], None], str]:
    try:
        session = open_session(_product_model(len(matrices[0]), half=False), session_options(threads))
    except BackendError:
        left, right = matrices
        result = np.empty_like(left)
        return lambda: np.matmul(left, right, out=result), "NumPy"
    given = dict(zip("ab", matrices, strict=True))
    return lambda: session.run(None, given), "ONNX Runtime"


def measure_gpu(*, with_torch: bool, sides: Sequence[int] = GPU_SIDES, size: int = GPU_BYTES) -> Ceilings:
    """The ceilings of the first GPU: a product in PyTorch or in ONNX Runtime, then a copy within its memory.

    In this order: the products bring the clocks up, which a GPU lowers at rest.

    Args:
        with_torch: Whether PyTorch may be imported for it.
        sides: Sides of the matrices; the best counts.
        size: Size of the copied block, bytes.

    Raises:
        BackendError: There is no GPU, or no memory left on it.
    """
    driver = CudaDriver().start()
    full, half, how = _gpu_rates(with_torch, sides)
    events = CudaEvents(driver)
    try:
        with driver.memory(size) as source, driver.memory(size) as target:

            def copy() -> float:
                begin = events.mark()
                driver.copy(target, source, size, events.stream)
                return events.milliseconds(begin, events.mark()) / 1000

            copied = least(copy)
    finally:
        events.close()
    return Ceilings(full, half, 2 * size / copied, f"{how}, copy of {size >> 20} MiB")


def _gpu_rates(with_torch: bool, sides: Sequence[int]) -> tuple[float | None, float | None, str]:
    """Operations per second in single and in half precision, and what was run, or why nothing was."""
    failures = []
    ways = {"PyTorch": _torch_product} if with_torch else {}
    for name, product in {**ways, "ONNX Runtime": _onnxruntime_product}.items():
        try:
            full, half = (
                max((2 * side**3 / best(product(side, is_half)), side) for side in sides) for is_half in (False, True)
            )
        except Exception as error:  # not installed, or built without CUDA
            failures.append(f"{name}: {first_line(error)}")
            continue
        return full[0], half[0], f"{name} products of side {full[1]} and {half[1]}"
    return None, None, f"no products ({'; '.join(failures)})"


def _torch_product(side: int, half: bool) -> Callable[[], None]:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    kind = torch.float16 if half else torch.float32
    left, right = (torch.randn(side, side, device="cuda", dtype=kind) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        torch.cuda.synchronize()

    return product


def _onnxruntime_product(side: int, half: bool) -> Callable[[], None]:
    onnxruntime = import_onnxruntime()
    missing = load_cuda(onnxruntime)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise BackendError("It is built without CUDA.")
    provider = "CUDAExecutionProvider"
    session = open_session(_product_model(side, half), session_options(), provider, {"use_tf32": "0"})
    if session.get_providers()[0] != provider:  # it falls back to the CPU by itself
        raise BackendError("ONNX Runtime does not start CUDA.", why=missing)
    kind = np.float16 if half else np.float32
    binding = session.io_binding()
    for seed, name in enumerate("ab"):
        matrix = np.random.default_rng(seed).standard_normal((side, side), dtype=np.float32).astype(kind)
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(matrix, "cuda", 0))
    binding.bind_output("c", "cuda", 0)

    def product() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return product


def _product_model(side: int, half: bool) -> bytes:
    """A graph of one matrix product."""
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    tensors = [helper.make_tensor_value_info(name, kind, [side, side]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", tensors[:2], tensors[2:])
    opsets = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def best(call: Callable[[], object], seconds: float = _SECONDS, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of several calls, after one that is not timed."""

    def timed() -> float:
        start = clock()
        call()
        return clock() - start

    return least(timed, seconds, clock)


def least(timed: Callable[[], float], seconds: float = _SECONDS, clock: Callable[[], float] = time.perf_counter) -> float:
    """The least of what several calls return, without the first, which others follow for so many seconds."""
    timed()
    begin = clock()
    times: list[float] = []
    while len(times) < _REPEATS or clock() - begin < seconds:
        times.append(timed())
    return min(times)
