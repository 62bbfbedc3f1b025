"""Memory of one thread for the programs that hooks start on it: found natively, by the thread pointer, without locks.

    block, 8192 bytes   0 owner (thread pointer)   8 level   16 cpu   1024 4 run states   2048 guards   4096 counts
    table               1024 blocks, open addressing; a thread that finds no block runs no programs

`level` is how many run states are in use (a program may call a hooked function). A guard is not 0 while its program
runs on this thread; a count says how often the thread is in an image. Only the owner writes either, so no store is
atomic. `SEARCH_BLOCK` (backends/thread_parts) is what a thread does whose block is not where its hash says, that has none
yet, or that is too deep in programs. A thread that ends gives its block back.
"""

from __future__ import annotations

from typing import Final

from backends import abi

OWNER: Final = 0
LEVEL: Final = 8
CPU_DEPTH, CPU_NUMBER, CPU_IS_HELD = 16, 20, 24  # u32 each
RUNS: Final = 1024
LEVELS: Final = 4
GUARDS: Final = 2048
MOST_GUARDS: Final = 2048
COUNTS: Final = 4096
MOST_COUNTS: Final = 1024
BLOCK_SIZE: Final = 8192
BLOCKS: Final = 1024
STACK_TOP: Final = 120  # in a run state of a block: where its BPF stack ends

_SHIFT: Final = 64 - (BLOCKS.bit_length() - 1)
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
        f"%first = lshr i64 %mixed, {_SHIFT}",
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


assert LEVELS * abi.RUN_STATE_SIZE <= GUARDS - RUNS, "the run states end before the guards"
