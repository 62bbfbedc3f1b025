"""Memory of one thread for the programs that hooks start on it: found natively, by the thread pointer, without locks.

    block, 8192 bytes   0 owner (thread pointer)   8 level   1024 4 run states   2048 guards   4096 counts
    table               256 blocks, open addressing; a thread that finds no block runs no programs

`level` is how many run states are in use (a program may call a hooked function). A guard is not 0 while its program
runs on this thread; a count says how often the thread is in an image. Only the owner writes either, so no store is
atomic. `SEARCH_BLOCK` is what a thread does whose block is not where its hash says, that has none yet, or that is too
deep in programs.
"""

from __future__ import annotations

from typing import Final

from backends import abi

OWNER: Final = 0
LEVEL: Final = 8
RUNS: Final = 1024
LEVELS: Final = 4
GUARDS: Final = 2048
MOST_GUARDS: Final = 2048
COUNTS: Final = 4096
MOST_COUNTS: Final = 1024
BLOCK_SIZE: Final = 8192
BLOCKS: Final = 256
STACK_TOP: Final = 120  # in a run state of a block: where its BPF stack ends

_HASH: Final = 0x9E3779B97F4A7C15 - (1 << 64)

SEARCH_BLOCK: Final = "bpfc.search_block"
DECLARE_BLOCKS: Final = f"""@threads = external global i8
declare ptr @llvm.thread.pointer.p0()
declare ptr @{SEARCH_BLOCK}(i64, i64, i64)
"""


def find_block(levels: int) -> tuple[str, ...]:
    """LLVM lines that define `%likely`, the block of this thread if `%is.mine`.

    If not, `SEARCH_BLOCK(%id, %first, levels)` finds it. With `levels` not 0 a run state has to be free in it, too.
    """
    assert levels in (0, LEVELS), "the test below is for a power of two"
    find = (
        "%thread = call ptr @llvm.thread.pointer.p0()",
        "%id = ptrtoint ptr %thread to i64",
        f"%mixed = mul i64 %id, {_HASH}",
        "%first = lshr i64 %mixed, 56",
        f"%first.at = mul i64 %first, {BLOCK_SIZE}",
        "%likely = getelementptr i8, ptr @threads, i64 %first.at",
        "%owner = load volatile i64, ptr %likely, align 8",
    )
    if not levels:
        return (*find, "%is.mine = icmp eq i64 %owner, %id")
    return (
        *find,
        "%differs = xor i64 %owner, %id",
        f"%likely.level = getelementptr i8, ptr %likely, i64 {LEVEL}",
        "%likely.depth = load i64, ptr %likely.level, align 8",
        f"%is.full = lshr i64 %likely.depth, {LEVELS.bit_length() - 1}",
        "%is.other = or i64 %differs, %is.full",
        "%is.mine = icmp eq i64 %is.other, 0",
    )


SEARCH_BLOCK_TEXT: Final = f"""
@threads = external global i8
@lost = external global i64
define ptr @{SEARCH_BLOCK}(i64 %id, i64 %first, i64 %levels) nounwind {{
entry:
  br label %probe
probe:
  %n = phi i64 [ 0, %entry ], [ %more, %next ]
  %left = icmp ult i64 %n, {BLOCKS}
  br i1 %left, label %look, label %full
look:
  %sum = add i64 %first, %n
  %index = and i64 %sum, {BLOCKS - 1}
  %at = mul i64 %index, {BLOCK_SIZE}
  %block = getelementptr i8, ptr @threads, i64 %at
  %owner = load atomic i64, ptr %block monotonic, align 8
  %mine = icmp eq i64 %owner, %id
  br i1 %mine, label %found, label %claim
claim:
  %free = icmp eq i64 %owner, 0
  br i1 %free, label %take, label %next
take:
  %pair = cmpxchg ptr %block, i64 0, i64 %id seq_cst seq_cst
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %found, label %next
next:
  %more = add i64 %n, 1
  br label %probe
found:
  %level.at = getelementptr i8, ptr %block, i64 {LEVEL}
  %level = load i64, ptr %level.at, align 8
  %free.level = icmp ult i64 %level, %levels
  %any.level = icmp eq i64 %levels, 0
  %good = or i1 %free.level, %any.level
  br i1 %good, label %take.it, label %full
take.it:
  ret ptr %block
full:
  %count = atomicrmw add ptr @lost, i64 1 monotonic
  ret ptr null
}}
"""

assert LEVELS * abi.RUN_STATE_SIZE <= GUARDS - RUNS, "the run states end before the guards"
