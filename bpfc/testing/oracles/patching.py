"""Code that changes while it runs: each run is one of the program's forms, and the one of the moment when nobody changes it.

A schedule runs a program, switches its static branches, attaches a tracer before or after it, and puts an
extension in its place, one after the other; then a thread switches branches and attaches while another runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Final, final

from bpfc.loaded import Loaded
from bpfc.options import Options
from bpfc.testing.author import Author
from bpfc.testing.bulk import draw_input
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.native import LIMITS
from bpfc.testing.oracle import Finding, Oracle, Surroundings, Tally
from bpfc.testing.reference import World
from bpfc.testing.shapes.numbers import alu, cut, wide
from bpfc.testing.shapes.table import PLAIN
from ir.asm import assemble
from ir.btf import Btf, read_btf
from ir.btf_encode import encode_btf
from ir.btf_types import Function, Int, Linkage, Parameter, Pointer, Prototype, Struct
from ir.functions import discover_functions
from ir.isa import R0, R1, R2, R3, R4, R5, R6, R8, R9
from ir.kinds import MapType, ProgramType
from ir.object import FunctionInfo, Map, Object, Program, Reference, ReferenceKind
from ir.static_keys import static_branches

if TYPE_CHECKING:
    from bpfc.links import Link
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

STEPS: Final = 40
SWITCHES: Final = 60
REPLACED: Final = 0xBEEF
_MOST_BRANCHES: Final = 4
_MAIN_TYPE: Final = 5
_COUNT: Final = Map("count", MapType.ARRAY, 4, 8, 1, initial=bytes(8))


def draw(seed: int) -> Case:
    """An XDP program of arithmetic under a few static branches: what it returns depends on those and the packet alone."""
    random = Random(seed)
    author = Author(random, ProgramType.XDP, PLAIN)
    author.put("mov64 reg", R6, R1)
    author.put("ldx32", R0, R6, 12)
    for register in (R1, R2, R3, R4, R5, R8, R9):
        author.put("mov64 imm", register, imm=author.edge())
    author.put("mov64 imm", 7, imm=author.edge())
    for _ in range(random.randint(1, _MOST_BRANCHES)):
        random.choice((alu, alu, wide, cut))(author, 0)
        mark = author.mark()
        author.put(random.choice(("goto_or_nop", "nop_or_goto")))
        alu(author, 0)
        author.patch(mark)
    for register in (R1, R2, R3, R4, R5, R8, R9):
        author.put("xor64 reg", R0, register)
    author.put("exit")
    functions = (FunctionInfo("main", 0, author.slots, is_global=True, btf_id=_MAIN_TYPE),)
    program = Program("main", "xdp", ProgramType.XDP, tuple(author.insns), functions)
    return Case(program, {}, tuple(draw_input(random) for _ in range(3)), seed=seed)


def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
    """First one thing after the other, then at the same time."""
    assert case.program is not None, "a case of instructions"
    with _Bench(case) as bench:
        return bench.in_order(tally) or bench.at_once(tally)


@final
class _Bench:
    """The program running, with a tracer and an extension at hand."""

    def __init__(self, case: Case) -> None:
        program = case.program
        assert program is not None, "a case of instructions"
        self.case, self.program, self.random = case, program, Random(case.seed)
        self.stack = ExitStack()
        source = Object("case", {"main": program}, {}, LICENSE, btf=types())
        self.runtime = self._start(source)
        self.main = self.runtime["main"]
        self.tracers = {kind: self._start(tracer()) for kind in ("fentry", "fexit")}
        self.extension = self._start(extension())
        self.slots = sorted(static_branches(program))

    def _start(self, source: Object) -> Runtime:
        return self.stack.enter_context(Loaded(source).start(Options(level="O1", cache=False), LIMITS))

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def wanted(self, flipped: frozenset[int], data: bytes) -> int | str:
        """r0 by the interpreter."""
        return World(self.case, flipped).interpret(data)[0].ret

    def in_order(self, tally: Tally) -> Finding | None:
        """A schedule of one thread."""
        random, counted = self.random, 0
        flipped: set[int] = set()
        links: dict[str, Link] = {}
        before = {slot: self.main.branches.is_on(slot) for slot in self.slots}
        for number in range(STEPS):
            step = random.choice(("run", "run", "switch", "fentry", "fexit", "freplace"))
            if step == "run":
                data = random.choice(self.case.inputs)
                wanted = REPLACED if "freplace" in links else self.wanted(frozenset(flipped), data)
                found = self.main.run(data).ret
                counted += ("fentry" in links) + ("fexit" in links)
                tally.ran(self.case, 1)
                if found != wanted:
                    said = f"step {number}: r0 = {found:#x}, wanted {wanted!r}, switched {sorted(flipped)}, {sorted(links)}"
                    return Finding(ORACLE.name, "schedule", "", said)
            elif step == "switch" and self.slots:
                slot = random.choice(self.slots)
                flipped ^= {slot}
                self.main.static_branch_update(slot, before[slot] != (slot in flipped))
            elif step in links:
                links.pop(step).close()
            elif step != "switch" and (step != "freplace" or not links) and "freplace" not in links:
                links[step] = self._attach(step)
        for link in links.values():
            link.close()
        for slot in flipped:
            self.main.static_branch_update(slot, before[slot])
        seen = sum(
            int.from_bytes(each.world.live["count"].lookup(bytes(4)) or b"", "little")
            for each in self.tracers.values()
        )
        if seen != counted:
            return Finding(ORACLE.name, "count", "", f"tracers ran {seen} times, wanted {counted}")
        return None

    def at_once(self, tally: Tally) -> Finding | None:
        """One thread runs, another switches and attaches: every result is that of some form."""
        data = self.case.inputs[0]
        legal = {
            self.wanted(frozenset(chosen), data)
            for count in range(len(self.slots) + 1)
            for chosen in combinations(self.slots, count)
        } | {REPLACED}
        results: list[set[int]] = []
        with _running(self.main, data, results) as runs:
            for _ in range(SWITCHES):
                for slot in self.slots:
                    self.main.static_branch_update(slot, not self.main.branches.is_on(slot))
                kind = self.random.choice(("fentry", "fexit", "freplace"))
                self._attach(kind).close()
        tally.ran(self.case, runs[0])
        strange = set().union(*results) - legal
        if strange:
            said = f"r0 = {', '.join(map(hex, sorted(strange)))}, legal are {legal!r}"
            return Finding(ORACLE.name, "torn", "", said)
        return None

    def _attach(self, kind: str) -> Link:
        if kind == "fentry":
            return self.tracers[kind]["tracer"].attach_fentry(self.main)
        if kind == "fexit":
            return self.tracers[kind]["tracer"].attach_fexit(self.main)
        return self.extension["extension"].attach_freplace(self.main, "main")


@contextmanager
def _running(main: RunningProgram, data: bytes, results: list[set[int]]) -> Iterator[list[int]]:
    """A thread that runs the program meanwhile; how often, and which results it saw."""
    stop, runs = threading.Event(), [0]

    def body() -> None:
        seen: set[int] = set()
        while not stop.is_set():
            seen.add(main.run(data).ret)
            runs[0] += 1
        results.append(seen)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield runs
    finally:
        stop.set()
        thread.join()


@cache
def types() -> Btf:
    """int main(struct xdp_md *)."""
    kinds = (
        Int("int", 4, 32, is_signed=True),
        Struct("xdp_md", False, 24, ()),
        Pointer(2),
        Prototype(1, (Parameter("ctx", 3),)),
        Function("main", 4, Linkage.GLOBAL),
        Function("extension", 4, Linkage.GLOBAL),
    )
    return read_btf(encode_btf(kinds))


def tracer() -> Object:
    """A program that counts how often it runs."""
    insns = assemble("r1 = map_value(0, 0)\nr2 = 1\nlock *(u64 *)(r1 + 0) += r2\nr0 = 0\nexit")
    functions = discover_functions(insns, "tracer")
    references = {0: Reference(ReferenceKind.MAP_VALUE, "count", 0)}
    program = Program("tracer", "fentry/main", ProgramType.TRACING, insns, functions, references=references)
    return Object("tracer", {"tracer": program}, {"count": _COUNT}, LICENSE)


def extension() -> Object:
    """A program that stands for main and returns REPLACED."""
    insns = assemble(f"r0 = {REPLACED}\nexit")
    functions = tuple(replace(each, btf_id=6) for each in discover_functions(insns, "extension"))
    program = Program("extension", "freplace/main", ProgramType.EXT, insns, functions)
    return Object("extension", {"extension": program}, {}, LICENSE, btf=types())


ORACLE: Final = Oracle(
    "patching", "static branches, tracers and extensions change nothing but what they say", draw, judge
)
