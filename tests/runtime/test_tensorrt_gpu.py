"""The engine runtime on a real GPU: the same results as ONNX Runtime, from graphs, for long, in several threads.

The bundle is made by ``glnet-export --trt``, or given as GLNET_ENGINE_BUNDLE.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from glnet_infer.backends import open_backend
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.bundle import Bundle
from glnet_infer.devices import gpus
from glnet_infer.manifest import GRAPH_OUTPUTS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU")]

SAME = 1e-4  # m; TensorRT may take other kernels, with other roundings, from one context to the next
PRECISION = 2e-3  # m; half precision against float32
CALLS = 10_000


@pytest.fixture(scope="module")
def engine_bundle(request, tmp_path_factory):
    given = os.environ.get("GLNET_ENGINE_BUNDLE")
    if given:
        return Bundle.open(given)
    directory = tmp_path_factory.mktemp("engine") / "bundle"
    command = [Path(sys.executable).with_name("glnet-export"), request.getfixturevalue("small_checkpoint")]
    subprocess.run([*command, "-o", directory, "--trt"], check=True, timeout=1800)
    return Bundle.open(directory)


@pytest.fixture(scope="module")
def backend(engine_bundle):
    with open_backend("tensorrt", engine_bundle) as backend:
        yield backend


def batch(bundle, count, seed=0):
    generator = np.random.default_rng(seed)
    size = bundle.manifest.crop.size
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    crops = coarse.repeat(size // 8, 1).repeat(size // 8, 2)  # structure, as photographs have
    cameras = np.tile(np.float32([1000 / 256, 1000 / 256, 0, 0]), (count, 1))
    return crops, cameras + generator.normal(scale=0.05, size=(count, 4)).astype(np.float32)


def same(left, right, tolerance=SAME):
    assert list(left) == list(right)
    for name in ("vertices", "joints", "translation"):
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance, err_msg=name)


def free_memory():
    """Bytes that the GPU has left."""
    driver = pytest.importorskip("cuda.bindings.driver")
    error, free, _ = driver.cuMemGetInfo()
    assert error == driver.CUresult.CUDA_SUCCESS
    return free


def test_results_are_onnx_runtimes(engine_bundle, backend):
    crops, cameras = batch(engine_bundle, 24)
    found = backend.run(crops, cameras)
    reference = open_backend("onnxruntime-cpu", engine_bundle)
    expected = reference.run(crops, cameras)
    for spec in GRAPH_OUTPUTS:
        assert found[spec.name].shape == expected[spec.name].shape and found[spec.name].dtype == spec.dtype
    agree = (found["reference_pixel"] == expected["reference_pixel"]).all(1)  # ties fall either way in half precision
    assert agree.mean() >= 0.9
    same({name: v[agree] for name, v in found.items()}, {name: v[agree] for name, v in expected.items()}, PRECISION)


def test_every_batch_size_gives_each_row_its_own_result(engine_bundle, backend):
    most = backend.buckets[-1]
    crops, cameras = batch(engine_bundle, most + 3)
    together = backend.run(crops, cameras)
    for count in range(1, most + 3):
        found = backend.run(crops[:count], cameras[:count])
        same(found, {name: values[:count] for name, values in together.items()}, PRECISION)


def test_replaying_a_graph_is_running_the_engine(engine_bundle, backend):
    with TensorRtBackend(engine_bundle, cuda_graphs=False) as plain:
        for count in (1, 3, backend.buckets[-1] + 1):
            for seed in range(3):  # the first run captures, the others replay
                crops, cameras = batch(engine_bundle, count, seed)
                same(backend.run(crops, cameras), plain.run(crops, cameras))


def test_memory_does_not_grow(engine_bundle, backend):
    batches = [batch(engine_bundle, count) for count in (1, 2, backend.buckets[-1])]
    for crops, cameras in batches * 20:  # kernels are compiled in the background at first
        backend.run(crops, cameras)
    before = free_memory()
    for call in range(CALLS):
        backend.run(*batches[0 if call % 100 else 2])
    assert before - free_memory() < 4 << 20


def test_opening_and_closing_gives_the_memory_back(engine_bundle, backend):
    backend.run(*batch(engine_bundle, 1))
    free = []
    for _ in range(5):
        with TensorRtBackend(engine_bundle) as other:
            other.run(*batch(engine_bundle, 2))
        free.append(free_memory())
    assert free[1] - free[-1] < 4 << 20  # the first one loads libraries


def test_two_clones_in_two_threads(engine_bundle, backend):
    expected = [backend.run(*batch(engine_bundle, 2, seed)) for seed in range(2)]
    failures = []

    def work(clone, seed):
        try:
            for _ in range(200):
                same(clone.run(*batch(engine_bundle, 2, seed)), expected[seed])
        except BaseException as error:
            failures.append(error)

    with backend.clone() as first, backend.clone() as second:
        threads = [threading.Thread(target=work, args=pair) for pair in ((first, 0), (second, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
