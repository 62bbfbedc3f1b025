"""Grace periods: what was retired is freed after everybody who was inside has left, and not before."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ir.diagnostics import RejectedError, UnsupportedError
from runtime.epoch import Epochs, Reader


@contextmanager
def thread_inside(epochs: Epochs) -> Iterator[threading.Event]:
    """Another thread that is inside until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with epochs.reader():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait(10)
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def test_with_nobody_inside_retired_things_go_at_once() -> None:
    epochs, freed = Epochs(), []
    epochs.retire(lambda: freed.append("image"))
    assert freed == ["image"]


def test_a_thread_inside_holds_back_what_was_retired() -> None:
    epochs, freed = Epochs(), []
    with thread_inside(epochs) as leave:
        epochs.retire(lambda: freed.append("image"))
        assert epochs.collect() == 1
        assert freed == []
        leave.set()
        epochs.drain(10)
    assert freed == ["image"]


def test_synchronize_waits_for_those_inside_only() -> None:
    epochs = Epochs()
    with thread_inside(epochs) as leave:
        with pytest.raises(UnsupportedError) as caught:
            epochs.synchronize(timeout=0.02)
        assert caught.value.errno == errno.ETIMEDOUT
        leave.set()
        epochs.synchronize(timeout=10)


def test_one_leave_is_enough_though_the_thread_enters_again() -> None:
    epochs, freed = Epochs(), []
    reader = epochs.reader()
    reader.enter()
    epochs.retire(lambda: freed.append("image"))
    reader.leave()
    reader.enter()
    assert epochs.collect() == 1  # the second grace period began while the reader was inside again
    reader.leave()
    assert epochs.collect() == 0
    assert freed == ["image"]


def test_a_nested_leave_is_none() -> None:
    reader = Reader()
    with reader:
        with reader:
            pass
        assert (reader.depth, reader.left) == (1, 0)
    assert (reader.depth, reader.left) == (0, 1)


def test_an_image_that_counts_its_callers_stays_until_they_are_gone() -> None:
    epochs, freed, callers = Epochs(), [], [2]
    epochs.retire(lambda: freed.append("image"), is_idle=lambda: callers[0] == 0)
    assert (epochs.collect(), freed) == (1, [])
    callers[0] = 0
    assert (epochs.collect(), freed) == (0, ["image"])


def test_waiting_for_oneself_is_refused() -> None:
    epochs = Epochs()
    with epochs.reader(), pytest.raises(RejectedError) as caught:
        epochs.synchronize()
    assert caught.value.errno == errno.EDEADLK


def test_a_thread_that_ended_is_not_waited_for() -> None:
    epochs = Epochs()
    thread = threading.Thread(target=lambda: epochs.reader().enter())
    thread.start()
    thread.join()
    epochs.synchronize(timeout=10)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_it_does_not_have() -> None:
    epochs = Epochs()
    with thread_inside(epochs):
        child = os.fork()
        if not child:
            epochs.synchronize(timeout=5)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
