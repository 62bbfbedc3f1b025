"""The contract between compiled programs, native helpers and the runtime: signatures and the per-run state.

Every compiled BPF function is `i64 f(ptr run, args...)`, args being r1..r5 as far as the function uses them (`ptr` or
`i64` by inference; both travel in integer registers). An entry program is `i64 f(ptr run, ptr ctx)`. Every helper, native
or host, is `i64 helper(ptr run, r1, ..., rN)`. `run` is this structure, one per running thread, owned by the runtime:

    offset  0 fuel 8           back-edges the run may still take
            8 trap_code 4      0, or why the run ended at a check (Trap)
           12 trap_insn 4      the slot of the instruction that trapped
           16 cpu 4            what bpf_get_smp_processor_id says; also picks the per-cpu slot of maps
           20 tail_calls 4     tail calls left (33 at the start)
           24 rng 8            state of bpf_get_prandom_u32
           32 segments 8       array of (base u64, end u64, flags u64): memory the program may touch; flags are
                              SEGMENT_WRITABLE, and the address of the map whose values are there
           40 segment_count 8
           48 depth 8          frames left for indirect calls
           56 insns 8          instructions counted, in counting builds
           64 redirect 32      verdict of bpf_redirect*: kind u32, index u32, flags u64, map u64, reserved u64
           96 host 8           handle of the runtime's Python state of this run
          104 stack 8         top of the unused part of the BPF stack, for frames that live outside the native stack
          112 cookie 8         what bpf_get_attach_cookie says
          120 context 8        the context that a dynptr of this run's packet has
          128 retval 8         what bpf_get_retval says, when bpf_set_retval has said so
          136 reserved
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

RUN_STATE_SIZE: Final = 256

FUEL: Final = 0
TRAP_CODE: Final = 8
TRAP_INSN: Final = 12
CPU: Final = 16
TAIL_CALLS: Final = 20
RNG: Final = 24
SEGMENTS: Final = 32
SEGMENT_COUNT: Final = 40
DEPTH: Final = 48
INSNS: Final = 56
REDIRECT: Final = 64
HOST: Final = 96
STACK: Final = 104
COOKIE: Final = 112
CONTEXT: Final = 120
RETVAL: Final = 128

STACK_SIZE: Final = 65536  # 8 frames of 512 bytes for each of 8 levels of indirect calls, and as much again

SEED: Final = 0x9E37_79B9_7F4A_7C15  # where random numbers start
SEGMENT_WRITABLE: Final = 1
TAIL_CALL_LIMIT: Final = 33


class Trap(IntEnum):
    """Why a run ended early."""

    NONE = 0
    MEMORY = 1  # an access outside every region the program may touch
    FUEL = 2  # too many back-edges
    CALL = 3  # an indirect call to something that is no function
    DEPTH = 4  # calls nested too deep
    HELPER = 5  # a helper without an implementation here, or one that was given bad arguments


def batch_symbol(program: str) -> str:
    """The symbol of the batch loop of `program`."""
    return f"{program}.batch"


def hooked_batch_symbol(program: str) -> str:
    """The symbol of the batch loop that enters `program` through its entry, as hooks want it."""
    return f"{program}.batch.hooked"
