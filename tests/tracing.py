"""What tests of hooks share: programs that are hooked, what tracers saw, code that is far away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.arena import WIDE
from runtime.memory import CodeBlock, DataBlock, Pool

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

FAR_AWAY, STEP = 0x2000_0000_0000, 1 << 33  # images are far from each other, too
NARROW_AWAY, NARROW_STEP = 0xE400_0000, 1 << 26  # where addresses are of 32 bits

WAITS = """
define i64 @waits(ptr %entered, ptr %go) noinline {
  store volatile i64 1, ptr %entered
  br label %loop
loop:
  %now = load volatile i64, ptr %go
  %done = icmp ne i64 %now, 0
  br i1 %done, label %out, label %loop
out:
  ret i64 99
}
"""
"""A function that tells that it was entered, and returns 99 when it may go on."""


class FarPool:
    """A pool whose code is far away, each block at an address of its own; `addresses` are where they went."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.addresses: list[int] = []

    def allocate_code(self, size: int, at: int | None = None) -> CodeBlock:
        start, step = (FAR_AWAY, STEP) if self._pool.extent == WIDE else (NARROW_AWAY, NARROW_STEP)
        self.addresses.append(start + step * len(self.addresses))
        return self._pool.allocate_code(size, self.addresses[-1])

    def allocate_data(self, size: int, at: int | None = None) -> DataBlock:
        return self._pool.allocate_data(size, at)


def run(program: RunningProgram, first: int = 2, second: int = 3) -> int:
    """The verdict of one run; `first` and `second` are what a hooked program calls its functions with."""
    return program.run(bytes(64), {"ingress_ifindex": first, "rx_queue_index": second}).verdict


def slots(tracers: Runtime, count: int | None = None) -> list[int]:
    """What the tracers noted."""
    found = tracers.globals["slots"]
    assert isinstance(found, list | tuple), found
    return list(found)[:count]
