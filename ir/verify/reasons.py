"""The codes of refusals: what sort of rule each breaks, Linux's errno, and what helps when nothing nearer is known.

One row a code. A refusal whose place knows better brings its own hint; those that are found in a program's structure,
before anything is proved, bring their own errno.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import E2BIG, EACCES, EINVAL, EPERM
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """What a code stands for; `hint` is '' where nobody knows what was meant."""

    category: str
    hint: str = ""
    errno: int = EACCES


_PROOF: Final[Mapping[str, Reason]] = {
    "bad-access": Reason("memory", "access it by the helper or type that it is for"),
    "bad-atomic": Reason(
        "memory", "atomic operations work on the stack, map values and memory of 4 or 8 bytes"
    ),
    "context-access": Reason("memory", "read a whole field of the context, with the width that it has"),
    "kernel-object": Reason("memory", "read a member that the type has, with its own width"),
    "map-value-out-of-bounds": Reason(
        "memory", "compare the offset with the size of the value before this access"
    ),
    "misaligned-atomic": Reason("memory", "use an offset that is a multiple of the access's size"),
    "misaligned-stack": Reason("memory", "use an offset that is a multiple of the access's size"),
    "null-dereference": Reason("memory", "compare the pointer with NULL before this access"),
    "object-overwritten": Reason("memory", "destroy or release the object before its stack bytes are reused"),
    "out-of-bounds": Reason("memory", "compare the offset with the size of the memory before this access"),
    "packet-access": Reason("memory", "use the helpers that load and store packet bytes"),
    "packet-out-of-bounds": Reason("memory", "compare the end of the access with data_end before it"),
    "read-only": Reason("memory", "copy it to the stack, or to memory that may be written"),
    "socket-access": Reason("memory", "read a whole field that this sort of socket has"),
    "special-field": Reason("memory", "leave the field to its helpers; place other members beside it"),
    "stack-object": Reason("memory", "leave the object to its helpers until it is released"),
    "stack-out-of-bounds": Reason("memory", "the stack is 512 bytes below r10"),
    "uninitialized-stack": Reason("memory", "write these bytes before they are read, on every way here"),
    "write-only": Reason("memory", "the map was made with BPF_F_WRONLY_PROG; drop the flag to read it"),
    "not-a-pointer": Reason(
        "pointer", "use the pointer that was checked, and spill pointers whole, with 8 bytes"
    ),
    "partial-spill": Reason("pointer", "store pointers whole, with 8 bytes"),
    "division-by-zero": Reason("structure", "divide by something else", EINVAL),
    "pointer-arithmetic": Reason("pointer", "only add to pointers that may be moved, before comparing them"),
    "pointer-leak": Reason(
        "pointer", "keep addresses in registers and on the stack, or load it with CAP_PERFMON"
    ),
    "speculation": Reason(
        "pointer", "index with an unsigned number that is below the size, or load it with CAP_PERFMON"
    ),
    "stack-escape": Reason("pointer", "pass memory of the caller down instead"),
    "untrusted-pointer": Reason(
        "pointer", "load it in an RCU section, take a reference, or read it by bpf_probe_read_kernel"
    ),
    "bad-release": Reason("resource", "release what was acquired, once, by the pointer that acquiring gave"),
    "lock-held": Reason("resource", "call bpf_spin_unlock first, on every way"),
    "lock-not-held": Reason("resource", "call bpf_spin_lock first, on every way, with the same lock"),
    "may-sleep": Reason("resource", "do it outside of the section, or in a program that may sleep"),
    "reference-leak": Reason("resource", "release it on every way to the exit"),
    "section-not-open": Reason("resource", "enter the section first, on every way"),
    "section-open": Reason("resource", "leave the section first, on every way"),
    "bad-argument": Reason("call", "pass what the helper's prototype says (bpfc feature lists helpers)"),
    "bad-exception": Reason(
        "call", "throw and tail-call from functions that return a number, outside of callbacks", EINVAL
    ),
    "bad-size": Reason("call", "bound the size before the call, from below and above"),
    "call-depth": Reason("call", "inline a function, or call fewer from each other", E2BIG),
    "global-function": Reason("call", "return a number and pass what the function's type says", EINVAL),
    "unknown-symbol": Reason("call", "declare it __ksym __weak, and test that it is there", EINVAL),
    "indirect-call": Reason(
        "call", "call through a table of functions in read-only data, at a proved index", EINVAL
    ),
    "map-type": Reason("call", "use a map of a type that this is for", EINVAL),
    "null-argument": Reason("call", "compare the pointer with NULL before the call"),
    "unknown-helper": Reason("call", "the number of a helper is wrong, or newer than Linux 6.18", EINVAL),
    "unknown-kfunc": Reason("call", "declare it __ksym __weak, and test that it is there", EINVAL),
    "gpl-only": Reason("permission", 'set the license to "GPL" if that is what it is', EINVAL),
    "helper-unavailable": Reason("permission", "call it from a program of another type", EINVAL),
    "no-kernel-btf": Reason("permission", "give the kernel's types: --btf kernel, or a BTF file"),
    "unsupported-operation": Reason("permission", "leave this member to the kernel", EINVAL),
    "unprivileged": Reason("permission", "do without, or load it with CAP_BPF and CAP_PERFMON", EPERM),
    "return-range": Reason("result", "return one of the numbers allowed", EINVAL),
    "too-complex": Reason("termination", "split the program, or bound its values earlier", E2BIG),
    "unbounded-loop": Reason(
        "termination", "count to a constant, or compare the counter with a known bound", EINVAL
    ),
}
_STRUCTURE: Final[Mapping[str, Reason]] = {
    "bad-call-target": Reason("structure", "call the first instruction of a function"),
    "bad-static-branch": Reason("structure", "use the macros of bpfc_static_key.h"),
    "combined-stack": Reason("structure", "use less stack in the functions of this chain of calls"),
    "empty-program": Reason("structure", "end it with exit"),
    "falls-off-end": Reason("structure", "end the function with exit or a jump"),
    "core-unresolved": Reason("structure", "guard it with bpf_core_field_exists", EINVAL),
    "frame-pointer-write": Reason("structure", "copy r10 into another register"),
    "jump-out-of-range": Reason("structure", "jump to an instruction of the same function"),
    "recursion": Reason("structure", "write it as a loop", E2BIG),
    "tail-call-stack": Reason("structure", "use less stack in the callers of a function that tail-calls"),
    "too-many-functions": Reason("structure", "inline some"),
    "too-many-insns": Reason("structure", "split it by tail calls"),
    "uninitialized-register": Reason("structure", "give the register a value on every way here"),
    "unreachable-insn": Reason("structure", "delete it, or jump to it"),
}
REASONS: Final[Mapping[str, Reason]] = {**_PROOF, **_STRUCTURE}
UNLISTED: Final = Reason("structure")
