"""What threads do seldom: find their block when it is not where its hash says, take a processor's number, end.

A processor's number belongs to one thread while its programs run, so that per-cpu values do. It is the one of a run that
is under way on the thread already; a free one; or, when none becomes free in time, one that another thread has too (the
other may wait for something that this thread holds).
"""

from __future__ import annotations

from typing import Final

from backends import abi
from backends.thread_blocks import (
    BLOCK_SIZE,
    BLOCKS,
    COUNTS,
    CPU_DEPTH,
    CPU_IS_HELD,
    CPU_NUMBER,
    GUARDS,
    LEVEL,
    LEVELS,
    RUNS,
    SEARCH_BLOCK,
    STACK_TOP,
)

TAKE_CPU, GIVE_CPU = "bpfc.take_cpu", "bpfc.give_cpu"
THREAD_GONE: Final = "bpfc.thread_gone"
CPU_LINE: Final = 64  # bytes by processor in `cpus`, the first for their number
_ROUNDS: Final = 1 << 15  # looks at all processors, some 10 ms, before two threads share one
_BUSY: Final = BLOCK_SIZE - GUARDS


def _field(base: str, offset: int) -> str:
    return f"getelementptr i8, ptr {base}, i64 {offset}"


def _prepare_levels() -> str:
    """Where the BPF stack of each run state ends, and its random numbers begin."""
    lines = []
    for level in range(LEVELS):
        run = RUNS + level * abi.RUN_STATE_SIZE
        lines += [
            f"%above{level} = add i64 %stacks, {(level + 1) * abi.STACK_SIZE}",
            f"%top{level} = {_field('%block', run + STACK_TOP)}",
            f"store i64 %above{level}, ptr %top{level}, align 8",
            f"%rng{level} = {_field('%block', run + abi.RNG)}",
            f"store i64 {abi.SEED}, ptr %rng{level}, align 8",
        ]
    return "\n  ".join(lines)


def thread_parts_text(is_hosted: bool) -> str:
    """The functions. `is_hosted`: there is a C library that tells when a thread ends, and lets others run."""
    remember = (
        "%key = load i32, ptr @key, align 8\n  %set = call i32 @pthread_setspecific(i32 %key, ptr %block)"
    )
    declared = (
        "@key = external global i32\ndeclare i32 @pthread_setspecific(i32, ptr)\ndeclare i32 @sched_yield()"
    )
    return f"""
@threads = external global i8
@stacks = external global i8
@lost = external global i64
@cpus = external global i8
{declared if is_hosted else ""}

define ptr @{SEARCH_BLOCK}(i64 %id, i64 %first, i64 %levels) nounwind {{
entry:
  br label %probe
probe:
  %n = phi i64 [ 0, %entry ], [ %n.next, %other ]
  %sum = add i64 %first, %n
  %index = and i64 %sum, {BLOCKS - 1}
  %at = mul i64 %index, {BLOCK_SIZE}
  %found = getelementptr i8, ptr @threads, i64 %at
  %owner = load atomic i64, ptr %found monotonic, align 8
  %mine = icmp eq i64 %owner, %id
  br i1 %mine, label %known, label %other
other:
  %n.next = add i64 %n, 1
  %left = icmp ult i64 %n.next, {BLOCKS}
  br i1 %left, label %probe, label %claim
claim:
  %m = phi i64 [ 0, %other ], [ %m.next, %taken ]
  %sum2 = add i64 %first, %m
  %index2 = and i64 %sum2, {BLOCKS - 1}
  %at2 = mul i64 %index2, {BLOCK_SIZE}
  %block = getelementptr i8, ptr @threads, i64 %at2
  %pair = cmpxchg ptr %block, i64 0, i64 %id seq_cst seq_cst
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %prepare, label %taken
taken:
  %m.next = add i64 %m, 1
  %more = icmp ult i64 %m.next, {BLOCKS}
  br i1 %more, label %claim, label %full
prepare:
  %stack.at = mul i64 %index2, {LEVELS * abi.STACK_SIZE}
  %stacks.start = getelementptr i8, ptr @stacks, i64 %stack.at
  %stacks = ptrtoint ptr %stacks.start to i64
  {_prepare_levels()}
  %hint.at = {_field("%block", CPU_NUMBER)}
  %hint = trunc i64 %index2 to i32
  store i32 %hint, ptr %hint.at, align 4
  {remember if is_hosted else ""}
  br label %known
known:
  %its = phi ptr [ %found, %probe ], [ %block, %prepare ]
  %level.at = {_field("%its", LEVEL)}
  %level = load i64, ptr %level.at, align 8
  %free.level = icmp ult i64 %level, %levels
  %any.level = icmp eq i64 %levels, 0
  %good = or i1 %free.level, %any.level
  br i1 %good, label %done, label %full
done:
  ret ptr %its
full:
  %count = atomicrmw add ptr @lost, i64 1 monotonic
  ret ptr null
}}

define void @{THREAD_GONE}(ptr %block) nounwind {{
  %depth.at = {_field("%block", CPU_DEPTH)}
  %level.at = {_field("%block", LEVEL)}
  %busy = {_field("%block", GUARDS)}
  %held.at = {_field("%block", CPU_IS_HELD)}
  %held = load i32, ptr %held.at, align 4
  %is.held = icmp ne i32 %held, 0
  br i1 %is.held, label %free, label %clear
free:
  store i32 1, ptr %depth.at, align 4
  call void @{GIVE_CPU}(ptr %block)
  br label %clear
clear:
  store i32 0, ptr %depth.at, align 4
  store i64 0, ptr %level.at, align 8
  call void @llvm.memset.p0.i64(ptr align 8 %busy, i8 0, i64 {_BUSY}, i1 false)
  store atomic i64 0, ptr %block release, align 8
  ret void
}}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define i32 @{TAKE_CPU}(ptr %block) nounwind {{
entry:
  %depth.at = {_field("%block", CPU_DEPTH)}
  %number.at = {_field("%block", CPU_NUMBER)}
  %held.at = {_field("%block", CPU_IS_HELD)}
  %depth = load i32, ptr %depth.at, align 4
  %deeper = add i32 %depth, 1
  store i32 %deeper, ptr %depth.at, align 4
  %hint = load i32, ptr %number.at, align 4
  %nested = icmp ne i32 %depth, 0
  br i1 %nested, label %same, label %look
same:
  ret i32 %hint
look:
  %count = load i32, ptr @cpus, align 4
  %most = mul i32 %count, {_ROUNDS}
  br label %try
try:
  %t = phi i32 [ 0, %look ], [ %t.next, %again ]
  %sum = add i32 %hint, %t
  %number = urem i32 %sum, %count
  %wide = zext i32 %number to i64
  %line = mul i64 %wide, {CPU_LINE}
  %offset = add i64 %line, {CPU_LINE}
  %lock = getelementptr i8, ptr @cpus, i64 %offset
  %was = atomicrmw xchg ptr %lock, i32 1 acquire
  %free = icmp eq i32 %was, 0
  br i1 %free, label %got, label %next
next:
  %t.next = add i32 %t, 1
  %round = urem i32 %t.next, %count
  %is.round = icmp eq i32 %round, 0
  br i1 %is.round, label %wait, label %again
wait:
  {"%yielded = call i32 @sched_yield()" if is_hosted else ""}
  br label %again
again:
  %left = icmp ult i32 %t.next, %most
  br i1 %left, label %try, label %share
got:
  store i32 1, ptr %held.at, align 4
  store i32 %number, ptr %number.at, align 4
  ret i32 %number
share:
  %shared = urem i32 %hint, %count
  store i32 %shared, ptr %number.at, align 4
  ret i32 %shared
}}

define void @{GIVE_CPU}(ptr %block) nounwind {{
  %depth.at = {_field("%block", CPU_DEPTH)}
  %held.at = {_field("%block", CPU_IS_HELD)}
  %depth = load i32, ptr %depth.at, align 4
  %less = sub i32 %depth, 1
  store i32 %less, ptr %depth.at, align 4
  %held = load i32, ptr %held.at, align 4
  %is.last = icmp eq i32 %less, 0
  %is.held = icmp ne i32 %held, 0
  %frees = and i1 %is.last, %is.held
  br i1 %frees, label %free, label %done
free:
  store i32 0, ptr %held.at, align 4
  %number.at = {_field("%block", CPU_NUMBER)}
  %number = load i32, ptr %number.at, align 4
  %wide = zext i32 %number to i64
  %line = mul i64 %wide, {CPU_LINE}
  %offset = add i64 %line, {CPU_LINE}
  %lock = getelementptr i8, ptr @cpus, i64 %offset
  store atomic i32 0, ptr %lock release, align 4
  br label %done
done:
  ret void
}}
"""


assert COUNTS > GUARDS, "counts and guards are cleared at once"
