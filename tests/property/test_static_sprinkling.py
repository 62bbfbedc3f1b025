"""Static branches that are off change nothing, wherever they are: sprinkled at random over a program.

nop_or_goto +1             goto_or_nop +2
goto +2                    r0 = 57005
r0 = 57005                 exit
exit                       (the instruction)
(the instruction)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

import bpfc
from bpfc import Options, TrapError
from bpfc.loaded import Loaded
from bpfc.testing.observed import observe_insns, observe_module
from bpfc.testing.programs import Sample, samples
from ir.asm import assemble
from ir.bytecode import Rewritten, rewrite
from ir.diagnostics import DiagnosticError
from ir.isa import Insn
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import Object, Program
from ir.pipeline import DEFAULT
from tests.sprinkling import sprinkle_everything

FOLDER = Path(__file__).parent.parent / "objects"
OBJECTS = (
    *("callbacks", "everything", "globals", "hooked", "map_ops", "packet_ops", "socket_filter", "storage"),
    *("tables", "tc_classify", "xdp_stats"),
)
PACKET = bytes(range(1, 101))
COLD = "r0 = 57005\nexit"
SPRINKLES = tuple(
    assemble(text)
    for name in ("goto", "gotol")
    for text in (f"nop_or_{name} +1\ngoto +2\n{COLD}", f"{name}_or_nop +2\n{COLD}")
)


def sprinkle(program: Program, draw: Callable[..., object]) -> Rewritten:
    """`program` with static branches to cold code before some of its instructions."""
    insns = dict(zip(program.starts, program.insns, strict=False))
    slots = draw(st.lists(st.sampled_from(sorted(insns)), unique=True, min_size=1, max_size=12))
    chosen: dict[int, tuple[Insn, ...]] = {}
    assert isinstance(slots, list)
    for slot in slots:
        branch = draw(st.sampled_from(SPRINKLES))
        assert isinstance(branch, tuple)
        chosen[slot] = (*branch, insns[slot])
    return rewrite(program, chosen)


@given(samples(), st.data())
def test_sprinkled_branches_change_nothing_before_and_after_the_passes(
    sample: Sample, data: st.DataObject
) -> None:
    sprinkled = replace(sample, program=sprinkle(sample.program, data.draw).program)
    expected = observe_insns(sample)
    if isinstance(expected.result, tuple):
        return
    assert observe_insns(sprinkled) == expected
    module = lift(sprinkled.program, sprinkled.maps)
    DEFAULT.run(module)
    assert observe_module(sprinkled, module) == expected


@pytest.mark.slow
@settings(max_examples=6, phases=(Phase.generate,))
@given(samples(), st.data(), st.sampled_from(("O1", "O2")))
def test_sprinkled_branches_change_nothing_natively(sample: Sample, data: st.DataObject, level: str) -> None:
    assume(not observe_insns(sample).calls)  # the time, random numbers
    with ExitStack() as open_meanwhile:
        plain, again, after = (
            run(sample, program, level, open_meanwhile)
            for program in (sample.program, sample.program, sprinkle(sample.program, data.draw).program)
        )
        assume(plain == again)  # no addresses, which differ
        assert after == plain


def run(sample: Sample, program: Program, level: str, open_meanwhile: ExitStack) -> object:
    """What a native run leaves: r0 and all memory, or the kind of trap."""
    loaded = Loaded(Object("sample", {program.name: program}, sample.maps))
    runtime = open_meanwhile.enter_context(loaded.start(Options(level=level, cache=False)))
    try:
        result = runtime[program.name].run(sample.memory)
    except TrapError as error:
        return error.diagnostics[0].code
    maps = (runtime.world.live[name] for name in sample.maps)
    return result.ret, result.data, [bytes(live.block.view[live.layout.values_offset :]) for live in maps]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "level"), [*((name, "O0") for name in OBJECTS), ("callbacks", "O2")])
def test_sprinkled_branches_change_nothing_in_what_clang_made(
    name: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, again = run_object(name, level), run_object(name, level)
    sprinkle_everything(monkeypatch, level)
    after = run_object(name, level)
    assert plain
    assert {program: seen for program, seen in after.items() if plain[program] == again[program]} == {
        program: seen for program, seen in plain.items() if seen == again[program]
    }


def run_object(name: str, level: str) -> dict[str, object]:
    """What each program of an object answers to a packet, three times in a row: r0 and the packet, or the kind of trap."""
    seen: dict[str, object] = {}
    with bpfc.load(FOLDER / f"{name}.o").start(Options(level=level, cache=False)) as runtime:
        for program in runtime:
            if runtime.loaded.programs[program].type in (ProgramType.TRACING, ProgramType.EXT):
                continue
            try:
                running = runtime[program]
                seen[program] = [
                    (result.ret, result.data) for result in (running.run(PACKET) for _ in range(3))
                ]
            except DiagnosticError as error:
                seen[program] = error.diagnostics[0].code
    return seen
