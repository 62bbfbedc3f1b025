"""64-bit division for machines that have none, under the names by which LLVM calls it: those of libgcc, and of the ARM
run-time ABI (RTABI32, 4.3.1), whose functions return quotient and remainder in r0 to r3.

    i386     __udivdi3  __umoddi3  __divdi3  __moddi3
    armv7    __aeabi_uldivmod  __aeabi_ldivmod

Bit by bit, but for numbers of 32 bits, which the machine divides itself. Divisors are never 0: lowering sees to it.
"""

from __future__ import annotations

from typing import Final

DIVISIONS: Final = (
    *("__udivdi3", "__umoddi3", "__divdi3", "__moddi3"),
    *("__aeabi_uldivmod", "__aeabi_ldivmod"),
)

_DIVIDE: Final = """
define internal { i64, i64 } @divide(i64 %x, i64 %y) nounwind {
entry:
  %both = or i64 %x, %y
  %high = lshr i64 %both, 32
  %is.short = icmp eq i64 %high, 0
  br i1 %is.short, label %short, label %bits
short:
  %a = trunc i64 %x to i32
  %b = trunc i64 %y to i32
  %q32 = udiv i32 %a, %b
  %r32 = urem i32 %a, %b
  %q64 = zext i32 %q32 to i64
  %r64 = zext i32 %r32 to i64
  br label %done
bits:
  %n = phi i32 [ 0, %entry ], [ %n.next, %bits ]
  %left = phi i64 [ %x, %entry ], [ %left.next, %bits ]
  %rest = phi i64 [ 0, %entry ], [ %rest.next, %bits ]
  %quotient = phi i64 [ 0, %entry ], [ %quotient.next, %bits ]
  %carry = lshr i64 %rest, 63
  %top = lshr i64 %left, 63
  %left.next = shl i64 %left, 1
  %doubled = shl i64 %rest, 1
  %with.bit = or i64 %doubled, %top
  %is.over = icmp ne i64 %carry, 0
  %is.at.least = icmp uge i64 %with.bit, %y
  %fits = or i1 %is.over, %is.at.least
  %less = sub i64 %with.bit, %y
  %rest.next = select i1 %fits, i64 %less, i64 %with.bit
  %bit = zext i1 %fits to i64
  %shifted = shl i64 %quotient, 1
  %quotient.next = or i64 %shifted, %bit
  %n.next = add i32 %n, 1
  %more = icmp ult i32 %n.next, 64
  br i1 %more, label %bits, label %done
done:
  %q = phi i64 [ %q64, %short ], [ %quotient.next, %bits ]
  %r = phi i64 [ %r64, %short ], [ %rest.next, %bits ]
  %pair = insertvalue { i64, i64 } poison, i64 %q, 0
  %result = insertvalue { i64, i64 } %pair, i64 %r, 1
  ret { i64, i64 } %result
}

define internal { i64, i64 } @divide.signed(i64 %x, i64 %y) nounwind {
  %x.sign = ashr i64 %x, 63
  %y.sign = ashr i64 %y, 63
  %x.flipped = xor i64 %x, %x.sign
  %y.flipped = xor i64 %y, %y.sign
  %x.size = sub i64 %x.flipped, %x.sign
  %y.size = sub i64 %y.flipped, %y.sign
  %sizes = call { i64, i64 } @divide(i64 %x.size, i64 %y.size)
  %q.size = extractvalue { i64, i64 } %sizes, 0
  %r.size = extractvalue { i64, i64 } %sizes, 1
  %q.sign = xor i64 %x.sign, %y.sign
  %q.flipped = xor i64 %q.size, %q.sign
  %q = sub i64 %q.flipped, %q.sign
  %r.flipped = xor i64 %r.size, %x.sign
  %r = sub i64 %r.flipped, %x.sign
  %pair = insertvalue { i64, i64 } poison, i64 %q, 0
  %result = insertvalue { i64, i64 } %pair, i64 %r, 1
  ret { i64, i64 } %result
}
"""


def divisions_text() -> str:
    """All of them, as an LLVM module for any machine."""
    return "\n".join((_DIVIDE, *map(_definition, DIVISIONS)))


def _definition(name: str) -> str:
    core = "divide" if name.removeprefix("__aeabi_").startswith(("__u", "u")) else "divide.signed"
    both = f"%both = call {{ i64, i64 }} @{core}(i64 %x, i64 %y)"
    if name.startswith("__aeabi"):
        return f"define {{ i64, i64 }} @{name}(i64 %x, i64 %y) {{\n  {both}\n  ret {{ i64, i64 }} %both\n}}"
    part = 1 if "mod" in name else 0
    one = f"%one = extractvalue {{ i64, i64 }} %both, {part}"
    return f"define i64 @{name}(i64 %x, i64 %y) {{\n  {both}\n  {one}\n  ret i64 %one\n}}"
