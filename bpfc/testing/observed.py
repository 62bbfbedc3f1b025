"""What a run of a sample program shows to the outside: alike as instructions and as SSA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

from bpfc.testing.programs import GET_COMM, GLOBALS, HELPERS, RODATA, Sample
from ir.core import Module
from ir.diagnostics import TrapError
from ir.environment import Environment, Helper
from ir.evaluate import Evaluator
from ir.interpreter import Machine
from ir.object import Reference
from ir.segments import Memory, make_segment

MEMORY_BASE: Final = 0x1_0000_0000
GLOBAL_BASE: Final = {name: 0x2_0000_0000 + 0x1000 * number for number, name in enumerate(GLOBALS)}
FUEL: Final = 100_000


@final
@dataclass(frozen=True, slots=True)
class Observed:
    """r0 or the trap (code and slot), the memory left behind, and the helper calls with their arguments."""

    result: int | tuple[str, int | None]
    memory: bytes
    data: tuple[bytes, ...]
    calls: tuple[tuple[int, ...], ...]


@final
@dataclass
class _World:
    """Memory and helpers for one run."""

    sample: Sample
    calls: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = bytearray(self.sample.memory)
        self.data = {name: bytearray(map_.initial or b"") for name, map_ in self.sample.maps.items()}

    def segments(self) -> Memory:
        """The memory as a run sees it."""
        segments = [make_segment(MEMORY_BASE, self.memory, "memory")]
        for name, content in self.data.items():
            segments.append(make_segment(GLOBAL_BASE[name], content, name, writable=name != RODATA))
        return Memory(segments, self.sample.program.big_endian)

    def environment(self, flipped: frozenset[int]) -> Environment:
        """Helpers that note how they are called."""

        def helper(id: int) -> Helper:
            def call(machine: Machine, *arguments: int) -> int:
                passed = arguments[: len(HELPERS[id])]
                self.calls.append((id, *passed))
                if id == GET_COMM:
                    machine.memory.view(passed[0], passed[1], write=True)[:] = b"name of the task"[
                        : passed[1]
                    ]
                return len(self.calls) * 0x1_2345_6789 + sum(passed)

            return call

        return Environment({id: helper(id) for id in HELPERS}, resolve=_resolve, flipped=flipped, fuel=FUEL)

    def observe(self, run: Callable[[], int]) -> Observed:
        """What there is to see of a run."""
        result: int | tuple[str, int | None]
        try:
            result = run()
        except TrapError as trap:
            result = (trap.diagnostics[0].code, trap.diagnostics[0].at.insn)
        data = tuple(bytes(content) for content in self.data.values())
        return Observed(result, bytes(self.memory), data, tuple(self.calls))


def observe_insns(sample: Sample, flipped: frozenset[int] = frozenset()) -> Observed:
    """Run the instructions."""
    world = _World(sample)
    machine = Machine(sample.program, world.segments(), world.environment(flipped))
    return world.observe(lambda: machine.run(MEMORY_BASE, len(sample.memory)).ret)


def observe_module(sample: Sample, module: Module, flipped: frozenset[int] = frozenset()) -> Observed:
    """Run the SSA form `module`, which was made from the sample's program."""
    world = _World(sample)
    evaluator = Evaluator(module, world.segments(), world.environment(flipped))
    return world.observe(lambda: evaluator.run(MEMORY_BASE, len(sample.memory)))


def _resolve(reference: Reference) -> int:
    return GLOBAL_BASE[reference.name] + reference.offset
