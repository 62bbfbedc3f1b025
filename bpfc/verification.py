"""Verdicts on the programs of an object: `obj.verify()`.

report = obj.verify()
report.ok, report["filter"].diagnostics
report.raise_for_status()            # RejectedError: the first reason, with its source line
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import E2BIG
from typing import Final, final

from bpfc.collection import uncollected
from bpfc.kernel_types import running_kernel
from ir.btf import Btf
from ir.core_relocation import relocate
from ir.diagnostics import Diagnostic, RejectedError
from ir.lift import lift
from ir.object import Object, Program
from ir.verify.explain import explain_structure
from ir.verify.prove import Report, verify

MOST_INSNS: Final = 150_000
"""Instructions, and jumps once more, of a program that is verified: at some 1200 bytes each."""


@final
@dataclass(frozen=True, slots=True)
class ObjectReport(Mapping[str, Report]):
    """The verdict on each program, by name."""

    reports: Mapping[str, Report]

    @property
    def ok(self) -> bool:
        """Whether every program is proved safe."""
        return all(report.is_accepted for report in self.reports.values())

    def raise_for_status(self) -> None:
        """Raise RejectedError with the diagnostics of every rejected program; nothing when all are safe."""
        found = [diagnostic for report in self.reports.values() for diagnostic in report.diagnostics]
        if found:
            raise RejectedError(found)

    def __getitem__(self, name: str) -> Report:
        return self.reports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)


def verify_object(
    source: Object, programs: Mapping[str, Program], kernel: Btf | None = None, unprivileged: bool = False
) -> ObjectReport:
    """Verify `programs` of `source` against the types of `kernel`; never raises for what a program does.

    Without `kernel` the running kernel's types are used, where it has some: programs that have not been fitted to
    others are fitted to it first. `unprivileged`: by the rules for loaders without CAP_BPF and CAP_PERFMON.
    """
    return ObjectReport(
        {name: verify_program(source, program, kernel, unprivileged) for name, program in programs.items()}
    )


def verify_program(
    source: Object, program: Program, kernel: Btf | None = None, unprivileged: bool = False
) -> Report:
    """The verdict on one program of `source`; never raises for what it does."""
    too_large = _too_large(program)
    if too_large is not None:
        return Report(program.name, (too_large,), steps=0, states=0, tries=0, ns=0)
    with uncollected():
        try:
            module = lift(program if kernel is not None else _fitted(source, program), source.maps)
        except RejectedError as error:
            explained = tuple(explain_structure(program, found) for found in error.diagnostics)
            return Report(program.name, explained, steps=0, states=0, tries=0, ns=0)
        return verify(module, source.license, source.btf, kernel or running_kernel, unprivileged=unprivileged)


def _too_large(program: Program) -> Diagnostic | None:
    """Why a program is not looked at: what is kept of each instruction and block would take too much memory."""
    insns = len(program.insns)
    if insns <= MOST_INSNS // 2:  # no instruction is more than one block
        return None
    blocks = sum(row.ends_block for row in program.rows)
    if insns + blocks <= MOST_INSNS:
        return None
    said = f"program has {insns} instructions and {blocks} jumps, up to {MOST_INSNS} together are verified"
    return explain_structure(program, Diagnostic("too-many-insns", said, program.location(0), errno=E2BIG))


def _fitted(source: Object, program: Program) -> Program:
    types = running_kernel() if program.core else None
    return relocate(program, source.btf, types) if types is not None and source.btf is not None else program
