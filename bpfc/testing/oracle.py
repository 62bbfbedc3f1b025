"""What an oracle is: draws cases, judges them, and says what it found in words that name one bug.

A signature is `oracle:what:where`, where being the faulting instruction's row, the pass or the target: two
finds with one signature are one bug, as far as can be told from outside.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from bpfc.testing.case import Case
from ir.diagnostics import DiagnosticError
from ir.isa import row_of
from ir.object import Program

_OURS: Final = ("ir/", "backends/", "runtime/", "bpfc/")


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A bug found: `what` went wrong and `where`; `said` tells a person."""

    oracle: str
    what: str
    where: str
    said: str

    @property
    def signature(self) -> str:
        """The same for all finds of one bug."""
        return ":".join((self.oracle, self.what, self.where)).rstrip(":")


@final
@dataclass(slots=True)
class Tally:
    """What was done. `programs` are digests of those that ran natively, `proved` of those that ran as they were proved;
    `traits` how many of these have what; `rows` the rows of all; `seconds` of CPU.
    """

    cases: int = 0
    seconds: float = 0.0
    native: int = 0
    steps: int = 0
    programs: set[str] = field(default_factory=set)
    proved: set[str] = field(default_factory=set)
    accepted: int = 0
    rows: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)

    def saw(self, program: Program) -> None:
        """Note the rows of a program."""
        self.rows.update(row_of(insn).name for insn in program.insns)

    def ran(self, case: Case, executions: int) -> None:
        """Note native executions of a case's program."""
        self.native += executions
        self.programs.add(case.digest)


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a campaign is told: the emulated targets to compare with."""

    archs: tuple[str, ...] = ()


Judge = Callable[[Case, Tally, Surroundings], Finding | None]


@final
@dataclass(frozen=True, slots=True)
class Oracle:
    """`share`: how many of a campaign's cases it gets, beside the others. `lacks` says what is missing here, '' when nothing.

    `company` prepares many cases at once, for which that costs less, and gives what judges each of them then.
    `is_python`: judged in Python alone, where no case kills the process. `verifies`: it is the verifier that works most, so
    some of the cases are traced for what they cover of it.
    """

    name: str
    summary: str
    draw: Callable[[int], Case]
    judge: Judge
    share: int = 1
    lacks: Callable[[Surroundings], str] = lambda surroundings: ""
    company: Callable[[Sequence[Case], Surroundings], Judge] | None = None
    is_python: bool = False
    verifies: bool = False


def judge(oracle: Oracle, case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """What an oracle says of a case; whatever escapes from our code is a find too."""
    tally.cases += 1
    if case.program is not None:
        tally.saw(case.program)
    try:
        return oracle.judge(case, tally, surroundings)
    except DiagnosticError as error:
        first = error.diagnostics[0]
        return Finding(oracle.name, "refused", first.code, str(first))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the find
        return Finding(oracle.name, type(error).__name__, _place_of(error), traceback.format_exc())


def _place_of(error: BaseException) -> str:
    """The innermost place of our own code, as file and function."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        for floor in _OURS:
            at = frame.filename.rfind(f"/{floor}")
            if at >= 0:
                return f"{frame.filename[at + 1 :]} {frame.name}"
    return frames[-1].name if frames else ""


def row_at(program: Program, slot: int | None) -> str:
    """The name of the row at a slot, '' when no instruction starts there."""
    if slot is None or slot not in program.starts[:-1]:
        return ""
    return row_of(program.insns[program.starts.index(slot)]).name
