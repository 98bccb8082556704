"""One engine and several threads: what is refused, what waits, and what clones share."""

import gc
import threading

import numpy as np
import pytest
from tensorrt_stand_in import BOXES, batch, bundle_of, frame_of, install_tensorrt, read, refused, right

from glnet_infer import BackendError, MeshRecoverer
from glnet_infer.backends.tensorrt import TensorRtBackend


def test_a_second_thread_is_refused_while_one_runs(either, machine):
    with TensorRtBackend(either, cuda_graphs=False) as backend:
        running, may_end = threading.Event(), threading.Event()

        def wait():
            running.set()
            assert may_end.wait(5)

        machine.during_execution = wait
        first = threading.Thread(target=lambda: backend.run(*batch(2)))
        first.start()
        assert running.wait(5)
        refused(lambda: backend.run(*batch(2)), "running in another thread", "clone()")
        may_end.set()
        first.join()
        crops, cameras = batch(2)
        right(backend.run(crops, cameras), crops, cameras)


def test_a_thread_after_the_other_may_use_it(either):
    crops, cameras = batch(3)
    with TensorRtBackend(either) as backend:
        found = []
        threads = [threading.Thread(target=lambda: found.append(backend.run(crops, cameras))) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
    assert len(found) == 2
    for outputs in found:
        right(outputs, crops, cameras)


def test_closing_waits_for_the_run(classic, machine):
    backend = TensorRtBackend(classic, cuda_graphs=False)
    running, may_end, found = threading.Event(), threading.Event(), []

    def wait():
        running.set()
        assert may_end.wait(5)

    machine.during_execution = wait
    crops, cameras = batch(2)
    runner = threading.Thread(target=lambda: found.append(backend.run(crops, cameras)))
    runner.start()
    assert running.wait(5)
    closer = threading.Thread(target=backend.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive() and machine.memory
    may_end.set()
    runner.join()
    closer.join(5)
    right(found[0], crops, cameras)
    assert not machine.memory


def test_clones_share_the_engine_and_nothing_else(either, machine):
    with TensorRtBackend(either) as first, first.clone() as second:
        assert len(machine.named("deserialize")) == 1 and first.name == second.name
        assert len(machine.streams) == 2
        addresses = [address for context in machine.contexts for address in context._addresses.values()]
        assert len(machine.contexts) == 2 and len(set(addresses)) == len(addresses)
        running, may_end, found = threading.Event(), threading.Event(), []

        def wait():
            if threading.current_thread() is thread:
                running.set()
                assert may_end.wait(5)

        machine.during_execution = wait
        one, other = batch(3), batch(3, seed=1)
        thread = threading.Thread(target=lambda: found.append(first.run(*one)))
        thread.start()
        assert running.wait(5)
        right(second.run(*other), *other)  # while the first one is at work
        may_end.set()
        thread.join()
        right(found[0], *one)


@pytest.mark.parametrize("first_to_close", [0, 1])
def test_clones_close_in_any_order(either, machine, first_to_close):
    first = TensorRtBackend(either)
    pair = [first, first.clone()]
    pair.pop(first_to_close).close()
    crops, cameras = batch(3)
    right(pair[0].run(crops, cameras), crops, cameras)
    third = pair[0].clone()
    pair[0].close()
    right(third.run(crops, cameras), crops, cameras)
    third.close()
    assert not machine.memory and not machine.streams
    with pytest.raises(BackendError, match="closed"):
        first.clone()
    with pytest.raises(BackendError, match="closed"):
        first._engine.share()  # what a clone meets that comes while the last one closes


def test_a_clone_that_fails_leaves_nothing_behind(either, machine):
    with TensorRtBackend(either) as backend:
        before = len(machine.memory)
        machine.trouble = {"create_execution_context"}
        refused(backend.clone, "no execution context")
        machine.trouble = {"device"}
        refused(backend.clone, "start the GPU")
        machine.trouble = set()
        assert len(machine.memory) == before and len(machine.streams) == 1
    assert not machine.memory and backend._engine.main._engine is None  # the failed clones do not count as users


def test_closing_in_a_signals_handler_waits_for_the_run_that_it_interrupted(classic, machine):
    """Handlers run in the main thread, in the middle of its work: a lock would wait for ever."""
    backend = TensorRtBackend(classic, cuda_graphs=False)
    machine.during_execution = backend.close
    crops, cameras = batch(2)
    right(backend.run(crops, cameras), crops, cameras)
    assert not machine.memory and not machine.streams
    with pytest.raises(BackendError, match="is closed"):
        backend.run(crops, cameras)


OTHERS = 0xA1
"""A context of another library's: pycuda.autoinit's, or that of another GPU which torch has chosen."""


@pytest.mark.parametrize("context", [0, OTHERS])
def test_the_callers_context_is_current_again_after_every_call(machine, monkeypatch, tmp_path, context):
    install_tensorrt(monkeypatch, machine)
    bundle = bundle_of(tmp_path / "bundle")
    machine.current.context = context

    def kept(call):
        result = call()
        assert machine.current_context() == context, call
        return result

    recoverer = kept(lambda: MeshRecoverer(bundle.directory, "tensorrt"))
    backend = recoverer._backend
    meshes = kept(lambda: recoverer(frame_of(), BOXES))
    kept(lambda: meshes.device.vertices.__dlpack__())
    kept(lambda: backend.run(*batch(2)))
    other = kept(backend.clone)
    machine.trouble = {"sync"}
    kept(lambda: refused(lambda: backend.run(*batch(2)), "a kernel failed"))
    machine.trouble = set()
    kept(other.close)
    kept(recoverer.close)
    machine.trouble = {"deserialize_cuda_engine"}
    kept(lambda: refused(lambda: TensorRtBackend(bundle), "does not load"))


def test_a_backend_that_nobody_holds_is_closed(rtx, machine):
    backend = TensorRtBackend(rtx)
    clone = backend.clone()
    backend.run(*batch(2))
    del backend
    gc.collect()
    assert machine.memory and not (rtx.directory / "cache").exists()  # the clone's, and the engine it still uses
    del clone
    gc.collect()
    assert not machine.memory and not machine.streams
    assert len(list((rtx.directory / "cache").iterdir())) == 1  # compiled kernels, for the next start


def test_results_on_the_gpu_hold_on_to_the_backend(machine, monkeypatch, tmp_path):
    install_tensorrt(monkeypatch, machine)
    device = MeshRecoverer(bundle_of(tmp_path / "bundle").directory, "tensorrt")(frame_of(), BOXES).device
    gc.collect()
    assert np.isfinite(read(machine, device.vertices)).all()
    del device
    gc.collect()
    assert not machine.memory


def test_contexts_go_before_the_engine_and_its_kernels(either, machine):
    backend = TensorRtBackend(either)
    backend.run(*batch(2))
    plan, session = backend._engine.main, backend._open()
    close, left = plan.close, []
    plan.close = lambda: (left.append((len(session._contexts), len(machine.streams))), close())
    backend.close()
    assert left == [(0, 1)]


def test_closing_twice_and_running_after(either, machine):
    backend = TensorRtBackend(either)
    backend.run(*batch(2))
    backend.close()
    backend.close()
    assert not machine.memory and not machine.streams
    with pytest.raises(BackendError, match="is closed"):
        backend.run(*batch(2))
    with pytest.raises(BackendError, match="is closed"):
        backend.clone()
