"""Steps in threads: in order, at the same time, in bounded memory; errors once, and no thread left behind."""

import gc
import os
import signal
import threading
import time
import weakref
from itertools import count, islice

import pytest

from glnet_infer.video.pipeline import Pipeline, each, on_interrupt


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")]


def pairs(items):
    """A step that takes two for one."""
    for first in items:
        yield first, next(items, None)


def test_results_come_in_order():
    with Pipeline(range(101), each(lambda x: x + 1), pairs, each(tuple)) as pipeline:
        results = list(pipeline)
    assert results == [*((i, i + 1) for i in range(1, 100, 2)), (101, None)]
    assert not pipeline.stopped and not pipeline.dropped


def test_without_steps_and_without_items():
    with Pipeline(range(5)) as pipeline:
        assert list(pipeline) == [0, 1, 2, 3, 4]
    with Pipeline([], each(str)) as pipeline:
        assert list(pipeline) == []


def test_steps_overlap():
    """All four meet at a barrier, with four different items in their hands: a step that waited for another breaks it."""
    barrier = threading.Barrier(4)

    def at(place):
        def pass_on(item):
            if item == 3 - place:
                barrier.wait(timeout=20)
            return item

        return pass_on

    with Pipeline(map(at(0), range(8)), *(each(at(place)) for place in (1, 2, 3))) as pipeline:
        assert list(pipeline) == list(range(8))


def test_busy_seconds():
    def work(item):
        time.sleep(0.01)
        return item

    with Pipeline(range(20), each(lambda item: item), each(work)) as pipeline:
        list(pipeline)
    assert pipeline.busy[2] >= 0.2  # the step that sleeps
    assert pipeline.busy[0] < 0.1 and pipeline.busy[1] < 0.1  # those that wait for it


def test_nobody_runs_ahead():
    taken = []

    def items():
        for item in count():
            taken.append(item)
            yield item

    with Pipeline(items(), each(lambda item: item), depth=3) as pipeline:
        results = iter(pipeline)
        assert next(results) == 0
        time.sleep(0.2)
        # Two queues of three, one item in each of two threads' hands, and the one that came out.
        assert len(taken) <= 2 * 3 + 2 + 1


class Picture:
    """Something that can be counted."""


def test_memory_is_flat():
    alive = weakref.WeakSet()
    most = 0

    def items():
        for _ in range(10_000):
            picture = Picture()
            alive.add(picture)
            yield picture
            del picture

    with Pipeline(items(), each(lambda item: item), each(lambda item: item), depth=2) as pipeline:
        for result in pipeline:
            most = max(most, len(alive))
            del result
    # Three queues of two; in each of three threads one that is held and one that its generator has let go late.
    assert most <= 3 * 2 + 3 * 2 + 2
    del pipeline
    gc.collect()
    assert not alive


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("place", range(4))
def test_an_error_ends_everything_and_is_raised_once(place):
    def at(here):
        def pass_on(item):
            if here == place and item == 30:
                raise BrokenError(here)
            return item

        return pass_on

    results = []
    with pytest.raises(BrokenError) as caught, Pipeline(map(at(0), count()), *(each(at(i)) for i in (1, 2, 3))) as pipeline:
        for item in pipeline:
            results.append(item)
    assert caught.value.args == (place,)
    assert results == list(range(len(results))) and len(results) <= 30


def test_an_error_of_the_user_of_the_results():
    with pytest.raises(BrokenError), Pipeline(count(), each(lambda item: item)) as pipeline:
        for item in pipeline:
            if item == 5:
                raise BrokenError


def test_a_step_may_end_before_its_items():
    with Pipeline(count(), each(lambda item: item), lambda items: islice(items, 7)) as pipeline:
        assert list(pipeline) == list(range(7))


def test_stop_gives_what_is_on_its_way():
    taken = []

    def items():
        for item in count():
            taken.append(item)
            yield item

    results = []
    with Pipeline(items(), each(lambda item: item), depth=3) as pipeline:
        for item in pipeline:
            results.append(item)
            if item == 10:
                pipeline.stop()
    # The item that was being taken is the only one that does not come.
    assert results == list(range(len(results))) and len(taken) - 1 <= len(results) <= len(taken)
    assert len(results) >= 11 and pipeline.stopped


def test_close_drops_what_is_on_its_way():
    pipeline = Pipeline(count(), each(lambda item: item))
    assert next(iter(pipeline)) == 0
    pipeline.close()
    assert list(pipeline) == []


def test_late_items_make_way():
    gate = threading.Event()

    def items():
        yield from range(100)
        gate.set()

    def slow(item):
        gate.wait()
        return item

    with Pipeline(items(), each(slow), depth=3, drop_late=True) as pipeline:
        results = list(pipeline)
    # The first was taken at once or lost; the newest three are kept.
    assert results[-3:] == [97, 98, 99] and len(results) in (3, 4)
    assert len(results) + pipeline.dropped == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_drains(number):
    found = signal.signal(number, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, which stays so
    results = []
    try:
        with Pipeline(count(), each(lambda item: item)) as pipeline, on_interrupt(pipeline.stop):
            for item in pipeline:
                results.append(item)
                if item == 20:
                    os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, found)
    assert pipeline.stopped and results == list(range(len(results))) and len(results) > 20


def test_a_second_interrupt_comes_through():
    asked = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), on_interrupt(lambda: asked.append(1)):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert asked == [1]


def test_an_interrupt_without_a_handler_ends_the_threads():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            Pipeline(iter(lambda: time.sleep(0.01), 1), each(lambda item: item)) as pipeline,
        ):
            for _ in pipeline:
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_signals_are_left_alone_in_other_threads():
    seen = []

    def work():
        with on_interrupt(lambda: seen.append("asked")):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
