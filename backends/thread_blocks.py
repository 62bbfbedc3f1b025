"""Memory of one thread for the programs that hooks start on it: found natively, by the thread pointer, without locks.

    block, 8192 bytes   0 owner (thread pointer)   8 level   1024 4 run states   2048 guards   4096 counts
    table               256 blocks, open addressing; a thread that finds no block runs no programs

`level` is how many run states are in use (a program may call a hooked function). A guard is not 0 while its program
runs on this thread; a count says how often the thread is in an image. Only the owner writes either, so no store is
atomic. A block is never given back: a later thread at the same address takes it over.
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

FIND_BLOCK: Final = f"""
declare ptr @llvm.thread.pointer.p0()
define internal ptr @bpfc.find_block(ptr %table) alwaysinline nounwind {{
  %tp = call ptr @llvm.thread.pointer.p0()
  %id = ptrtoint ptr %tp to i64
  %mixed = mul i64 %id, {_HASH}
  %first = lshr i64 %mixed, 56
  %at = mul i64 %first, {BLOCK_SIZE}
  %block = getelementptr i8, ptr %table, i64 %at
  %owner = load atomic i64, ptr %block monotonic, align 8
  %mine = icmp eq i64 %owner, %id
  br i1 %mine, label %found, label %search, !prof !0
found:
  ret ptr %block
search:
  %other = call ptr @bpfc.search_block(ptr %table, i64 %id, i64 %first)
  ret ptr %other
}}
define internal ptr @bpfc.search_block(ptr %table, i64 %id, i64 %first) noinline cold nounwind {{
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
  %block = getelementptr i8, ptr %table, i64 %at
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
  ret ptr %block
full:
  ret ptr null
}}
"""

assert LEVELS * abi.RUN_STATE_SIZE <= GUARDS - RUNS, "the run states end before the guards"
