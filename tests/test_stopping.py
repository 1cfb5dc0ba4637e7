"""Signals that end a run, wherever they find it."""

import signal
import sys
import threading
import time
import weakref

import pytest

from eqprop.training.stopping import SIGNALS, Stopped, after_this_batch, at_once, handled


class Thing:
    """An object that a weak reference may have."""


class Destroyed:
    """An object during whose end a signal comes."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def in_a_destructor(number):
    """Python drops what the handler raises here."""
    it = Destroyed(number)
    del it


def in_a_weak_reference(number):
    """Python drops what the handler raises here, too."""
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    assert reference() is None


def met(place, number):
    """A signal comes at a place; waits long enough for one that is sent again."""
    place(number)
    for _ in range(500):
        time.sleep(0.01)


HEARD = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP


@pytest.mark.parametrize("number", HEARD, ids=lambda number: number.name)
@pytest.mark.parametrize("place", [in_a_destructor, in_a_weak_reference])
def test_a_signal_where_python_drops_exceptions_ends_the_process_a_moment_later(place, number):
    with pytest.raises(Stopped) as stopped, handled(at_once):
        met(place, number)
    assert stopped.value.status == 128 + number


@pytest.mark.parametrize("place", [in_a_destructor, in_a_weak_reference])
def test_the_second_signal_ends_a_run_wherever_it_comes(place):
    with after_this_batch(say=False) as stop:
        place(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(Stopped):
            met(place, signal.SIGTERM)


def loading():
    """Code of a library in whose middle a signal comes, and which raises an error of its own in its place."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        raise ValueError("could not determine the shape") from None


def test_an_error_that_a_library_makes_of_a_signal_is_the_signal():
    with pytest.raises(Stopped) as stopped, handled(at_once):
        loading()
    assert stopped.value.status == 128 + signal.SIGTERM
    with pytest.raises(ValueError, match="no signal"), handled(at_once):
        raise ValueError("no signal")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_dropped_exceptions_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda each: told.append(each.exc_type))

    class Bad:
        def __del__(self):
            raise ValueError("bad")

    with handled(at_once):
        it = Bad()
        del it
    assert told == [ValueError]


def test_handlers_and_hook_are_as_before_afterwards():
    before = [sys.unraisablehook, *map(signal.getsignal, HEARD)]
    with handled(at_once):
        assert sys.unraisablehook is not before[0]
    assert [sys.unraisablehook, *map(signal.getsignal, HEARD)] == before


def test_in_another_thread_nothing_is_changed():
    """There are no handlers there, and what Python drops is the main thread's."""
    seen = []

    def work():
        with handled(at_once):
            seen.append(sys.unraisablehook)

    before, thread = sys.unraisablehook, threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
