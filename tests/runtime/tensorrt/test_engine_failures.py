"""Every failure of TensorRT and CUDA: what is said of it, and that nothing is left behind."""

import pytest
from tensorrt_stand_in import batch, engine_record, make_bundle, plan, refused, right

from glnet_infer.backends.tensorrt import TensorRtBackend


def test_an_engine_that_is_not_loaded(either, machine):
    machine.trouble = {"deserialize_cuda_engine"}
    error = refused(
        lambda: TensorRtBackend(either), "does not load", "deserialize_cuda_engine was told to fail", "glnet-export engine"
    )
    assert "Loaded engine size" not in error.why  # TensorRT's talk is left out
    assert not machine.memory and not machine.streams


def test_no_context(either, machine):
    machine.trouble = {"create_execution_context"}
    refused(lambda: TensorRtBackend(either), "no execution context", "create_execution_context was told to fail")
    assert not machine.memory and not machine.streams


def test_no_context_for_a_later_bucket(classic, machine):
    with TensorRtBackend(classic) as backend:
        machine.trouble = {"create_execution_context"}
        refused(lambda: backend.run(*batch(1)), "no execution context", "was told to fail")
        machine.trouble = set()
        crops, cameras = batch(1)
        right(backend.run(crops, cameras), crops, cameras)


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("set_input_shape", ["refuses crops of shape (6, ", "set_input_shape was told to fail"]),
        ("infer_shapes", ["no shapes", "not specified: cameras"]),
        ("infer_shapes raises", ["no shapes", "the very words"]),
        ("get_tensor_shape", ["joints of shape (6, 7, 3)", "promises (6, 29, 3)"]),
        ("set_tensor_address", ["refuses the buffer of crops", "set_tensor_address was told to fail"]),
        ("allocate device", ["allocate", "on the GPU", "CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi"]),
        ("allocate host", ["pinned memory", "CUDA_ERROR_OUT_OF_MEMORY"]),
        ("device", ["start the GPU", "CUDA_ERROR_NO_DEVICE"]),
    ],
)
def test_what_is_refused_at_the_start(either, machine, trouble, words):
    machine.trouble = {trouble}
    refused(lambda: TensorRtBackend(either), *words)
    assert not machine.memory and not machine.streams and not machine.pools  # nothing is left behind


@pytest.mark.parametrize("trouble", ["create_runtime_config", "set_runtime_cache"])
def test_a_configuration_that_is_refused(rtx, machine, trouble):
    machine.trouble = {trouble}
    refused(lambda: TensorRtBackend(rtx), f"{trouble} was told to fail", "TensorRT for RTX 1.7.1.116")
    assert not machine.memory


@pytest.mark.parametrize(
    "trouble, words",
    [
        ("execute_async_v3", ["does not run 4 crops", "execute_async_v3 was told to fail"]),
        ("copy", ["CUDA failed to copy", "CUDA_ERROR_UNKNOWN"]),
        ("sync", ["finish the work", "CUDA_ERROR_LAUNCH_FAILED"]),
    ],
)
def test_what_is_refused_in_a_run(either, machine, trouble, words):
    with TensorRtBackend(either) as backend:
        machine.trouble = {trouble}
        refused(lambda: backend.run(*batch(3)), *words)
        machine.trouble = set()
        crops, cameras = batch(3)
        right(backend.run(crops, cameras), crops, cameras)


@pytest.mark.parametrize("trouble", ["capture", "launch"])
def test_a_graph_that_is_refused(classic, machine, trouble):
    with TensorRtBackend(classic) as backend:
        machine.trouble = {trouble}
        refused(lambda: backend.run(*batch(2)), "CUDA graph", f"{trouble} refused")
        machine.trouble = set()
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)


def test_an_engine_that_fails_while_it_is_captured(classic, machine):
    with TensorRtBackend(classic) as backend:
        execute = machine.contexts[0].__class__.execute_async_v3

        def only_outside(context, handle):
            return machine.streams[handle]._captured is None and execute(context, handle)

        machine.contexts[0].__class__.execute_async_v3 = only_outside
        refused(lambda: backend.run(*batch(2)), "does not run 2 crops")
        machine.contexts[0].__class__.execute_async_v3 = execute
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)  # the stream was not left capturing


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"joints": {"gone": True}}, ["it lacks joints"]),
        ({"cameras": {"gone": True}}, ["it lacks cameras"]),
        (
            {"extra": [{"name": "heat", "mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 2], "location": "DEVICE"}]},
            ["it has heat"],
        ),
        ({"vertices": {"dtype": "HALF"}}, ["vertices is HALF, not float32"]),
        ({"vertices": {"dtype": "BF16"}}, ["vertices is BF16, not float32"]),
        ({"reference_pixel": {"dtype": "INT64"}}, ["reference_pixel is INT64, not int32"]),
        ({"crops": {"dtype": "INT8"}}, ["crops is INT8, not uint8"]),
        ({"betas": {"mode": "INPUT"}}, ["betas is not an output"]),
        ({"betas": {"location": "HOST"}}, ["betas is not in the GPU's memory"]),
        ({"vertices": {"shape": [-1, 6890, 3]}}, ["vertices is (-1, 6890, 3), not (-1, 5, 3)"]),
        ({"rotations": {"shape": [-1, 24, 9]}}, ["rotations is (-1, 24, 9)"]),
        ({"crops": {"shape": [-1, 64, 64, 3]}}, ["crops is (-1, 64, 64, 3), not (-1, 32, 32, 3)"]),
        ({"profile": (1, 4, 8)}, ["its profile of crops", "(8, 32, 32, 3)", "(6, 32, 32, 3)"]),
        ({"profile": (2, 4, 6)}, ["its profile of crops", "(2, 32, 32, 3)", "(1, 32, 32, 3)"]),
        ({"joints": {"gone": True}, "betas": {"dtype": "HALF"}}, ["it lacks joints; betas is HALF"]),
    ],
)
def test_an_engine_of_another_graph(install, machine, tmp_path, changes, words):
    install()
    bundle = make_bundle(tmp_path, engine_record(tmp_path, plan(**changes)))
    refused(lambda: TensorRtBackend(bundle), "is not of this bundle's graph", *words, "glnet-export engine")
    assert not machine.contexts and not machine.memory
