"""OpenVINO: what it computes in, crops side by side, what is kept, what is refused."""

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glnet_infer import BackendError, BundleError, MeshRecoverer
from glnet_infer.backends import kinds, open_backend
from glnet_infer.backends.openvino import OpenVinoBackend
from glnet_infer.backends.openvino.library import core, describe, import_openvino
from glnet_infer.backends.openvino.models import GraphModel
from glnet_infer.bundle import Bundle
from glnet_infer.contract import GRAPH_OUTPUTS

try:
    openvino = import_openvino()  # as the library does it: by itself, it would report the import
except BackendError:
    pytest.skip("OpenVINO is not installed", allow_module_level=True)


@pytest.fixture(scope="session")
def kept(made_once, shared_bundle):
    """A copy of the small bundle with what OpenVINO compiled; tests must not change it."""

    def make(path):
        shutil.copytree(shared_bundle, path)
        OpenVinoBackend(Bundle.open(path), 1).close()

    return made_once("small-openvino", make)


@pytest.fixture
def opened(kept):
    return Bundle.open(kept)


def crops(count, seed=0):
    generator = np.random.default_rng(seed)
    cameras = np.array([4, 4, 0, 0]) * generator.uniform(0.5, 1, (count, 1))
    return generator.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8), cameras.astype(np.float32)


@pytest.fixture
def calls(monkeypatch):
    """Names of what OpenVINO is asked to do, with the settings."""
    seen = []
    for name in ("compile_model", "import_model"):
        own = getattr(openvino.Core, name)

        def noted(core, *given, _name=name, _own=own):
            seen.append((_name, given[-1]))
            return _own(core, *given)

        monkeypatch.setattr(openvino.Core, name, noted)
    return seen


@pytest.mark.parametrize("count, threads", [(1, 2), (5, 2), (3, 1)])
def test_it_gives_what_onnx_runtime_gives(opened, count, threads):
    """Sums in another order: micrometres."""
    given = crops(count)
    with contextlib.closing(open_backend("openvino", opened, threads)) as backend:
        found = backend.run(*given)
    with contextlib.closing(open_backend("onnxruntime-cpu", opened, 1)) as backend:
        wanted = backend.run(*given)
    assert list(found) == [spec.name for spec in GRAPH_OUTPUTS]
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        # Metres, pixels, or numbers around 1; bfloat16 is off by a thousandth and more.
        np.testing.assert_allclose(found[name], array, atol=2e-3 if name == "keypoints_2d" else 5e-5, err_msg=name)


def test_it_is_asked_for_float32_and_says_so(opened, calls, tmp_path):
    with contextlib.closing(OpenVinoBackend(opened, 2, cache_directory=tmp_path)) as backend:
        backend.run(*crops(2))
        assert "model.onnx in f32" in repr(backend)
    with contextlib.closing(OpenVinoBackend(opened, 2, cache_directory=tmp_path)) as backend:
        backend.run(*crops(2))
    assert [name for name, _ in calls] == ["compile_model"] + ["import_model"] * 3
    assert [settings["INFERENCE_PRECISION_HINT"] for _, settings in calls] == ["f32"] * 4
    assert [settings["NUM_STREAMS"] for _, settings in calls] == [1, 2] * 2
    # Processes side by side would tie their threads to the same cores.
    assert not any(settings["ENABLE_CPU_PINNING"] for _, settings in calls)


def test_another_precision_than_was_asked_for_is_refused(opened, monkeypatch):
    own = openvino.CompiledModel.get_property

    def narrow(compiled, name):
        return openvino.Type.bf16 if name == "INFERENCE_PRECISION_HINT" else own(compiled, name)

    monkeypatch.setattr(openvino.CompiledModel, "get_property", narrow)
    with pytest.raises(BackendError, match=r"would compute model\.onnx in bf16") as error:
        open_backend("openvino", opened, 1)
    assert "f32" in error.value.why and "onnxruntime-cpu" in error.value.fix


def test_results_are_not_written_over_by_the_next_call(opened):
    with contextlib.closing(OpenVinoBackend(opened, 2)) as backend:
        for count in (1, 4):
            found = backend.run(*crops(count))
            before = {name: array.copy() for name, array in found.items()}
            backend.run(*crops(count, seed=1))
            assert all((found[name] == before[name]).all() for name in found)
            assert any((found["vertices"] != backend.run(*crops(count, seed=1))["vertices"]).ravel())


def test_several_crops_are_run_side_by_side_and_the_rest_by_all_threads(opened, monkeypatch):
    queues, starts = [], []
    queue, own = openvino.AsyncInferQueue, openvino.AsyncInferQueue.start_async

    def start(self, feed, *given):
        starts.append(len(feed["crops"]))
        own(self, feed, *given)

    monkeypatch.setattr(openvino, "AsyncInferQueue", lambda *given: queues.append(given[1]) or queue(*given))
    monkeypatch.setattr(queue, "start_async", start)
    with contextlib.closing(OpenVinoBackend(opened, 2)) as backend:
        members = backend._graphs[0].members  # one where there is one core
        backend.run(*crops(1))
        assert not queues and backend.batch_size % members == 0
        backend.run(*crops(2 * members + 1))
        backend.run(*crops(2 * members))
    assert starts == [1] * (4 * members if members > 1 else 0) and queues == [members] * (members > 1)


def test_several_threads_may_call_it_at_once(opened, monkeypatch):
    queues, queue = [], openvino.AsyncInferQueue
    monkeypatch.setattr(openvino, "AsyncInferQueue", lambda *given: queues.append(given) or queue(*given))
    given = [crops(count, seed=count) for count in (1, 5, 1, 7, 1, 5, 1, 3)]
    with contextlib.closing(OpenVinoBackend(opened, 2)) as backend:
        alone = [backend.run(*each)["vertices"] for each in given]
        with ThreadPoolExecutor(4) as workers:
            together = list(workers.map(lambda each: backend.run(*each)["vertices"], given))
        assert len(queues) <= 1  # those who come at once wait for one another
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 2])
def test_failures_carry_openvinos_words_and_nothing_else_fails(opened, count):
    backend, (images, cameras), done = OpenVinoBackend(opened, 2), crops(count), []

    def work():
        good = backend.run(images, cameras)["vertices"]
        for _ in range(3):
            with pytest.raises(BackendError, match=f"openvino failed on {count} crops") as error:
                backend.run(images[:, :128, :128], cameras)
            assert "128" in error.value.why
        np.testing.assert_array_equal(backend.run(images, cameras)["vertices"], good)
        done.append(True)

    # Requests that got lost in a failure are waited for without end.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(60)
    assert done


RUNS_OUT = """
import sys, types
import numpy as np
from glnet_infer import BackendError
from glnet_infer.backends.openvino import OpenVinoBackend, graphs
from glnet_infer.bundle import Bundle
backend, calls = OpenVinoBackend(Bundle.open(sys.argv[1]), 2), []
given = np.zeros((9, 256, 256, 3), np.uint8), np.ones((9, 4), np.float32)
before = backend.run(*given)["vertices"]
def array(data):
    calls.append(data.shape)
    if len(calls) == 2:
        raise MemoryError("Unable to allocate 2 MiB")
    return np.array(data)
graphs.np = types.SimpleNamespace(array=array)
try:
    backend.run(*given)
except BackendError as error:
    print(error.what, error.why, error.fix, sep="|", flush=True)
assert np.array_equal(backend.run(*given)["vertices"], before)
"""


def test_a_copy_without_memory_ends_one_call_and_not_the_process(kept):
    """Copies are made in threads of OpenVINO's, where an exception would abort the process."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS_OUT, str(kept)], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done
    what, why, fix = done.stdout.split("|")
    assert what == "openvino failed on 9 crops." and "allocate 2 MiB" in why and "free memory if it ran out" in fix


def test_a_closed_one_says_so_and_closes_twice(opened):
    backend = OpenVinoBackend(opened, 1)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="openvino backend is closed"):
        backend.run(*crops(1))


def test_what_is_closed_is_freed(opened):
    backend = OpenVinoBackend(opened, 2)
    backend.run(*crops(5))
    graph = weakref.ref(backend._graphs[0])
    backend.close()
    gc.collect()
    assert graph() is None


def test_models_are_not_held_beside_what_was_compiled(opened, calls, monkeypatch):
    read, own = [], GraphModel.read

    def noted(self, part):
        model = own(self, part)
        read.append(weakref.ref(model))
        return model

    monkeypatch.setattr(GraphModel, "read", noted)
    with contextlib.closing(OpenVinoBackend(opened, 2, keep=False)) as backend:
        alone = np.concatenate([backend.run(*(each[i : i + 1] for each in crops(4)))["vertices"] for i in range(4)])
        gc.collect()
        assert len(read) == 1 and read[0]() is None
        np.testing.assert_allclose(backend.run(*crops(4))["vertices"], alone, atol=5e-5)  # metres; sums in another order
        gc.collect()
        assert not any(model() for model in read)


def test_threads_that_come_at_once_get_one_core(monkeypatch):
    made = []

    def slow():
        time.sleep(0.2)
        made.append(object())
        return made[-1]

    monkeypatch.setattr(openvino, "Core", slow)
    monkeypatch.setattr("glnet_infer.backends.openvino.library._cores", [])
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(lambda _: core(), range(8)))
    assert len(made) == 1 and all(each is made[0] for each in found)


ENDS = """
import signal, sys, threading
from glnet_infer.backends.openvino import OpenVinoBackend
from glnet_infer.bundle import Bundle
bundle = Bundle.open(sys.argv[1])
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
kept = [OpenVinoBackend(bundle, 1), OpenVinoBackend(bundle, 1)]
if sys.argv[2] == "in turn":
    del kept[0]
    del kept[0]
else:
    worker = threading.Thread(target=kept.clear)
    worker.start()
    worker.join()
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("end", ["in turn", "in another thread"])
def test_signals_are_handled_after_backends_ended(kept, end):
    """Each core has a stack for signals unmapped when it ends, which the thread may still have then."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(kept), end], capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done


def test_auto_does_not_take_it(opened, monkeypatch):
    monkeypatch.setattr("glnet_infer.devices.gpus", list)
    assert not kinds()["openvino"].automatic and kinds()["openvino"].state() == "available"
    with MeshRecoverer(opened) as recoverer:
        assert recoverer.backend == "onnxruntime-cpu"
    with MeshRecoverer(opened, "openvino", threads=1) as recoverer:
        assert "openvino" in repr(recoverer) and not recoverer.backend_reason


class TestWhatIsKept:
    @pytest.fixture
    def bundle(self, kept, tmp_path):
        return shutil.copytree(kept, tmp_path / "kept")

    @pytest.mark.parametrize("change", ["damaged", "short", "other version", "other processor"])
    def test_what_does_not_fit_is_compiled_anew_and_replaced(self, bundle, calls, monkeypatch, change):
        [file] = (bundle / "cache").iterdir()
        good = OpenVinoBackend(Bundle.open(bundle), 1).run(*crops(1))
        assert [name for name, _ in calls] == ["import_model"]
        content = file.read_bytes()
        if change == "damaged":
            file.write_bytes(content[:-4000] + bytes(4000))
        elif change == "short":
            file.write_bytes(content[:20])
        elif change == "other version":
            monkeypatch.setattr(openvino, "get_version", lambda: "2027.0")
        else:
            monkeypatch.setattr("glnet_infer.backends.openvino.graphs.cpu_flags", lambda: frozenset({"fpu"}))
        backend = OpenVinoBackend(Bundle.open(bundle), 1)
        assert [name for name, _ in calls] == ["import_model", "compile_model"]
        np.testing.assert_array_equal(backend.run(*crops(1))["vertices"], good["vertices"])
        OpenVinoBackend(Bundle.open(bundle), 1)
        assert calls[-1][0] == "import_model"  # it was replaced

    def test_it_goes_to_the_user_where_the_bundle_cannot_be_written(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
        shutil.rmtree(bundle / "cache")
        (bundle / "cache").write_bytes(b"a file where the folder would be")  # root may write anywhere else
        OpenVinoBackend(Bundle.open(bundle), 1)
        assert len(list((tmp_path / "user-cache/glnet-infer").iterdir())) == 1

    def test_what_does_not_fit_in_the_bundle_hides_nothing_of_the_users(self, bundle, calls, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
        shutil.copytree(bundle / "cache", tmp_path / "user-cache/glnet-infer")
        [file] = (bundle / "cache").iterdir()
        file.write_bytes(b"outdated")
        OpenVinoBackend(Bundle.open(bundle), 1)
        assert [name for name, _ in calls] == ["import_model"] and file.read_bytes() == b"outdated"

    def test_nothing_is_kept_where_that_is_not_wanted(self, bundle, calls):
        shutil.rmtree(bundle / "cache")
        OpenVinoBackend(Bundle.open(bundle), 1, keep=False)
        assert not (bundle / "cache").exists() and [name for name, _ in calls] == ["compile_model"]


def test_the_graph_that_was_checked_is_the_one_that_runs(kept, tmp_path):
    bundle = shutil.copytree(kept, tmp_path / "bundle", ignore=shutil.ignore_patterns("cache"))
    opened = Bundle.open(bundle)
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").write_bytes(b"another bundle's")
    assert len(OpenVinoBackend(opened, 1).run(*crops(1))["vertices"]) == 1


@pytest.mark.parametrize("left_out", ["cache", "nothing"])
def test_a_graph_that_is_written_over_is_refused(kept, tmp_path, left_out):
    """Also where what was compiled of it before is kept."""
    bundle = shutil.copytree(kept, tmp_path / "bundle", ignore=shutil.ignore_patterns(left_out))
    opened = Bundle.open(bundle)
    with (bundle / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    with pytest.raises(BundleError, match="is not the file that the manifest describes"):
        OpenVinoBackend(opened, 1)


FORKS = """
import os, signal, sys
import numpy as np
from glnet_infer import BackendError
from glnet_infer.backends.openvino import OpenVinoBackend
from glnet_infer.bundle import Bundle
bundle = Bundle.open(sys.argv[1])
backend = OpenVinoBackend(bundle, 2)
given = np.zeros((3, 256, 256, 3), np.uint8), np.ones((3, 4), np.float32)
before = backend.run(*given)["vertices"]
for action in ("use", "close", "leave", "own"):
    child = os.fork()
    if not child:
        signal.alarm(30)  # seconds: who waits for threads that are not there waits for ever
        if action == "use":
            try:
                backend.run(*given)
                sys.exit(3)
            except BackendError as error:
                sys.exit(0 if "opened in another process" in error.what else 4)
        if action == "close":
            backend.close()
            del backend
        if action == "own":
            own = OpenVinoBackend(bundle, 2)
            sys.exit(0 if np.array_equal(own.run(*given)["vertices"], before) else 5)
        sys.exit(0)
    print(action, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
assert np.array_equal(backend.run(*given)["vertices"], before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_are_refused_and_end_and_may_open_their_own(kept):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(kept)], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0 and done.stdout.split() == ["use", "0", "close", "0", "leave", "0", "own", "0"], done


def test_it_is_not_copied_or_sent(opened):
    with pytest.raises(BackendError, match="OpenVinoBackend cannot be copied or sent"):
        OpenVinoBackend(opened, 1).__reduce_ex__(4)


def test_it_does_not_report_itself(tmp_path):
    """Importing OpenVINO sends an event by another package, which notes here that it was used."""
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry/__init__.py").write_text("print('reported')\nclass Telemetry:\n    pass\n")
    code = "from glnet_infer.backends.openvino.library import import_openvino; print(import_openvino().Core.__name__)"
    code += "; import openvino_telemetry"  # others may import it afterwards
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert done.stdout.split() == ["Core", "reported"], done
    assert [path.name for path in tmp_path.iterdir()] == ["openvino_telemetry"]  # nothing in the user's folder


@pytest.mark.parametrize(
    "what, words", [(None, "is not installed"), (ImportError("libtbb.so.12: no such file"), "cannot be loaded")]
)
def test_a_missing_or_broken_one_says_what_to_install(opened, monkeypatch, what, words):
    if what is None:
        monkeypatch.setitem(sys.modules, "openvino", None)
    else:
        monkeypatch.delitem(sys.modules, "openvino")

        class Broken:
            @staticmethod
            def find_spec(name, *_):
                if name == "openvino":
                    raise what

        monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(BackendError, match=f"OpenVINO {words}") as error:
        open_backend("openvino", opened)
    assert "[openvino]" in error.value.fix
    assert describe().startswith("cannot be loaded")
