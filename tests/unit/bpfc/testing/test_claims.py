"""A run contradicts a claim that is not so, of whatever sort it is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from bpfc.testing.claims import Claim, Claims
from bpfc.testing.spread import Contradiction, Run
from ir.asm import assemble
from ir.core import Alu, Inst, Load, Module, Store
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import FunctionInfo, Program
from ir.verify.prove import verify
from ir.verify.scalar import between, const
from ir.verify.state import State
from ir.verify.values import Pointer

TEXT = """
    r6 = r1
    r0 = 0
    if r2 < 16 goto out
    r7 = *(u32 *)(r6 + 0)
    *(u64 *)(r10 - 8) = r7
    r3 = r7
    r3 &= 7
    r4 = r6
    r4 += r3
    r5 = *(u8 *)(r4 + 0)
    *(u64 *)(r10 - 16) = 5
    if r7 > r2 goto out
    r0 = *(u64 *)(r10 - 8)
    r0 += r5
out:
    exit
"""
MEMORY = bytes((7, 0, 0, 0, 0, 0, 0, 9)) * 3
"""A word of 7, so that r3 is 7 and r5 the byte 9."""

Spoil = Callable[[Module, Claims], None]


def proved() -> tuple[Module, Claims]:
    insns = assemble(TEXT)
    program = Program(
        "main", "", ProgramType.UNSPEC, insns, (FunctionInfo("main", 0, len(insns), is_global=True),)
    )
    module, claims = lift(program, {}), Claims()
    assert verify(module, witness=lambda: claims).is_accepted
    return module, claims


def inst_at(module: Module, at: int, kind: type[Inst]) -> Inst:
    return next(inst for inst in module.main.insts() if inst.at == at and type(inst) is kind)


def claim_otherwise(
    module: Module, claims: Claims, inst: Inst, change: Callable[[Claim], list[Claim]]
) -> None:
    for visit, made in claims.results[inst].items():
        claims.results[inst][visit] = [new for claim in made for new in change(claim)]


def too_small(module: Module, claims: Claims) -> None:
    claim_otherwise(module, claims, inst_at(module, 6, Alu), lambda c: [c._replace(known=between(64, 0, 6))])


def a_bit_too_sure(module: Module, claims: Claims) -> None:
    claim_otherwise(module, claims, inst_at(module, 9, Load), lambda c: [c._replace(known=const(64, 8))])


def another_offset(module: Module, claims: Claims) -> None:
    def change(claim: Claim) -> list[Claim]:
        assert type(claim.known) is Pointer
        return [claim._replace(known=Pointer(claim.known.area, None, 3, const(64, 3)))]

    claim_otherwise(module, claims, inst_at(module, 8, Alu), change)


def of_the_second_store(change: Callable[[Module, State], None]) -> Spoil:
    def spoil(module: Module, claims: Claims) -> None:
        for made in claims.results[inst_at(module, 10, Store)].values():
            for claim in made:
                assert claim.state is not None
                change(module, claim.state)

    return spoil


def a_slot_with_another_value(module: Module, state: State) -> None:
    state.stack[504] = (8, inst_at(module, 6, Alu))
    state.stack[496] = (8, inst_at(module, 6, Alu))


def a_slot_nobody_wrote(module: Module, state: State) -> None:
    state.stack[480] = (8, inst_at(module, 6, Alu))


def room_that_is_not_there(module: Module, state: State) -> None:
    state.rooms[inst_at(module, 6, Alu), module.main.params[1]] = 1000


def another_sum(module: Module, state: State) -> None:
    state.alias[inst_at(module, 9, Load)] = (inst_at(module, 6, Alu), 1)


def nothing_after_it(module: Module, claims: Claims) -> None:
    claim_otherwise(module, claims, inst_at(module, 9, Load), lambda c: [])


def never_gone_on(module: Module, claims: Claims) -> None:
    for block in [block for block in claims.entries if block.start == 12]:
        del claims.entries[block]


def too_large_on_entering(module: Module, claims: Claims) -> None:
    for block, visits in claims.entries.items():
        for state in visits.values() if block.start == 12 else ():
            state.known[inst_at(module, 3, Load)] = between(64, 8, 24)


SPOILT: dict[str, tuple[Spoil, str]] = {
    "range": (too_small, "after 6: 0x7, claimed u64 0x0..0x6"),
    "constant": (a_bit_too_sure, "after 9: 0x9, claimed 8"),
    "offset": (another_offset, "after 8: "),
    "slot": (of_the_second_store(a_slot_with_another_value), "after 10: stack -16 holds 0x5"),
    "new slot": (of_the_second_store(a_slot_nobody_wrote), "after 10: stack -32 holds "),
    "room": (of_the_second_store(room_that_is_not_there), "1000 bytes more are claimed to be below 24"),
    "sum": (of_the_second_store(another_sum), "after 10: load at 9 is 0x9, claimed alu at 6 = 0x7 plus 1"),
    "nothing": (nothing_after_it, "after 9: nothing was claimed"),
    "unreached": (never_gone_on, "block at 12 was proved never to be reached"),
    "entry": (too_large_on_entering, "at the start of block 12: load at 3 is 0x7, claimed u64 0x8..0x18"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_claim_that_is_not_so_is_contradicted(name: str) -> None:
    spoil, said = SPOILT[name]
    module, claims = proved()
    spoil(module, claims)
    with pytest.raises(Contradiction) as caught:
        Run(module, Random(0), MEMORY, (claims,)).run()
    assert said in str(caught.value)


def test_what_was_proved_is_so() -> None:
    module, claims = proved()
    assert Run(module, Random(0), MEMORY, (claims,)).run() == 16
    assert Run(module, Random(0), MEMORY[:8], (claims,)).run() == 0
