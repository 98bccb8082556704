"""What a process opened, in a process that is forked from it or that it is sent to: right, or refused at once."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from glnet_infer import BackendError, MeshRecoverer, forks
from glnet_infer.bundle import Bundle
from glnet_infer.detection import open_detector

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CHILD = """
import os, signal, sys, time
import numpy as np
what, action, clip, out = sys.argv[1:]
if what == "source":
    from glnet_infer.video.sources import open_source
    thing = open_source(clip)
    frames = iter(thing)
    next(frames), next(frames)
    use = lambda: next(frames).time
elif what == "writer":
    from glnet_infer.video.writers import VideoWriter
    thing = VideoWriter(out, width=320, height=240)
    image = np.zeros((240, 320, 3), np.uint8)
    for index in range(30):
        thing.write(image, index / 30)
    use = lambda: thing.write(image, 2.0)
elif what == "pipeline":
    from glnet_infer.video.pipeline import Pipeline
    thing = Pipeline(iter(range(1000)), lambda items: (time.sleep(0.001) or item for item in items))
    items = iter(thing)
    next(items)
    use = lambda: [next(items) for _ in range(20)]
elif what == "motion":
    from glnet_infer.camera import Intrinsics
    from glnet_infer.results.motion_builder import MotionBuilder
    thing = MotionBuilder(intrinsics=Intrinsics.guess(64, 64), image_size=(64, 64))
    thing.add(0, 0.0)
    use = thing.motion
child = os.fork()
if not child:
    signal.alarm(20)  # seconds: who waits for threads that are not there waits for ever
    if action == "use":
        try:
            use()
            print("answered", flush=True)
        except Exception as error:
            print(type(error).__name__, str(error).replace("\\n", " "), flush=True)
    if action == "close":
        thing.close()
    sys.exit(0)
_, status = os.waitpid(child, 0)
if os.waitstatus_to_exitcode(status):
    sys.exit(f"the child ended with {os.waitstatus_to_exitcode(status)}")
use()
thing.close()
"""


@needs_fork
@pytest.mark.parametrize("what", ["source", "writer", "pipeline", "motion"])
@pytest.mark.parametrize("action", ["use", "close", "leave"])
def test_a_forked_child_of_a_video_is_refused_and_ends_and_its_parent_goes_on(tmp_path, rendered_clip, what, action):
    if what in ("source", "writer"):
        pytest.importorskip("av")
    arguments = [what, action, str(rendered_clip / "clip.mp4"), str(tmp_path / "out.mp4")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    if action == "use":
        assert done.stdout.startswith("BackendError") and "opened in another process" in done.stdout
    else:
        assert not done.stdout
    assert [path.name for path in tmp_path.iterdir()] == (["out.mp4"] if what == "writer" else [])


def _read_often(bundle, wanted):
    for _ in range(200):
        if bundle.graph_file.read() != wanted:
            os._exit(1)
    os._exit(0)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes_read_a_bundle_at_once(shared_bundle):
    # They share the open file, and its place in it.
    bundle = Bundle.open(shared_bundle)
    wanted = bundle.graph_file.read()
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            _read_often(bundle, wanted)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


@needs_fork
def test_a_child_is_told_apart_though_it_has_its_parents_number(monkeypatch):
    # As in a container of its own.
    home = forks.HomeProcess()
    monkeypatch.setattr(forks.os, "getpid", lambda: home._number)
    assert home.is_here
    monkeypatch.setattr(forks, "_process", [object()])  # what a fork does
    assert not home.is_here


@needs_fork
def test_the_detector_works_in_a_forked_child():
    code = """
import os, signal, sys
import numpy as np
from glnet_infer.detection import open_detector
image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
detector = open_detector("nanodet", threshold=0.05)
before = detector(image)
child = os.fork()
if not child:
    signal.alarm(30)
    sys.exit(0 if np.array_equal(detector(image).boxes, before.boxes) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert not subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode


def things(shared_bundle):
    return {
        "MeshRecoverer": MeshRecoverer(shared_bundle, "onnxruntime-cpu", threads=1),
        "NanoDet": open_detector("nanodet"),
        "CheckedFile": Bundle.open(shared_bundle).graph_file,
    }


def test_what_holds_threads_and_files_is_not_copied_or_sent(shared_bundle):
    for name, thing in things(shared_bundle).items():
        for send in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(BackendError, match=f"A {name} cannot be copied or sent") as error:
                send(thing)
            assert "make another one there" in error.value.fix
    with pytest.raises(BackendError, match="A CheckedFile cannot"):
        pickle.dumps(Bundle.open(shared_bundle))


def _refused(recoverer):
    try:
        recoverer(np.zeros((240, 320, 3), np.uint8))
    except BackendError as error:
        return error.what, error.fix
    return "answered"


def test_a_started_process_opens_its_own(shared_bundle):
    context = multiprocessing.get_context("spawn")
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", threads=2) as recoverer:
        with pytest.raises(BackendError, match="cannot be copied or sent"):
            context.Process(target=_refused, args=(recoverer,)).start()
        here = recoverer(np.zeros((64, 64, 3), np.uint8)).vertices
    run = "import sys, numpy as np; from glnet_infer import MeshRecoverer\n"
    run += "print(MeshRecoverer(sys.argv[1], 'onnxruntime-cpu', threads=1)(np.zeros((64, 64, 3), np.uint8)).vertices.sum())"
    done = subprocess.run([sys.executable, "-c", run, str(shared_bundle)], capture_output=True, text=True, encoding="utf-8")
    # Kernels of other numbers of threads may add in another order: a micrometre in each of the coordinates.
    assert abs(float(done.stdout) - float(here.sum())) < 1e-6 * here.size


@needs_fork
def test_workers_of_a_data_loader_are_refused_at_once(shared_bundle):
    code = """
import sys
import numpy as np, torch
from glnet_infer import MeshRecoverer
recoverer = MeshRecoverer(sys.argv[1], "onnxruntime-cpu", threads=2)
frame, boxes = np.zeros((240, 320, 3), np.uint8), [[10, 10, 200, 200]] * 2
recoverer(frame, boxes)

class Frames(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return recoverer(frame, boxes).vertices

try:
    for _ in torch.utils.data.DataLoader(Frames(), num_workers=1, multiprocessing_context="fork", timeout=30):
        print("answered")
except Exception as error:
    print(str(error).replace("\\n", " "))
"""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared_bundle)], capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0 and "opened in another process" in done.stdout, done.stdout + done.stderr
