"""Whether all threads of the process have moved on since a moment, those too that the runtime does not know.

A thread that has just loaded a code address, or counted itself out and not left yet, is a few instructions from where it
no longer matters, none of which waits for anything. It is past them when it sleeps in a system call, has ended, or has
run for a while since. One that is stopped or gets no processor in between is waited for. Source: proc(5), and
Documentation/scheduler/sched-stats.rst (schedstat: nanoseconds on a processor first).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final, final

_ENOUGH: Final = 20_000_000  # ns on a processor; a virtual one may not really run for some of them
_BLIND: Final = 1.0  # seconds to wait where threads cannot be looked at
_UNKNOWN: Final = -1
_TASKS: Final = Path("/proc/self/task")


@final
class Progress:
    """The threads that have to move on, from now on; the calling thread has."""

    def __init__(self) -> None:
        self._end = time.monotonic() + _BLIND
        self._left: dict[str, int] = {}
        own = str(threading.get_native_id())
        try:
            tasks = [task for task in os.listdir(_TASKS) if task != own]
        except OSError:
            self._left[""] = _UNKNOWN  # of all threads
            return
        found = {task: _run_time(task) for task in tasks}
        self._left = {task: ns for task, ns in found.items() if ns is not None and not _sleeps(task)}

    @property
    def is_over(self) -> bool:
        """Whether all have."""
        is_late = time.monotonic() > self._end
        for task, start in list(self._left.items()):
            now = _run_time(task) if task else _UNKNOWN
            is_past = now is None or (task and _sleeps(task))
            if not is_past and now is not None:
                is_past = is_late if _UNKNOWN in (start, now) else now - start > _ENOUGH
            if is_past:
                del self._left[task]
        return not self._left


def _run_time(task: str) -> int | None:
    """Nanoseconds that a thread has been on a processor; _UNKNOWN where nothing says, None when it has ended."""
    try:
        return int((_TASKS / task / "schedstat").read_bytes().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return _UNKNOWN if (_TASKS / task).exists() else None
    except (PermissionError, IndexError, ValueError):
        return _UNKNOWN


def _sleeps(task: str) -> bool:
    """Whether a thread waits in a system call; it has ended when nothing can be read."""
    try:
        status = (_TASKS / task / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except PermissionError:
        return False
    return status[status.rindex(b")") + 2 : status.rindex(b")") + 3] == b"S"
