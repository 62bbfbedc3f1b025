"""The batch loop: one native function that runs a program over many packets in place.

    rets[i] = program(packet at addresses[i], lengths[i] bytes)      for i in [first, count)

It resets the context and the fuel for each packet and stops at the first trap, returning the number of packets done.
A program that checks pointers of unknown origin sees one packet at a time: the first row of its table of memory is
set to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

from backends import abi
from backends.unit import quote
from ir.context import HEADER, ContextLayout, Pointer

_TABLE_ROW: Final = f"""
  %table.at = getelementptr i8, ptr %run, i64 {abi.SEGMENTS}
  %table = load ptr, ptr %table.at, align 8
  store ptr %packet, ptr %table, align 8
  %table.end = getelementptr i8, ptr %table, i64 8
  store ptr %end, ptr %table.end, align 8
"""


_WIDENED: Final = """  %packet.wide = ptrtoint ptr %packet to i64
  %ctx.wide = ptrtoint ptr %ctx to i64
"""


@final
@dataclass(frozen=True, slots=True)
class Loop:
    """What a batch loop runs: a program whose context is `layout`.

    `may_trap`: it can end at a check. `has_table`: it checks pointers against the run's table of memory. `is_small`:
    the loop takes its body in, which is worth a nanosecond or two for each packet. `is_narrow`: pointers are of 32 bits.
    """

    layout: ContextLayout
    may_trap: bool
    has_table: bool = False
    is_small: bool = False
    is_narrow: bool = False


def batch_texts(program: str, loop: Loop) -> list[str]:
    """LLVM IR of both batch loops: one that may take the program's body in, and one that calls its entry."""
    quoted = quote(program)
    hooked = replace(loop, may_trap=True, is_small=False)
    return [
        _batch_text(quote(abi.batch_symbol(program)), f"@{quoted}", loop),
        _batch_text(quote(abi.hooked_batch_symbol(program)), "%entered", hooked, f"@{quoted}"),
    ]


def _batch_text(symbol: str, callee: str, loop: Loop, entry: str = "") -> str:
    """LLVM IR of `i64 batch(run, ctx, addresses, lengths, first, count, rets, fuel)`; lengths and rets are u32 arrays.

    With `entry` the callee is its address, stored where LLVM can't see that it never changes.
    """
    prepare = _TABLE_ROW if loop.has_table else ""
    if loop.layout.is_raw:
        given = _pointer(loop, "packet") + ", i64 %length"
    else:
        prepare, given = prepare + _prepare(loop.layout), _pointer(loop, "ctx")
    check = f"""
  %trap.at = getelementptr i8, ptr %run, i64 {abi.TRAP_CODE}
  %trap.code = load i32, ptr %trap.at, align 4
  %fine = icmp eq i32 %trap.code, 0
  br i1 %fine, label %keep, label %stop"""
    inline = " alwaysinline" if loop.is_small else ""
    following = check if loop.may_trap else "\n  br label %keep"
    opaque = (
        f"""
  %box = alloca ptr
  store volatile ptr {entry}, ptr %box
  %entered = load volatile ptr, ptr %box"""
        if entry
        else ""
    )
    return f"""
define i64 @{symbol}(ptr noalias %run, ptr noalias %ctx, ptr noalias %addresses, ptr noalias %lengths,
                     i64 %first, i64 %count, ptr noalias %rets, i64 %fuel) nounwind {{
entry:{opaque}
  br label %head
head:
  %i = phi i64 [ %first, %entry ], [ %more, %keep ]
  %left = icmp ult i64 %i, %count
  br i1 %left, label %body, label %stop
body:
  store i64 %fuel, ptr %run, align 8
  %tails = getelementptr i8, ptr %run, i64 {abi.TAIL_CALLS}
  store i32 {abi.TAIL_CALL_LIMIT}, ptr %tails, align 4
  %address.at = getelementptr ptr, ptr %addresses, i64 %i
  %packet = load ptr, ptr %address.at, align 8
  %length.at = getelementptr i32, ptr %lengths, i64 %i
  %short = load i32, ptr %length.at, align 4
  %length = zext i32 %short to i64
  %end = getelementptr i8, ptr %packet, i64 %length
{_WIDENED if loop.is_narrow else ""}{prepare}
  %wide = call i64 {callee}(ptr %run, {given}){inline}{following}
keep:
  %ret = trunc i64 %wide to i32
  %ret.at = getelementptr i32, ptr %rets, i64 %i
  store i32 %ret, ptr %ret.at, align 4
  %more = add i64 %i, 1
  br label %head
stop:
  ret i64 %i
}}
"""


def _pointer(loop: Loop, name: str) -> str:
    """A pointer as the program takes it."""
    return f"i64 %{name}.wide" if loop.is_narrow else f"ptr %{name}"


def _prepare(layout: ContextLayout) -> str:
    """Point the context at the packet; only layouts with packet pointers have any to set."""
    if not layout.pointers:
        return ""
    lines = []
    for pointer in Pointer:
        value = "%end" if pointer in (Pointer.DATA_END, Pointer.PACKET_END) else "%packet"
        lines.append(f"  %p{pointer.value} = getelementptr i8, ptr %ctx, i64 {pointer.value}")
        lines.append(f"  store ptr {value}, ptr %p{pointer.value}, align 8")
    if "len" in layout.fields:
        lines.append(f"  %len.at = getelementptr i8, ptr %ctx, i64 {HEADER + layout.fields['len'][0]}")
        lines.append("  store i32 %short, ptr %len.at, align 4")
    return "\n".join(lines)
