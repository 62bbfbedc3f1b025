"""When nobody can be in old code any more: threads say when they are in programs, others wait for them.

    reader     depth 0 --enter--> 1 --enter--> 2 --leave--> 1 --leave--> 0      left + 1
    grace      every reader that was inside when it began has left once since

What was made unreachable before a grace period began is in nobody's hands after it ended. Entering costs two
attributes of an object of the thread's own: no lock, no system call, no memory that others write to. A
batch that loops natively is one stay. Threads that the runtime does not know (a hooked function may be
called by any) are not readers: images that such threads run count them natively, and `retire` is told how
to see that count.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Final, final

from ir.diagnostics import Diagnostic, RejectedError, UnsupportedError
from runtime.progress import Progress

_FIRST_NAP: Final = 20e-6
_LONGEST_NAP: Final = 2e-3
_LOOK_EVERY: Final = 2e-3


@final
class Reader:
    """One thread's stays in programs. Only its own thread enters and leaves.

    A hot caller may write `enter` and `leave` out; in a `try: ... finally: ...`:

        reader.depth += 1
        reader.depth -= 1; if not reader.depth: reader.left += 1
    """

    __slots__ = ("__weakref__", "depth", "left")

    def __init__(self) -> None:
        self.depth = 0
        self.left = 0

    def enter(self) -> None:
        """From here on, code that can be reached stays in memory."""
        self.depth += 1

    def leave(self) -> None:
        """The thread holds no address of code any more, unless it entered more than once."""
        self.depth -= 1
        if not self.depth:
            self.left += 1

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


@final
class Grace:
    """A grace period, from now on."""

    def __init__(self, readers: list[Reader]) -> None:
        # `left` is read before `depth`: who leaves in between is waited for in vain once, never missed.
        stays = [(reader, reader.left) for reader in readers]
        self._inside = [(reader, left) for reader, left in stays if reader.depth]

    @property
    def is_over(self) -> bool:
        """Whether all who were inside at the start have left since."""
        self._inside = [stay for stay in self._inside if stay[0].depth and stay[0].left == stay[1]]
        return not self._inside

    @property
    def readers(self) -> list[Reader]:
        """Who has not left yet."""
        return [reader for reader, _ in self._inside]


@final
class _Retired:
    """Something to free, and how many grace periods it still has to see."""

    def __init__(
        self, close: Callable[[], None], is_idle: Callable[[], bool], grace: Grace, by_anyone: bool
    ) -> None:
        self.close = close
        self.is_idle = is_idle
        self.grace = grace
        self.by_anyone = by_anyone
        self.is_last = False


@final
class Epochs:
    """Knows the readers of the process, waits for them, frees what they have left. Owns what was retired."""

    def __init__(self) -> None:
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._local = threading.local()
        self._lock = threading.RLock()
        self._retired: list[_Retired] = []
        self._unseen: list[_Retired] = []  # may be entered by threads that are no readers
        self._watched: list[_Retired] = []  # those of them that `_progress` is for
        self._progress: Progress | None = None
        self._looked = 0.0
        os.register_at_fork(after_in_child=self._forget_other_threads)

    def reader(self) -> Reader:
        """The calling thread's reader; keep it for the thread, asking costs more than entering."""
        found: Reader | None = getattr(self._local, "reader", None)
        if found is None:
            found = self._local.reader = Reader()
            with self._lock:
                self._readers.add(found)
        return found

    def synchronize(self, timeout: float | None = None) -> None:
        """Wait until every thread that is inside now has left once.

        RejectedError (EDEADLK) when the caller is inside itself; UnsupportedError (ETIMEDOUT) after `timeout`
        seconds.
        """
        if self.reader().depth:
            message = "a program can't wait for itself to end"
            raise RejectedError([Diagnostic("waits-for-itself", message, errno=errno.EDEADLK)])
        grace = self._grace()
        self._wait(lambda: grace.is_over, timeout)

    def retire(
        self, close: Callable[[], None], is_idle: Callable[[], bool] = lambda: True, by_anyone: bool = False
    ) -> None:
        """Call `close` once nobody can be in what it frees; the caller has made that unreachable.

        After one grace period `is_idle` is asked until it says yes (an image that counts its own callers looks at
        the count), and after one more the memory goes. With `by_anyone`, threads may be on the way in or out that are
        no readers: before and after, all must have moved on (`runtime/progress`). Nothing waits here: it happens in a
        later `collect`.
        """
        with self._lock:
            item = _Retired(close, is_idle, self._grace(), by_anyone)
            (self._unseen if by_anyone else self._retired).append(item)
        self.collect()

    def collect(self) -> int:
        """Free what has become free; how much is left to wait for."""
        due: list[_Retired] = []
        with self._lock:
            self._watch()
            left_over: list[_Retired] = []
            for item in self._retired:
                was_last = item.is_last
                if self._is_due(item):
                    due.append(item)
                elif item.is_last and not was_last and item.by_anyone:
                    self._unseen.append(item)
                else:
                    left_over.append(item)
            self._retired = left_over
            left = len(self._retired) + len(self._unseen) + len(self._watched)
        for item in due:
            item.close()
        return left

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all that was retired is freed; UnsupportedError (ETIMEDOUT) after `timeout` seconds."""
        self._wait(lambda: self.collect() == 0, timeout)

    def _watch(self) -> None:
        """Go on with what other threads have moved on from. One look is for all that was retired before it began."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        if self._progress is not None and self._progress.is_over:
            self._retired += self._watched
            self._watched, self._progress = [], None
        if self._progress is None and self._unseen:
            self._watched, self._unseen = self._unseen, []
            self._progress = Progress()

    def _is_due(self, item: _Retired) -> bool:
        while item.grace.is_over:
            if item.is_last:
                return True
            if not item.is_idle():
                return False
            item.grace = self._grace()
            item.is_last = True
            if item.by_anyone:
                return False
        return False

    def _grace(self) -> Grace:
        with self._lock:
            return Grace(list(self._readers))

    def _wait(self, is_done: Callable[[], bool], timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        nap = _FIRST_NAP
        while not is_done():
            if end is not None and time.monotonic() > end:
                message = f"programs did not end within {timeout} s"
                raise UnsupportedError([Diagnostic("programs-still-run", message, errno=errno.ETIMEDOUT)])
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)

    def _forget_other_threads(self) -> None:
        """After a fork the child has one thread."""
        own: Reader | None = getattr(self._local, "reader", None)
        self._lock = threading.RLock()
        self._readers = weakref.WeakSet([own] if own is not None else [])


@cache
def epochs() -> Epochs:
    """The epochs of this process."""
    return Epochs()
