"""Emulated machines do what the interpreter does, on the same maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from shutil import which
from typing import Final

from backends.registry import target_named
from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Judge, Oracle, Surroundings, Tally
from bpfc.testing.reference import Observed, interpret, shows_addresses
from bpfc.testing.together import observe

STYLE: Final = Style(size=4, inputs=6)
LEVELS: Final = ("O0", "O0", "O1")  # at O1 LLVM has most of the time


def draw(seed: int) -> Case:
    """A small program on few inputs: emulation takes its time."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Run it on each of the campaign's targets, in that one's order of bytes."""
    level = _level(case)
    found = {name: run(case_in(case, _is_big(name)), level, target=name) for name in surroundings.archs}
    return _compared(case, found, tally)


def judge_together(cases: Sequence[Case], surroundings: Surroundings) -> Judge:
    """As `judge`, of cases that are compiled as one; those that are refused are judged alone."""
    seen: dict[int, Mapping[str, Observed]] = {}
    for level in sorted({_level(case) for case in cases}):
        some = [case for case in cases if _level(case) == level]
        found = observe(some, level, surroundings.archs)
        seen |= {case.seed: each for case, each in zip(some, found, strict=True)}

    def judge_one(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
        found = seen[case.seed]
        if len(found) < len(surroundings.archs):
            return judge(case, tally, surroundings)
        return _compared(case, found, tally)

    return judge_one


def case_in(case: Case, big_endian: bool) -> Case:
    """The case in one order of bytes."""
    assert case.program is not None, "a case of instructions"
    return replace(case, program=replace(case.program, big_endian=big_endian))


def _compared(case: Case, found: Mapping[str, Observed], tally: Tally) -> Finding | None:
    wanted = {order: interpret(case_in(case, order)) for order in {_is_big(name) for name in found}}
    tally.ran(case, len(case.inputs) * len(found))
    for name in found:
        tally.outcomes[f"emulated {name}"] += len(case.inputs)
    for name, differs in _differences(wanted, found):
        if shows_addresses(case):
            return None
        return Finding(ORACLE.name, differs[0], name, differs[1])
    return None


def _differences(
    wanted: Mapping[bool, Observed], found: Mapping[str, Observed]
) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, observed in found.items():
        differs = difference(wanted[_is_big(name)], observed)
        if differs is not None:
            yield name, differs


def _is_big(target: str) -> bool:
    return target_named(target).byte_order == "big"


def _level(case: Case) -> str:
    return LEVELS[case.seed % len(LEVELS)]


def lacks(surroundings: Surroundings) -> str:
    """Targets must be named, and their emulators installed."""
    if not surroundings.archs:
        return "no --arch"
    if find_spec("unicorn") is None and set(surroundings.archs) - {"ppc64le"}:
        return "the extra 'emu' is not installed"
    if "ppc64le" in surroundings.archs and not which("qemu-ppc64le") and not which("qemu-ppc64le-static"):
        return "qemu-ppc64le (Debian's qemu-user) is not installed"
    return ""


ORACLE: Final = Oracle(
    "targets", "emulated machines do the same (--arch)", draw, judge, lacks=lacks, company=judge_together
)
