"""Our own implementations of the helpers that run on the host: printing, time, who is running."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Mapping
from errno import E2BIG, EAGAIN, EFAULT, EINVAL, ENOENT
from typing import Final

from runtime.formatting import format_text
from runtime.helpers import HelperCall, Implementation
from runtime.probe import LONGEST_STRING, probe, probe_string

_COMM_SIZE: Final = 16


def trace_printk(call: HelperCall) -> int:
    """A line for the run's printk, from at most three arguments."""
    return _print(call, call.registers[2:5])


def trace_vprintk(call: HelperCall) -> int:
    """A line for the run's printk, from an array of u64."""
    return _print(call, _words(call, call.memory(2)))


def snprintf(call: HelperCall) -> int:
    """Format into memory, always NUL-ended; the length of the whole text and its NUL."""
    text = format_text(call.string(2), _words(call, call.memory(3)), _read) + b"\0"
    out = call.memory(0)
    if out.nbytes:
        kept = text if len(text) <= out.nbytes else text[: out.nbytes - 1] + b"\0"
        out[: len(kept)] = kept
    return len(text)


def get_current_pid_tgid(call: HelperCall) -> int:
    """tgid << 32 | pid of the calling thread."""
    return os.getpid() << 32 | threading.get_native_id()


def get_ns_current_pid_tgid(call: HelperCall) -> int:
    """pid and tgid of the calling thread, whatever namespace is asked about."""
    out = call.memory(2)
    if out.nbytes != 8:
        return -EINVAL
    order = call.execution.order
    out[:] = threading.get_native_id().to_bytes(4, order) + os.getpid().to_bytes(4, order)
    return 0


def get_current_uid_gid(call: HelperCall) -> int:
    """gid << 32 | uid."""
    return os.getgid() << 32 | os.getuid()


def get_current_comm(call: HelperCall) -> int:
    """The name of this process, NUL-ended."""
    with open("/proc/self/comm", "rb") as file:
        name = file.read().strip()[: _COMM_SIZE - 1]
    out = call.memory(0)
    name = name[: out.nbytes - 1]
    out[:] = name.ljust(out.nbytes, b"\0")
    return 0


def clock(number: int) -> Implementation:
    """The time of a POSIX clock in ns."""

    def read(call: HelperCall) -> int:
        return time.clock_gettime_ns(number)

    return read


def jiffies64(call: HelperCall) -> int:
    """Ticks of 4 ms since the system started (HZ 250), from 2^32 - 5 min on as Linux counts."""
    return (1 << 32) - 300 * 250 + time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 4_000_000


def zero(call: HelperCall) -> int:
    """Nothing to do, or nothing to tell."""
    return 0


def answer(errno: int) -> Implementation:
    """A helper that always fails here, as it may in a kernel."""

    def fail(call: HelperCall) -> int:
        return -errno

    return fail


def current_task_under_cgroup(call: HelperCall) -> int:
    """1 when slot r2 of a cgroup array was filled, for there is one task here; -EAGAIN when it was not."""
    from runtime.maps.slots import SlotView  # late: programs without maps have none

    view = call.map(0)
    index = call.number(1) & 0xFFFF_FFFF
    if index >= view.live.declared.max_entries:
        return -E2BIG
    return 1 if isinstance(view, SlotView) and index in view else -EAGAIN


def rc_keydown(call: HelperCall) -> int:
    """A line for the run's printk: the key that a remote control sent."""
    protocol, scancode, toggle = (call.number(index) for index in (1, 2, 3))
    call.execution.printk.append(f"rc_keydown protocol {protocol} scancode {scancode:#x} toggle {toggle}")
    return 0


def rc_repeat(call: HelperCall) -> int:
    """A line for the run's printk: the last key once more."""
    call.execution.printk.append("rc_repeat")
    return 0


def rc_pointer_rel(call: HelperCall) -> int:
    """A line for the run's printk: how far a pointer moved."""
    x, y = (number - (1 << 32) if number >> 31 else number for number in map(_low32, call.registers[1:3]))
    call.execution.printk.append(f"rc_pointer_rel {x} {y}")
    return 0


def timer_init(call: HelperCall) -> int:
    """Make r1 a timer of map r2."""
    return call.maps.timers.init(call.number(0), call.map(1), call.number(2))


def timer_set_callback(call: HelperCall) -> int:
    """Give timer r1 the callback r2."""
    return call.maps.timers.set_callback(call.number(0), call.number(1))


def timer_start(call: HelperCall) -> int:
    """Set timer r1 to r2 ns from now."""
    return call.maps.timers.start(call.number(0), call.number(1), call.number(2))


def timer_cancel(call: HelperCall) -> int:
    """Unset timer r1."""
    return call.maps.timers.cancel(call.number(0))


def _low32(number: int) -> int:
    return number & 0xFFFF_FFFF


def _print(call: HelperCall, arguments: tuple[int, ...]) -> int:
    format = bytes(call.memory(0)).split(b"\0", 1)[0]
    line = format_text(format, arguments, _read).decode(errors="replace")
    call.execution.printk.append(line)
    return len(line)


def _words(call: HelperCall, data: memoryview) -> tuple[int, ...]:
    order = "<" if call.execution.order == "little" else ">"
    return struct.unpack_from(f"{order}{data.nbytes // 8}Q", data)


def _read(address: int, size: int) -> bytes:
    """Memory to print, as the kernel reads it: zeros, or no string, where nothing is."""
    if size:
        return probe(address, size) or bytes(size)
    return probe_string(address, LONGEST_STRING) or b""


HOST_HELPERS: Final[Mapping[str, Implementation]] = {
    "trace_printk": trace_printk,
    "trace_vprintk": trace_vprintk,
    "snprintf": snprintf,
    "get_current_pid_tgid": get_current_pid_tgid,
    "get_ns_current_pid_tgid": get_ns_current_pid_tgid,
    "get_current_uid_gid": get_current_uid_gid,
    "get_current_comm": get_current_comm,
    "ktime_get_ns": clock(time.CLOCK_MONOTONIC),
    "ktime_get_boot_ns": clock(time.CLOCK_BOOTTIME),
    "ktime_get_coarse_ns": clock(time.CLOCK_MONOTONIC),
    "ktime_get_tai_ns": clock(11),
    "jiffies64": jiffies64,
    "get_current_task": zero,
    "get_current_cgroup_id": zero,
    "get_attach_cookie": zero,
    "current_task_under_cgroup": current_task_under_cgroup,
    "rc_keydown": rc_keydown,
    "rc_repeat": rc_repeat,
    "rc_pointer_rel": rc_pointer_rel,
    "timer_init": timer_init,
    "timer_set_callback": timer_set_callback,
    "timer_start": timer_start,
    "timer_cancel": timer_cancel,
    "get_stackid": answer(EFAULT),
    "get_stack": answer(EFAULT),
    "get_task_stack": answer(EFAULT),
    "perf_event_read": answer(ENOENT),
    "send_signal": answer(EINVAL),
    "probe_write_user": answer(EFAULT),
}
