"""LLVM told what it must be told to emit right code."""

from __future__ import annotations

from backends.machine import Level, Machine
from backends.registry import target_named

# Only after selection the comparison is known to be false, and so both numbers of the xor.
_LATE = """
define i64 @f(ptr %a) {
  %word = load i32, ptr %a
  %whole = sext i32 %word to i64
  %high = and i64 %whole, -4294967296
  %none = or i64 %high, 0
  %low = trunc i64 %none to i32
  %wide = zext i32 %low to i64
  %is_large = icmp uge i64 %wide, 4
  %chosen = select i1 %is_large, i64 -7, i64 -17, !prof !0
  %result = xor i64 %chosen, 1881651344
  ret i64 %result
}
!0 = !{!"branch_weights", i32 1, i32 2000}
"""


def test_ppc64le_does_not_fold_numbers_of_mixed_signs_late() -> None:
    machine = Machine(target_named("ppc64le"), Level.FAST)
    lines = [line.split() for line in machine.emit_assembly(machine.parse(_LATE)).splitlines()]
    assert ["xori", "3,", "3,", "47248"] in lines  # not: li 3, 18303
