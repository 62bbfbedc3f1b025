"""Makes a case small while it still shows the same bug: fewer inputs, fewer instructions, simpler numbers.

Instructions are taken out in ever smaller runs (delta debugging), the jumps of the others finding their targets
again. A case that kills its process is judged in a child each time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, final

from bpfc.testing.case import Case, with_insns
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally, judge
from ir.bytecode import rewrite
from ir.diagnostics import DiagnosticError
from ir.isa import WIDE_OPCODE, Insn, Kind, row_of

SECONDS: Final = 20.0
BUSY: Final = 8  # a case that hangs takes no processor time
DIED: Final = "crash"
_HANGS_AFTER: Final = 60  # seconds
_USUAL: Final = 64  # bytes of an input that most programs can do with
_DATA_STEP: Final = 8  # bytes of an object that are dropped together, at least
_WITH_IMM: Final = frozenset((Kind.ALU, Kind.BRANCH, Kind.STORE, Kind.WIDE))


def reduce(
    oracle: Oracle,
    case: Case,
    finding: Finding,
    surroundings: Surroundings,
    seconds: float = SECONDS,
    isolated: bool = False,
    tell: Callable[[], None] = lambda: None,
) -> tuple[Case, Finding]:
    """The smallest case found in `seconds` that shows what `finding` says, and what it shows.

    Seconds of processor time: on a busy machine it takes longer, at most `BUSY` times. `tell` is called before each attempt.
    """
    return _Reducer(oracle, case, finding, surroundings, seconds, isolated, tell).run()


def judge_apart(oracle: Oracle, case: Case, surroundings: Surroundings) -> Finding | None:
    """As `judge`, in a child; its death is a finding."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Safe because the child only judges and leaves, by a door that runs nothing of the parent's.
        signal.alarm(_HANGS_AFTER)
        found = judge(oracle, case, Tally(), surroundings)
        if found is not None:
            os.write(writing, "\0".join((found.what, found.where, found.said[:500])).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode().split("\0")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return death(oracle.name, os.WTERMSIG(status))
    return Finding(oracle.name, said[0], said[1], said[2]) if len(said) == 3 else None


def death(oracle: str, number: int) -> Finding:
    """What it means that a process died of a signal while it judged."""
    name = "hang" if number == signal.SIGALRM else signal.Signals(number).name
    return Finding(oracle, DIED, name, f"the process ended by {name}")


@final
class _Reducer:
    def __init__(
        self,
        oracle: Oracle,
        case: Case,
        finding: Finding,
        surroundings: Surroundings,
        seconds: float,
        isolated: bool,
        tell: Callable[[], None],
    ) -> None:
        self.oracle, self.case, self.finding = oracle, case, finding
        self.surroundings, self.isolated, self.tell = surroundings, isolated, tell
        self.seconds = seconds
        self.worked, self.begin = _worked(), time.monotonic()

    def run(self) -> tuple[Case, Finding]:
        """Go round until nothing gets smaller."""
        size = self.case.size + 1
        while self.case.size < size and self._has_time():
            size = self.case.size
            self._drop(lambda: len(self.case.inputs), self._without_inputs, least=1)
            if self.case.program is not None:
                self._drop(self._count_insns, self._without_insns)
                self._all_of(self._simpler_insns)
            self._all_of(self._simpler_inputs)
            self._drop(lambda: len(self.case.data) // _DATA_STEP, self._without_data)
        return self.case, self.finding

    def _has_time(self) -> bool:
        passed = time.monotonic() - self.begin
        return _worked() - self.worked < self.seconds and passed < BUSY * self.seconds

    def _drop(
        self, count: Callable[[], int], without: Callable[[int, int], Case | None], least: int = 0
    ) -> None:
        """Take out runs of things, from the last to the first, of ever smaller size."""
        size = count() // 2
        while size:
            first = count() - size
            while first >= 0 and count() - size >= least and self._has_time():
                smaller = without(first, size)
                dropped = smaller is not None and self._shows(smaller)
                first = min(first, count()) - (1 if dropped and size == 1 else size if not dropped else 0)
                first = min(first, count() - size)
            size //= 2

    def _all_of(self, candidates: Callable[[], Iterator[Callable[[], Case]]]) -> None:
        """Try each change once, on what the ones before have left."""
        for candidate in candidates():
            if not self._has_time():
                return
            self._shows(candidate())

    def _shows(self, candidate: Case) -> bool:
        if candidate is self.case or candidate == self.case:
            return False
        self.tell()
        try:
            if self.isolated:
                found = judge_apart(self.oracle, candidate, self.surroundings)
            else:
                found = judge(self.oracle, candidate, Tally(), self.surroundings)
        except (AssertionError, IndexError, KeyError):
            return False
        if found is None or found.signature != self.finding.signature:
            return False
        self.case, self.finding = candidate, found
        return True

    def _without_inputs(self, first: int, size: int) -> Case:
        inputs = self.case.inputs
        return replace(self.case, inputs=inputs[:first] + inputs[first + size :])

    def _count_insns(self) -> int:
        assert self.case.program is not None, "asked for cases of instructions only"
        return len(self.case.program.insns)

    def _without_insns(self, first: int, size: int) -> Case | None:
        program = self.case.program
        assert program is not None, "asked for cases of instructions only"
        try:
            smaller = rewrite(program, dict.fromkeys(program.starts[first : first + size], ()))
        except (DiagnosticError, AssertionError, KeyError):
            return None
        return replace(self.case, program=smaller.program) if _is_sound(smaller.program.insns) else None

    def _simpler_insns(self) -> Iterator[Callable[[], Case]]:
        for number in range(self._count_insns()):
            for imm in (0, 1):
                yield partial(self._with_imm, number, imm)

    def _with_imm(self, number: int, imm: int) -> Case:
        program = self.case.program
        assert program is not None, "asked for cases of instructions only"
        insn = program.insns[number]
        row = row_of(insn)
        is_free = not isinstance(row.imm, int) and row.kind in _WITH_IMM
        if not is_free or (insn.opcode == WIDE_OPCODE and insn.src) or insn.imm in (0, imm):
            return self.case
        changed = (*program.insns[:number], insn._replace(imm=imm), *program.insns[number + 1 :])
        return with_insns(self.case, changed)

    def _simpler_inputs(self) -> Iterator[Callable[[], Case]]:
        for number, data in enumerate(self.case.inputs):
            if len(data) > _USUAL:
                yield partial(self._with_input, number, lambda data: data[:_USUAL])
            for start in range(0, len(data), 8):
                yield partial(self._with_input, number, partial(_zeroed, start=start))

    def _with_input(self, number: int, change: Callable[[bytes], bytes]) -> Case:
        inputs = self.case.inputs
        return replace(self.case, inputs=(*inputs[:number], change(inputs[number]), *inputs[number + 1 :]))

    def _without_data(self, first: int, size: int) -> Case:
        data = self.case.data
        return replace(self.case, data=data[: first * _DATA_STEP] + data[(first + size) * _DATA_STEP :])


def _worked() -> float:
    """Seconds of processor time of this process and of the children that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _zeroed(data: bytes, start: int) -> bytes:
    word = data[start : start + 8]
    return data[:start] + bytes(len(word)) + data[start + 8 :]


def _is_sound(insns: tuple[Insn, ...]) -> bool:
    """Whether control cannot run past the last instruction."""
    return bool(insns) and row_of(insns[-1]).kind in (Kind.EXIT, Kind.JUMP)
