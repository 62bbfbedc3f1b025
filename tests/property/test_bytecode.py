"""Laws of rewriting bytecode: what a program does stays, and what is tracked stays true."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bpfc.testing.observed import Observed, observe_insns
from bpfc.testing.programs import Sample, samples
from ir.bytecode import Rewritten, rewrite
from ir.isa import ROW_BY_NAME, Insn
from ir.lift import lift
from ir.passes.hardwire_branches import hardwire_branches
from ir.passes.remove_nops import remove_nops
from ir.pipeline import parse_pipeline

NOP = Insn(ROW_BY_NAME["ja"].opcode)


@given(samples(), st.data())
def test_removing_inserted_nops_gives_a_program_that_does_the_same(
    sample: Sample, data: st.DataObject
) -> None:
    slots = data.draw(st.lists(st.sampled_from(sample.program.starts[:-1]), unique=True, max_size=8))
    insns = dict(zip(sample.program.starts, sample.program.insns, strict=False))
    padded = rewrite(sample.program, {slot: (NOP, insns[slot], NOP) for slot in slots})
    _same(sample, padded)
    _same(sample, padded.then(remove_nops(padded.program)))


@given(samples())
def test_hardwiring_the_decided_branches_keeps_what_a_program_does(sample: Sample) -> None:
    changes = parse_pipeline("fold-rodata").run(lift(sample.program, sample.maps))
    decided = {each.at.insn: each.is_taken for each in changes.decisions if each.at.insn is not None}
    wired = hardwire_branches(sample.program, decided)
    assert len(wired.program.insns) <= len(sample.program.insns)
    _same(sample, wired)


def _same(sample: Sample, rewritten: Rewritten) -> None:
    after = observe_insns(replace(sample, program=rewritten.program))
    assert _without_slot(after) == _without_slot(observe_insns(sample))


def _without_slot(observed: Observed) -> Observed:
    """What was observed, of a trap only its code: the slot is another one now."""
    if isinstance(observed.result, tuple):
        return replace(observed, result=(observed.result[0], None))
    return observed
