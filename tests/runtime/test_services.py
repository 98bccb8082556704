"""What long-running programs do to a recoverer: replace its bundle, fork, run where HOME is watched."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from glnet_infer import BackendError, BundleError, MeshRecoverer, forks
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.onnxruntime_sessions import import_onnxruntime

BOX = [10, 10, 200, 400]


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


@pytest.fixture
def other_bundle(shared_bundle, tmp_path):
    """A bundle of the same shape with another network: every weight a tenth larger."""
    path = shutil.copytree(shared_bundle, tmp_path / "other")
    model = onnx.load(path / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.1), tensor.name))
    onnx.save(model, path / "model.onnx")
    document = json.loads((path / "manifest.json").read_text())
    document["graphs"][0]["file"] = dataclasses.asdict(record_file(path / "model.onnx"))
    (path / "manifest.json").write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("replaced", ["renamed", "deleted"])
def test_a_recoverer_answers_with_one_network_after_its_bundle_was_replaced(bundle, other_bundle, frame, replaced):
    with MeshRecoverer(other_bundle, "onnxruntime-cpu", threads=2) as other:
        new = other(frame, [BOX]).vertices[0]
    with MeshRecoverer(bundle, "onnxruntime-cpu", threads=2) as recoverer:
        old = recoverer(frame, [BOX]).vertices[0]
        # A network that is another one is millimetres away; a difference between kernels is micrometres.
        assert np.abs(old - new).max() > 1e-3  # metres
        bundle.rename(bundle.with_name("aside"))
        if replaced == "renamed":
            shutil.copytree(other_bundle, bundle)
        else:
            shutil.rmtree(bundle.with_name("aside"))
        for count in (1, 2, 4, 5):  # the session for several crops is opened here, for the first time
            for vertices in recoverer(frame, [BOX] * count).vertices:
                assert np.abs(vertices - old).max() < 1e-4  # metres


def test_all_answers_are_one_networks_while_its_bundle_is_replaced_again_and_again(bundle, other_bundle, frame):
    """As ``glnet-export`` replaces one: the new bundle is moved in, by renaming, under a service that never rests."""
    kinds = [shutil.copytree(bundle, bundle.with_name("same")), other_bundle]
    stop, answers, failures = threading.Event(), [], []
    with MeshRecoverer(bundle, "onnxruntime-cpu", threads=2) as recoverer:
        old = recoverer(frame, [BOX]).vertices[0]

        def serve():
            try:
                while not stop.is_set():
                    for count in (1, 3):
                        answers.append(np.abs(recoverer(frame, [BOX] * count).vertices - old).max())
            except Exception as error:
                failures.append(error)

        clients = [threading.Thread(target=serve) for _ in range(2)]
        for client in clients:
            client.start()
        for turn in range(20):
            new = shutil.copytree(kinds[turn % 2], bundle.with_name(f"new-{turn}"))
            before = len(answers)
            bundle.rename(bundle.with_name(f"aside-{turn}"))
            new.rename(bundle)
            shutil.rmtree(bundle.with_name(f"aside-{turn}"))
            deadline = time.monotonic() + 30
            while len(answers) <= before and time.monotonic() < deadline and not failures:
                time.sleep(0.005)
        stop.set()
        for client in clients:
            client.join()
    assert not failures and len(answers) >= 20
    assert max(answers) < 1e-4  # metres; another network is millimetres away


def test_a_graph_that_was_written_over_is_refused(bundle, other_bundle, frame):
    with MeshRecoverer(bundle, "onnxruntime-cpu", threads=2) as recoverer:
        shutil.copyfile(other_bundle / "model.onnx", bundle / "model.onnx")
        assert len(recoverer(frame, [BOX])) == 1  # its session has read the file
        with pytest.raises(BundleError, match="not the file that the manifest describes"):
            recoverer(frame, [BOX] * 2)


def test_an_engine_is_read_once(bundle):
    opened = Bundle.open(bundle)
    content = opened.graph_file.read()
    assert content == (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").unlink()
    assert opened.graph_file.read() == content


CHILD = """
import os, sys, numpy as np
from glnet_infer import MeshRecoverer
bundle, threads, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
recoverer = MeshRecoverer(bundle, "onnxruntime-cpu", threads=threads)
frame, boxes = np.zeros((240, 320, 3), np.uint8), [[10, 10, 200, 200]] * 2
recoverer(frame, boxes)
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
if action == "call":
    try:
        print(len(recoverer(frame, boxes)))
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
if action == "close":
    recoverer.close()
if action == "own":
    print(len(MeshRecoverer(bundle, "onnxruntime-cpu", threads=threads)(frame, boxes)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "threads, action, says",
    [(2, "call", "BackendError"), (2, "close", ""), (2, "leave", ""), (2, "own", "2"), (1, "call", "2"), (1, "close", "")],
)
def test_a_forked_child_answers_or_is_refused_and_ends(shared_bundle, threads, action, says):
    # Before, the child waited for ever: for its parent's threads when it ran, and once more when it exited.
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(shared_bundle), str(threads), action],
        capture_output=True,
        text=True,
        timeout=60,  # s
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(says) and bool(done.stdout) == bool(says)
    if says == "BackendError":
        assert "opened in another process" in done.stdout and "after the fork" in done.stdout


def test_onnx_runtime_leaves_nothing_in_home_and_says_nothing(shared_bundle, tmp_path):
    code = f"""
import numpy as np
from glnet_infer import MeshRecoverer
MeshRecoverer({str(shared_bundle)!r}, "onnxruntime-cpu", threads=1)(np.zeros((64, 64, 3), np.uint8))
"""
    # CI is one of the variables that ONNX Runtime looks at by itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (apt-get install strace)")
def test_recovering_persons_asks_nobody_and_leaves_nothing_in_home(shared_bundle, tmp_path, photograph):
    home, calls = tmp_path / "home", tmp_path / "calls"
    home.mkdir()
    cv2.imwrite(str(tmp_path / "person.png"), photograph)
    hidden = ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    program = "from glnet_infer.commands.infer import main; main()"
    arguments = [str(tmp_path / "person.png"), "-b", str(shared_bundle), "-o", str(tmp_path / "out")]
    command = [sys.executable, "-c", program, *arguments]
    traced = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-e", "signal=none", "-o", str(calls), *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env={**environment, "HOME": str(home)},
    )
    if "ptrace" in traced.stderr.lower():
        pytest.skip("strace may not watch processes here")
    assert traced.returncode == 0 and len(traced.stderr.splitlines()) == 1, traced.stderr  # what runs
    # A name server is asked by a program of its own or by a datagram; local sockets lead to nobody else.
    asked = [line for line in calls.read_text().splitlines() if "AF_UNIX" not in line and "+++" not in line]
    assert not asked, asked[:5]
    assert not list(home.rglob("*"))


def test_telemetry_that_the_user_wants_is_left_on(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_tensorrt_backend_of_the_parent_is_refused(monkeypatch):
    home = forks.HomeProcess()
    home.check("tensorrt", "make the backend after the fork")
    monkeypatch.setattr(forks.os, "getpid", lambda: -1)
    with pytest.raises(BackendError, match="opened in another process"):
        home.check("tensorrt", "make the backend after the fork")
