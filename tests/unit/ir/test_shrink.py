"""Shrinking bytecode, on text: what is folded, what goes, and what stays because a loader or verifier wants it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bpfc
from ir.asm import assemble
from ir.btf_ext import CoreKind, CoreRelocation
from ir.isa import Insn
from ir.kinds import MapType, ProgramType
from ir.object import Map, Program, Reference, ReferenceKind
from ir.shrink import shrink

CONSTANTS = Map(".rodata", MapType.ARRAY, 4, 16, 1, initial=bytes([7, 0, 0, 0] + [0] * 12), is_read_only=True)


def program(text: str) -> Program:
    loaded = bpfc.assemble(text, type=ProgramType.XDP, maps={3: CONSTANTS})
    return next(iter(loaded.programs.values()))


def shrunken(text: str, maps: dict[str, Map] | None = None) -> tuple[Insn, ...]:
    return shrink(program(text), {".rodata": CONSTANTS} if maps is None else maps).program.insns


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("r1 = map_value(3, 0)\nr0 = *(u32 *)(r1 + 0)\nexit", "r0 = 7\nexit"),
        (
            "r1 = map_value(3, 0)\nr2 = *(u32 *)(r1 + 0)\nr0 = 1\nif r2 == 7 goto +1\nr0 = 2\nexit",
            "r0 = 1\nexit",
        ),
        (
            "r1 = map_value(3, 0)\nr2 = *(u32 *)(r1 + 4)\nr0 = 1\nif r2 == 7 goto +1\nr0 = 2\nexit",
            "r0 = 2\nexit",
        ),
        ("r0 = 3\nr3 = r0\nr4 = r3\nexit", "r0 = 3\nexit"),
        ("r0 = *(u32 *)(r1 + 12)\nr0 <<= 32\nr0 >>= 32\nexit", "r0 = *(u32 *)(r1 + 12)\nexit"),
        (
            "r6 = r1\ncall 7\nr0 <<= 32\nr0 >>= 32\nr1 = *(u32 *)(r6 + 12)\nr0 += r1\nexit",
            "r6 = r1\ncall 7\nw0 = w0\nr1 = *(u32 *)(r6 + 12)\nr0 += r1\nexit",
        ),
        ("r2 = *(u32 *)(r1 + 12)\nr0 = 0\nif r2 == 0 goto +1\ngoto +1\ngoto +0\nexit", "r0 = 0\nexit"),
        (
            "r0 = *(u32 *)(r1 + 12)\nif r0 == 0 goto +3\nif r0 == 1 goto +3\nr0 += 1\nexit\ngoto +1\nr0 = 5\nexit",
            "r0 = *(u32 *)(r1 + 12)\nif r0 == 0 goto +4\nif r0 == 1 goto +2\nr0 += 1\nexit\nr0 = 5\nexit",
        ),
        ("r0 = 1\nif r0 == 1 goto +2\ncall pc+3\nexit\nr0 = 9\nexit\nr0 = 3\nexit", "r0 = 9\nexit"),
    ],
    ids=[
        "a constant load",
        "a branch always taken",
        "a branch never taken",
        "dead copies",
        "an extension of what is narrow",
        "an extension of what is not",
        "a branch to where it would go anyway",
        "a jump to a jump",
        "a function that nobody calls",
    ],
)
def test_what_can_be_known_is_left_out(before: str, after: str) -> None:
    assert shrunken(before) == assemble(after)


@pytest.mark.parametrize(
    "text",
    [
        "r1 = map_value(3, 0)\nr0 = *(u32 *)(r1 + 0)\nexit",
        "r2 = r10\n*(u64 *)(r10 - 8) = r2\nr0 = 0\nexit",
        "call 7\nr0 = 0\nexit",
        "r0 = 0\nnop_or_goto +0\nexit",
        "r0 = *(u32 *)(r1 + 12)\nr0 &= 7\nexit",
        "r0 = 0\nr0 += 1\nmay_goto -2\nexit",
    ],
    ids=["unknown data", "a store", "a helper call", "a static branch", "a mask", "may_goto"],
)
def test_what_others_may_want_stays(text: str) -> None:
    source = program(text)
    assert shrink(source, {}).program.insns == source.insns


def test_what_a_loader_fills_in_is_no_constant() -> None:
    """`r2 = 1` asks whether a field exists; the loader writes the answer over the 1."""
    text = "r2 = 1\nr0 = 5\nif r2 == 0 goto +1\nr0 = 6\nexit"
    assert shrunken(text) == assemble("r0 = 6\nexit")
    asks = replace(program(text), core={0: CoreRelocation(CoreKind.FIELD_EXISTS, 1, "0:0")})
    done = shrink(asks, {})
    assert done.program.insns == asks.insns
    assert done.program.core == asks.core


def test_records_move_along() -> None:
    source = program("r3 = 1\nr3 += 1\nr1 = map_value(3, 8)\nr0 = *(u32 *)(r1 + 12)\nexit")
    writable = replace(CONSTANTS, is_read_only=False)
    done = shrink(source, {".rodata": writable})
    assert done.moved == (None, None, 0, 1, 2, 3)
    assert done.program.references == {0: Reference(ReferenceKind.MAP_VALUE, ".rodata", 8)}
