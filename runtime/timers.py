"""bpf_timer: callbacks that a program sets, run later on a thread of their own.

A timer is known by the address of its struct bpf_timer in a map value. With a clock of one's own (`timers.clock = ...`) there
is no thread: `timers.fire()` runs what that clock says is due, so that a run can be repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EBUSY, EINVAL
from typing import TYPE_CHECKING, Final, final

from runtime.epoch import epochs

if TYPE_CHECKING:
    from runtime.maps.view import View

_CLOCKS: Final = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)
_ABSOLUTE: Final = 1
_PIN: Final = 2

Run = Callable[[int, "View", int], None]  # callback address, map, timer address


@final
@dataclass(slots=True)
class Timer:
    """One timer: due at `deadline` ns of its clock, when set."""

    map: View
    clock: int
    callback: int = 0
    deadline: int | None = None


@final
@dataclass
class Timers:
    """The timers of one started object. `run` calls a callback; `errors` keeps what that raised."""

    run: Run
    clock: Callable[[int], int] = time.clock_gettime_ns
    errors: list[BaseException] = field(default_factory=list)
    _known: dict[int, Timer] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _closed: bool = False

    def init(self, address: int, map: View, flags: int) -> int:
        """bpf_timer_init: 0, -EBUSY, -EINVAL."""
        if flags not in _CLOCKS:
            return -EINVAL
        with self._changed:
            if address in self._known:
                return -EBUSY
            self._known[address] = Timer(map, flags)
        return 0

    def set_callback(self, address: int, callback: int) -> int:
        """bpf_timer_set_callback: 0 or -EINVAL."""
        with self._changed:
            timer = self._known.get(address)
            if timer is None:
                return -EINVAL
            timer.callback = callback
        return 0

    def start(self, address: int, ns: int, flags: int) -> int:
        """bpf_timer_start: 0 or -EINVAL."""
        with self._changed:
            timer = self._known.get(address)
            if timer is None or not timer.callback or flags & ~(_ABSOLUTE | _PIN):
                return -EINVAL
            timer.deadline = ns if flags & _ABSOLUTE else self.clock(timer.clock) + ns
            if self._thread is None and self.clock is time.clock_gettime_ns and not self._closed:
                self._thread = threading.Thread(target=self._work, name="bpfc-timers", daemon=True)
                self._thread.start()
            self._changed.notify()
        return 0

    def cancel(self, address: int) -> int:
        """bpf_timer_cancel: 1 when it was set, 0 when not, -EINVAL."""
        with self._changed:
            timer = self._known.get(address)
            if timer is None:
                return -EINVAL
            was_set = timer.deadline is not None
            timer.deadline = None
        return int(was_set)

    def fire(self) -> int:
        """Run the callbacks that are due now, the earliest first; how many."""
        count = 0
        while self._fire_one():
            count += 1
        return count

    def _fire_one(self) -> bool:
        """Run what is due first, if anything is. The thread counts as inside from before it knows what it will call."""
        with epochs().reader():
            due = self._take()
            if due is None:
                return False
            address, timer = due
            try:
                self.run(timer.callback, timer.map, address)
            except Exception as error:  # noqa: BLE001  # nobody waits for a timer: kept for who asks
                self.errors.append(error)
        return True

    def calls_into(self, start: int, end: int) -> bool:
        """Whether a timer has its callback in code at [start, end)."""
        with self._changed:
            return any(start <= timer.callback < end for timer in self._known.values())

    def end(self) -> None:
        """From now on no callback is entered; who is in one is so until the next grace period ends (runtime/epoch)."""
        with self._changed:
            self._closed = True
            self._known.clear()
            self._changed.notify()

    def close(self) -> None:
        """Stop; closing twice is fine."""
        self.end()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _take(self) -> tuple[int, Timer] | None:
        with self._changed:
            due = [
                (timer.deadline, address)
                for address, timer in self._known.items()
                if timer.deadline is not None and timer.deadline <= self.clock(timer.clock)
            ]
            if not due or self._closed:
                return None
            address = min(due)[1]
            self._known[address].deadline = None
            return address, self._known[address]

    def _work(self) -> None:
        while True:
            self.fire()
            with self._changed:
                if self._closed:
                    return
                waits = [
                    timer.deadline - self.clock(timer.clock)
                    for timer in self._known.values()
                    if timer.deadline is not None
                ]
                self._changed.wait(max(min(waits), 0) / 1e9 if waits else None)
