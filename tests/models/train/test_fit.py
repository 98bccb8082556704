"""How a training is asked to stop."""

import signal

import pytest

from glnet_train.fit.loop import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_is_the_callers_again(number):
    before = []
    previous = signal.signal(number, lambda *_: before.append("the caller's"))
    heard = []
    stop = Stop(lambda: heard.append("asked"))
    try:
        with stop.listening():
            assert not stop.asked
            signal.raise_signal(number)
            assert stop.asked and heard == ["asked"] and not before
            signal.raise_signal(number)
            assert heard == ["asked"] and len(before) == 1
        signal.raise_signal(number)
        assert len(before) == 2
    finally:
        signal.signal(number, previous)


@pytest.mark.parametrize("error", [BrokenPipeError, SystemExit])
def test_what_cannot_be_told_does_not_end_the_training(error):
    """As when Ctrl-C ends ``tee`` too, and a message has no reader any more."""

    def heard() -> None:
        raise error(1)

    stop = Stop(heard)
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
    assert stop.asked
