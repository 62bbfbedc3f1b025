"""FC-05 and FC-09 on every machine: a call is near up to the exact limits of its encoding, and far one unit beyond."""

from __future__ import annotations

from typing import Final

import pytest

from backends.native_code import UNDEFINED, NativeCode
from backends.registry import NAMES, target_named
from backends.target import Base, Target
from runtime.layout import layout_of
from runtime.link_report import Reach
from runtime.relocate import Relocated, place, relocate
from tests.native import compile_text

MIB, GIB = 1 << 20, 1 << 30
AT: Final = 0x2000_0000_0000
CALLER = """
declare i64 @callee(i64)
define i64 @caller(i64 %x) {
  %y = call i64 @callee(i64 %x)
  %z = add i64 %y, 1
  ret i64 %z
}
"""
# Of a call instruction, first to last distance in reach and the unit of distances, from the architecture manuals.
LIMITS: Final = {
    "x86_64": (-(2**31), 2**31 - 1, 1),
    "aarch64": (-128 * MIB, 128 * MIB - 4, 4),
    "riscv64": (-(2**31) - 2**11, 2**31 - 2**11 - 2, 2),
    "s390x": (-4 * GIB, 4 * GIB - 2, 2),
    "ppc64le": (-32 * MIB, 32 * MIB - 4, 4),
    "armv7": (-32 * MIB, 32 * MIB - 4, 4),
}
UNLIMITED: Final = ("i386",)  # a call reaches all of its addresses


def place_of(target: Target) -> int:
    """Where the caller is: in the middle of the addresses."""
    return AT if target.word == 8 else 0x8000_0000


def bound(code: NativeCode, target: Target, callee: int) -> Relocated:
    """The caller's image in its place, its callee somewhere; it never runs."""
    layout = layout_of(code, target)
    at = place_of(target)
    data = at + layout.code_size + 0x2000
    placed = place(code, layout, (at, data), {"callee": callee}.get, {}, target.table_base)
    return relocate(code, target, layout, placed)


def call_place(code: NativeCode, target: Target) -> tuple[int, int]:
    """Where the call's distance counts from, as the offset in the image of its relocation less the addend."""
    layout = layout_of(code, target)
    (found,) = [
        relocation
        for relocation in code.relocations
        if target.relocations[relocation.type].base is Base.BRANCH
        and code.symbols[relocation.symbol].section == UNDEFINED
    ]
    return place_of(target) + layout.sections[found.section] + found.offset, found.addend


def test_every_target_has_its_limits_here() -> None:
    assert {*LIMITS, *UNLIMITED} == set(NAMES)


@pytest.mark.parametrize("name", UNLIMITED)
@pytest.mark.parametrize("callee", [0x1000, 0x7FFF_F000, 0x8000_1000, 0xFFFF_F000])
def test_fc_05_where_a_call_reaches_all_addresses_none_is_far(name: str, callee: int) -> None:
    target = target_named(name)
    code = compile_text(CALLER, target)
    image = bound(code, target, callee)
    ((_, _, _, reach),) = image.calls
    start, addend = call_place(code, target)
    offset = start - place_of(target)
    distance = int.from_bytes(image.code[offset : offset + 4], target.byte_order)
    assert (reach, (start - addend + distance) & 0xFFFF_FFFF) == (Reach.NEAR, callee)


@pytest.mark.parametrize("name", LIMITS)
def test_fc_05_and_09_calls_are_near_exactly_as_far_as_the_machine_reaches(name: str) -> None:
    target = target_named(name)
    code = compile_text(CALLER, target)
    low, high, unit = LIMITS[name]
    start, addend = call_place(code, target)
    sizes, seen = set(), {}
    for distance in (low - unit, low, high, high + unit):
        image = bound(code, target, start - addend + distance)
        ((_, _, found, reach),) = image.calls
        seen[distance] = (found, reach)
        sizes.add(len(image.code))
    # Functions of other images are entered through a veneer on ppc64le, because it sets what they find their data by.
    near = Reach.VENEER if target.veneer.sets_up else Reach.NEAR
    assert seen == {
        low - unit: (low - unit, Reach.VENEER),
        low: (low, near),
        high: (high, near),
        high + unit: (high + unit, Reach.VENEER),
    }
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        (name, distance)
        for name in LIMITS
        for distance in ((GIB, -GIB) if target_named(name).word == 4 else (5 * GIB, -5 * GIB, 128 * GIB))
    ],
)
def test_fc_06_a_far_callee_is_in_a_literal_and_no_instruction_knows_it(name: str, distance: int) -> None:
    """Two far places of the callee differ in the eight bytes of a literal alone."""
    target = target_named(name)
    code = compile_text(CALLER, target)
    at = place_of(target)
    first, second = (bound(code, target, at + distance + step).code for step in (0, 0x1000))
    changed = [at for at, (old, new) in enumerate(zip(first, second, strict=True)) if old != new]
    assert changed
    literal = changed[0] // 8 * 8
    assert set(changed) <= set(range(literal, literal + 8))
    assert int.from_bytes(first[literal : literal + 8], target.byte_order) == at + distance
