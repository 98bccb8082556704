"""The load on a server: what counts as a good answer, and that a swapped, lost or wrong one is seen."""

import json
import sys
import threading
import time

import numpy as np
import pytest

from glnet_bench import serving_load
from glnet_infer.backends.triton.address import Address

FIRST = len(serving_load.cases()) + 1
"""Number of the first request under load: each picture is asked for once before."""


class RefusedError(Exception):
    pass


class Answer:
    def __init__(self, boxes, vertices):
        self._arrays = {"boxes": boxes, "vertices": vertices}

    def as_numpy(self, name):
        return self._arrays[name]


class Server:
    """A server in this process, whose answers a test may spoil. Its meshes are made of the picture and the whole boxes."""

    refusal = RefusedError
    spoil = staticmethod(lambda answer, number: answer)
    lock, number = threading.Lock(), 0

    def __init__(self, address):
        pass

    def __call__(self, case, boxes):
        with self.lock:
            Server.number += 1
            number = Server.number
        time.sleep(0.001)
        if case.picture[:2] != b"\xff\xd8" or not case.picture.endswith(b"\xff\xd9") or (boxes[:, 2] < boxes[:, 0]).any():
            raise RefusedError("[StatusCode.INVALID_ARGUMENT] bad")
        # Small enough for float32 to hold a hundredth: a large picture's bytes are above 2^18, where its steps are 0.03.
        vertices = np.repeat(np.round(boxes[:, None, :3], 3), 4, axis=1) + len(case.picture) % 1000
        return self.spoil(Answer(boxes.copy(), vertices.astype(np.float32)), number)


@pytest.fixture
def run(monkeypatch, capsys):
    def run(spoil=lambda answer, number: answer, bad=0.5):
        monkeypatch.setattr(serving_load, "Asker", Server)
        monkeypatch.setattr(serving_load, "BAD_SHARE", bad)
        monkeypatch.setattr(serving_load, "BETWEEN_READINGS", 0.05)
        monkeypatch.setattr(Server, "spoil", staticmethod(spoil))
        monkeypatch.setattr(Server, "number", 0)
        arguments = ["x", "triton://127.0.0.1:1/glnet_frames", "--clients", "4", "--seconds", "1", "--server", "1"]
        monkeypatch.setattr(sys, "argv", arguments)
        code = serving_load.main()
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_good_server_passes(run):
    code, found = run()
    assert code == 0 and found["good"] > 0 and found["refused"] > 0
    assert found["sent"] == found["good"] + found["refused"] and not found["lost"]
    assert found["p50_ms"] > 0.5 and found["p99_ms"] >= found["p50_ms"] and found["memory_mib"]["most"] > 0


def other_boxes(answer, number):
    return Answer(answer.as_numpy("boxes") + 1e-9, answer.as_numpy("vertices"))


def other_mesh(answer, number):
    return Answer(answer.as_numpy("boxes"), answer.as_numpy("vertices") + np.float32(0.01))


def person_lost(answer, number):
    return Answer(answer.as_numpy("boxes"), answer.as_numpy("vertices")[1:])


def failure(answer, number):
    raise RefusedError("[StatusCode.UNAVAILABLE] gone")


@pytest.mark.parametrize(
    "spoil, verdict",
    [(other_boxes, "swapped"), (other_mesh, "off"), (person_lost, "off"), (failure, "failed")],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_wrong_answer_is_seen(run, spoil, verdict):
    code, found = run(lambda answer, number: spoil(answer, number) if number == FIRST else answer, bad=0)
    assert code == 1 and found[verdict] == 1 and found["sent"] == found["good"] + 1


def test_a_bad_request_that_is_taken_is_seen(run, monkeypatch):
    monkeypatch.setattr(serving_load, "bad_cases", lambda good: good[:1])
    code, found = run()
    assert code == 1 and found["taken"] > 0


def test_a_request_without_an_answer_is_lost():
    counts = serving_load.Counts(sent=3)
    counts.counts["good"] = 2
    assert serving_load.summary([counts], [], 1.0)["lost"] == 1


def test_no_two_cases_have_a_box_alike():
    boxes = [tuple(box) for case in serving_load.cases() for box in case.boxes]
    assert len(set(boxes)) == len(boxes) == 24
    for case in serving_load.cases():
        assert (case.boxes[:, 2:] > case.boxes[:, :2]).all()


def test_memory_is_the_process_and_its_childrens():
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc")
    import os

    assert serving_load.resident(os.getpid()) > 10 << 20
    assert Address.parse("triton://h/glnet_frames").model == "glnet_frames"
