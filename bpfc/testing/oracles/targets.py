"""Emulated machines do what the interpreter does, on the same maps."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from random import Random
from shutil import which
from typing import Final

from backends.registry import target_named
from bpfc.testing.bulk import Style, case_of
from bpfc.testing.case import Case
from bpfc.testing.differences import difference
from bpfc.testing.native import run
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import interpret, shows_addresses

STYLE: Final = Style(size=4, inputs=6)


def draw(seed: int) -> Case:
    """A small program on few inputs: emulation takes its time."""
    return case_of(seed, STYLE)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """Run it on one of the campaign's targets, in that one's order of bytes."""
    target = Random(case.seed + 1).choice(surroundings.archs)
    assert case.program is not None, "a case of instructions"
    is_big = target_named(target).byte_order == "big"
    case = replace(case, program=replace(case.program, big_endian=is_big))
    wanted = interpret(case)
    found = run(case, "O1", target=target)
    tally.outcomes[f"emulated {target}"] += len(case.inputs)
    differs = difference(wanted, found)
    if differs is None or shows_addresses(case):
        return None
    return Finding(ORACLE.name, differs[0], target, differs[1])


def lacks(surroundings: Surroundings) -> str:
    """Targets must be named, and their emulators installed."""
    if not surroundings.archs:
        return "no --arch"
    if find_spec("unicorn") is None and set(surroundings.archs) - {"ppc64le"}:
        return "the extra 'emu' is not installed"
    if "ppc64le" in surroundings.archs and not which("qemu-ppc64le") and not which("qemu-ppc64le-static"):
        return "qemu-ppc64le (Debian's qemu-user) is not installed"
    return ""


ORACLE: Final = Oracle("targets", "emulated machines do the same (--arch)", draw, judge, lacks=lacks)
