"""What images share: running a program with care, time, and what threads do seldom. Compiled once a process.

    run_program    the long way to run one program: when it is switched off, timed, or running already on this thread,
                   and in images of many programs

An image runs a program itself when the link's mode is 0 and the program's guard is free (backends/trampoline).
"""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.thread_blocks import STACK_TOP
from backends.thread_parts import GIVE_CPU, TAKE_CPU, thread_parts_text

# A program's record, then that of a link; byte offsets.
RECORD_GUARD, RECORD_SEGMENTS, RECORD_SEGMENT_COUNT, RECORD_FUEL = 0, 8, 16, 24
RECORD_MISSES, RECORD_RUNS, RECORD_NS = 32, 40, 48
RECORD_SIZE: Final = 64
LINK_MODE, LINK_COOKIE = 0, 8
MODE_OFF, MODE_TIMED = 1, 2

RUN_PROGRAM: Final = "bpfc.run_program"
DECLARE_PARTS: Final = f"""declare i32 @{TAKE_CPU}(ptr)
declare void @{GIVE_CPU}(ptr)
declare i64 @{RUN_PROGRAM}(ptr, ptr, ptr, ptr, ptr, ptr)
"""


def fill_run(run: str, record: str, link: str, unique: str) -> list[str]:
    """LLVM lines that make a run state ready for one run; operands of records, and a part of names."""
    rows: list[tuple[str, str, str, int]] = [  # type, base, where from; where to
        ("i64", record, str(RECORD_FUEL), abi.FUEL),
        ("<2 x i64>", record, str(RECORD_SEGMENTS), abi.SEGMENTS),
        ("i64", run, str(STACK_TOP), abi.STACK),
        ("i64", link, str(LINK_COOKIE), abi.COOKIE),
    ]
    lines = []
    for number, (kind, base, source, offset) in enumerate(rows):
        name = f"%{unique}.{number}"
        lines += [
            f"{name}.from = getelementptr i8, ptr {base}, i64 {source}",
            f"{name} = load {kind}, ptr {name}.from, align 8",
            f"{name}.to = getelementptr i8, ptr {run}, i64 {offset}",
            f"store {kind} {name}, ptr {name}.to, align 8",
        ]
    for kind, offset, value in (
        ("i64", abi.TRAP_CODE, 0),
        ("i32", abi.TAIL_CALLS, abi.TAIL_CALL_LIMIT),
        ("i64", abi.DEPTH, 8),
        ("i64", abi.RETVAL, 0),
        ("i32", abi.REDIRECT, 0),
    ):
        name = f"%{unique}.c{offset}"
        lines += [
            f"{name} = getelementptr i8, ptr {run}, i64 {offset}",
            f"store {kind} {value}, ptr {name}, align {4 if kind == 'i32' else 8}",
        ]
    return lines


def _field(base: str, offset: int) -> str:
    return f"getelementptr i8, ptr {base}, i64 {offset}"


_FILL: Final = "\n  ".join(fill_run("%run", "%record", "%link", "r"))


def parts_text(is_hosted: bool, word: int = 8) -> str:
    """The functions that images call, on a machine with pointers of `word` bytes; `is_hosted` as `thread_parts_text`."""
    given = "ptr %ctx" if word == 8 else "i64 %ctx.wide"
    return thread_parts_text(is_hosted) + _PARTS.replace(_CONTEXT, given)


_CONTEXT: Final = "<context>"
_PARTS: Final = f"""
define internal i64 @bpfc.now() noinline cold nounwind {{
  %ts = alloca [2 x i64], align 16
  %done = call i32 @clock_gettime(i32 1, ptr %ts)
  %s = load i64, ptr %ts, align 8
  %ns.at = getelementptr i64, ptr %ts, i64 1
  %ns = load i64, ptr %ns.at, align 8
  %scaled = mul i64 %s, 1000000000
  %now = add i64 %scaled, %ns
  ret i64 %now
}}
declare i32 @clock_gettime(i32, ptr)

define i64 @{RUN_PROGRAM}(ptr %block, ptr %run, ptr %record, ptr %link, ptr %program, ptr %ctx) nounwind {{
entry:
  %ctx.wide = ptrtoint ptr %ctx to i64
  %mode = load volatile i64, ptr %link, align 8
  %off = and i64 %mode, {MODE_OFF}
  %is.off = icmp ne i64 %off, 0
  br i1 %is.off, label %skip, label %try, !prof !1
try:
  %guard.offset = load i64, ptr %record, align 8
  %guard = getelementptr i8, ptr %block, i64 %guard.offset
  %active = load volatile i8, ptr %guard, align 1
  %again = icmp ne i8 %active, 0
  br i1 %again, label %miss, label %go, !prof !1
miss:
  %misses = {_field("%record", RECORD_MISSES)}
  %m = atomicrmw add ptr %misses, i64 1 monotonic
  br label %skip
skip:
  ret i64 0
go:
  store volatile i8 1, ptr %guard, align 1
  %bare = icmp eq ptr %run, null
  br i1 %bare, label %ready, label %fill
fill:
  {_FILL}
  br label %ready
ready:
  %timed = icmp ne i64 %mode, 0
  br i1 %timed, label %time, label %call, !prof !1
call:
  %called = call i64 %program(ptr %run, {_CONTEXT})
  br label %done
time:
  %start = call i64 @bpfc.now()
  %result = call i64 %program(ptr %run, {_CONTEXT})
  %now.mode = load volatile i64, ptr %link, align 8
  %still = and i64 %now.mode, {MODE_TIMED}
  %is.timed = icmp ne i64 %still, 0
  br i1 %is.timed, label %update, label %done
update:
  %end = call i64 @bpfc.now()
  %ns = sub i64 %end, %start
  %runs.at = {_field("%record", RECORD_RUNS)}
  %a = atomicrmw add ptr %runs.at, i64 1 monotonic
  %ns.at = {_field("%record", RECORD_NS)}
  %b = atomicrmw add ptr %ns.at, i64 %ns monotonic
  br label %done
done:
  %answer = phi i64 [ %called, %call ], [ %result, %time ], [ %result, %update ]
  store volatile i8 0, ptr %guard, align 1
  ret i64 %answer
}}
!1 = !{{!"branch_weights", i32 1, i32 1048575}}
"""
