"""The client of a Triton server: the same results, another server's model refused, bounds on waiting."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends import open_backend

pytest.importorskip("tritonclient", reason="install the extra triton")
from triton_stand_in import HttpServer, Model

LONG = 30.0
"""Seconds that no call may come near whose limit is one second: machines may be slow, and not that slow."""


def test_results_are_those_of_the_local_runtime(address, opened, photograph, person_boxes):
    with (
        MeshRecoverer(opened, address) as remote,
        MeshRecoverer(opened, "onnxruntime-cpu", threads=1) as here,
    ):
        assert remote.backend == address and remote.batch_size == 8
        found, wanted = remote(photograph, person_boxes), here(photograph, person_boxes)
        for name in ("vertices", "joints", "keypoints_2d", "rotations", "betas", "translation", "confidence"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        assert found.backend == address and not len(remote(photograph, []))


def test_more_crops_than_the_model_takes_are_several_calls(server, address, opened, photograph, person_boxes):
    with MeshRecoverer(opened, address) as recoverer:
        found = recoverer(photograph, person_boxes * 9)
    assert server.model.calls == ["metadata", "config", "infer", "infer", "infer"]
    np.testing.assert_array_equal(found.vertices[:2], found.vertices[16:])


def test_threads_share_it_and_each_gets_its_own_answers(address, opened, photograph, many_boxes):
    with (
        MeshRecoverer(opened, address) as remote,
        MeshRecoverer(opened, "onnxruntime-cpu", threads=1) as here,
        ThreadPoolExecutor(6) as threads,
    ):
        jobs = [many_boxes[index % len(many_boxes), None] for index in range(12)]
        found = list(threads.map(lambda box: remote(photograph, box), jobs))
        for box, meshes in zip(jobs, found, strict=True):
            np.testing.assert_array_equal(meshes.boxes, box)
            np.testing.assert_array_equal(meshes.vertices, here(photograph, box).vertices)


def other_hash(model):
    model.config["parameters"]["glnet_graph_sha256"]["string_value"] = "ab" * 32


def no_hash(model):
    model.config["parameters"] = {"other": {"string_value": "x"}}


def no_parameters(model):
    del model.config["parameters"]


def no_batches(model):
    model.config["max_batch_size"] = 0


def other_crop(model):
    model.metadata["inputs"][0]["shape"][1] += 32


def other_type(model):
    model.metadata["inputs"][0]["datatype"] = "FP32"


def one_input_more(model):
    model.metadata["inputs"].append({"name": "mask", "datatype": "UINT8", "shape": [-1, 4]})


def no_betas(model):
    model.metadata["outputs"] = [each for each in model.metadata["outputs"] if each["name"] != "betas"]


def other_body(model):
    model.metadata["outputs"][0]["shape"][1] = 6890


def two_confidences(model):
    model.metadata["outputs"][6]["shape"] = [-1, 2]


@pytest.mark.parametrize(
    "change, why",
    [
        (other_hash, "SHA-256"),
        (no_hash, "no parameter glnet_graph_sha256"),
        (no_parameters, "no parameter glnet_graph_sha256"),
        (no_batches, "max_batch_size is"),
        (other_crop, "crops is ? x"),
        (other_type, "crops is float32, not uint8"),
        (one_input_more, "'mask'"),
        (no_betas, "no output betas"),
        (other_body, "vertices is ? x 6890 x 3"),
        (two_confidences, "confidence is ? x 2"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_another_model_is_refused_at_opening(server, address, opened, change, why):
    change(server.model)
    with pytest.raises(BackendError, match="is not the model of") as error:
        open_backend(address, opened)
    assert why in error.value.why and "glnet-export triton" in error.value.fix


def test_a_model_that_is_not_there_is_the_servers_own_word(server, address, opened):
    with pytest.raises(BackendError, match="cannot be used") as error:
        open_backend(address + "2", opened)
    assert "unknown model" in error.value.why and server.model.calls == ["unknown"]  # nothing to be repeated


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_no_server_is_an_error_within_its_limit(kind, opened):
    began = time.monotonic()
    with pytest.raises(BackendError, match="cannot be used") as error:
        open_backend(f"{kind.scheme}://127.0.0.1:{free_port()}/glnet?timeout=1", opened)
    assert time.monotonic() - began < LONG and "/v2/health/ready" in error.value.fix


def test_a_server_that_accepts_and_says_nothing_is_an_error_within_its_limit(kind, opened):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(BackendError, match="cannot be used") as error:
            open_backend(f"{kind.scheme}://127.0.0.1:{silent.getsockname()[1]}/glnet?timeout=1", opened)
        assert 0.5 < time.monotonic() - began < LONG
        assert error.value.why


def test_a_server_that_answers_byte_by_byte_is_an_error_within_its_limit(opened):
    """Each byte comes in time, and the whole does not."""

    def drip(listening, ended):
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not ended.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening, ended))
        thread.start()
        try:
            with pytest.raises(BackendError, match="cannot be used") as error:
                open_backend(f"triton+http://127.0.0.1:{listening.getsockname()[1]}/glnet?timeout=1", opened)
            assert "in time (limit 1 s)" in error.value.why
        finally:
            ended.set()
            thread.join()


def test_a_slow_answer_is_an_error_and_the_next_call_gets_its_own(server, address, opened, photograph, person_boxes):
    with MeshRecoverer(opened, f"{address}?timeout=2") as recoverer:
        wanted = recoverer(photograph, person_boxes[:1])
        server.model.delay = 4
        with pytest.raises(BackendError, match="failed on 1 crops") as error:
            recoverer(photograph, person_boxes[1:])
        assert "in time (limit 2 s)" in error.value.why and server.model.calls.count("infer") == 2
        server.model.delay = 0
        found = recoverer(photograph, person_boxes[:1])
    np.testing.assert_array_equal(found.vertices, wanted.vertices)


def test_an_answer_that_stands_still_is_an_error_and_the_next_call_gets_its_own(opened, local, photograph, person_boxes):
    server = HttpServer(Model(local, opened))
    with MeshRecoverer(opened, f"triton+http://127.0.0.1:{server.port}/glnet?timeout=2") as recoverer:
        wanted = recoverer(photograph, person_boxes[:1])
        server.model.stall = 5
        for _ in range(2):
            with pytest.raises(BackendError, match="failed on 1 crops"):
                recoverer(photograph, person_boxes[1:])
        server.model.stall = 0
        found = recoverer(photograph, person_boxes[:1])
    np.testing.assert_array_equal(found.vertices, wanted.vertices)
    server.stop()


def test_a_server_that_goes_away_is_an_error_and_comes_back(server, kind, address, opened, photograph):
    with MeshRecoverer(opened, f"{address}?timeout=5") as recoverer:
        wanted = recoverer(photograph)
        server.stop()
        began = time.monotonic()
        with pytest.raises(BackendError, match="failed on 1 crops"):
            recoverer(photograph)
        assert time.monotonic() - began < LONG
        again = kind(server.model, server.port)
        try:
            for _ in range(20):  # gRPC waits a while before it connects again
                try:
                    found = recoverer(photograph)
                    break
                except BackendError:
                    time.sleep(0.5)
            np.testing.assert_array_equal(found.vertices, wanted.vertices)
        finally:
            again.stop()


def test_what_the_server_did_not_take_is_repeated_and_not_for_ever(server, address, opened, photograph):
    with MeshRecoverer(opened, address) as recoverer:
        server.model.busy = 2
        assert len(recoverer(photograph)) == 1 and server.model.calls.count("infer") == 3
        server.model.busy = 100
        with pytest.raises(BackendError, match="failed on 1 crops") as error:
            recoverer(photograph)
        assert server.model.calls.count("infer") == 6 and "not ready" in error.value.why


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda outputs: {name: each for name, each in outputs.items() if name != "betas"}, "glnet-export triton wrote"),
        (lambda outputs: {**outputs, "betas": outputs["betas"][:, :9]}, "promises float32"),
        (lambda outputs: {**outputs, "vertices": outputs["vertices"].astype(np.int32)}, "promises float32"),
        (lambda outputs: {**outputs, "vertices": outputs["vertices"] * np.float32(np.nan)}, "overflowed"),
    ],
    ids=["missing", "narrow", "other type", "not finite"],
)
def test_answers_are_compared_with_the_manifest(server, address, opened, photograph, change, why):
    server.model.change = change
    with MeshRecoverer(opened, address) as recoverer, pytest.raises(BackendError) as error:
        recoverer(photograph)
    assert why in error.value.why


def test_a_closed_one_is_refused_and_closes_twice(address, opened):
    backend = open_backend(address, opened)
    backend.close()
    backend.close()
    side = opened.manifest.crop.size
    with pytest.raises(BackendError, match="closed"):
        backend.run(np.zeros((1, side, side, 3), np.uint8), np.ones((1, 4), np.float32))
