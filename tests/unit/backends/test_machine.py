"""LLVM told what it must be told to emit right code."""

from __future__ import annotations

from backends.machine import Level, Machine
from backends.registry import target_named

# After selection the comparison is false and the two numbers are known; LLVM then takes 0xb890 for a negative one.
_LATE = """
define i64 @f(i32 %a) {
  %high = sext i32 %a to i64
  %none = and i64 %high, -4294967296
  %low = trunc i64 %none to i32
  %is_large = icmp uge i32 %low, 4
  %chosen = select i1 %is_large, i64 -7, i64 -17
  %result = xor i64 %chosen, 1881651344
  ret i64 %result
}
"""


def test_ppc64le_does_not_fold_numbers_of_mixed_signs_late() -> None:
    machine = Machine(target_named("ppc64le"), Level.FAST)
    lines = [line.split() for line in machine.emit_assembly(machine.parse(_LATE)).splitlines()]
    assert ["xori", "3,", "3,", "47248"] in lines
    assert ["li", "3,", "18303"] not in lines
