"""Whatever the bytes, reading an object gives an Object or Diagnostics, soon; and what was read is verified or refused."""

from __future__ import annotations

from random import Random
from time import process_time
from typing import Final

from bpfc.elf.reader import read_object
from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.mutation import mutate
from bpfc.testing.objects import write_object
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.readers import OBJECT
from bpfc.verification import verify_object
from ir.kinds import ProgramType

STYLE: Final = Style(size=3, inputs=0, types=(ProgramType.XDP, ProgramType.SCHED_CLS))
SLOW: Final = 5.0  # seconds of CPU
_VERIFIED: Final = 0.1  # of the objects that are read
_WHOLE: Final = 0.06  # of the objects: as they were written


def draw(seed: int) -> Case:
    """An object, mostly malformed."""
    data = write_object(case_of(seed, STYLE))
    return Case(None, {}, (), data if _is_whole(seed) else mutate(data, seed), seed)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Read it; verify what was read."""
    before = process_time()
    outcome = OBJECT.outcome(case.data, "case.o")
    tally.outcomes[f"read {outcome}"] += 1
    if _is_whole(case.seed) and outcome != "object":
        return Finding(ORACLE.name, "unread", outcome, "an object as it was written is refused")
    if outcome == "object" and Random(case.seed + 2).random() < _VERIFIED:
        found = read_object(case.data, "case.o")
        for report in verify_object(found, found.programs).values():
            tally.accepted += report.is_accepted
    took = process_time() - before
    return Finding(ORACLE.name, "slow", outcome, f"{took:.1f} seconds") if took > SLOW else None


def _is_whole(seed: int) -> bool:
    return Random(seed + 1).random() < _WHOLE


ORACLE: Final = Oracle("loader", "malformed objects are read or refused", draw, judge, share=8)
