"""LLVM IR text to callable code, for tests of what lies between the two."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Container, Mapping

from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.registry import host
from backends.target import Target
from runtime.linker import LinkedImage, link
from runtime.memory import Pool

Native = Callable[..., int]

DECLARE_BRANCH = """
declare void @llvm.experimental.patchpoint.void(i64, i32, ptr, i32, ...)
declare i32 @personality(...)
"""


def compile_text(
    text: str, target: Target | None = None, level: Level = Level.DEFAULT, jumps_first: Container[int] = ()
) -> NativeCode:
    """Native code of LLVM IR, for this machine unless another is said."""
    machine = Machine(target or host(), level)
    module = machine.parse(text)
    machine.optimize(module)
    return parse_object(machine.emit_object(module), machine.target, jumps_first)


def load_text(text: str, symbols: Mapping[str, int] | None = None, pool: Pool | None = None) -> LinkedImage:
    """LLVM IR linked into this process."""
    return link(compile_text(text), symbols or {}, pool)


def function_at(address: int) -> Native:
    """The function of up to six 64-bit arguments at an address, callable; it runs without the GIL."""
    # Safe because tests pass addresses of such functions while their images are open.
    native = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 6)(address)
    return lambda *arguments: native(*arguments, *[0] * (6 - len(arguments)))


def invoke_branch(key: int, size: int = 9) -> str:
    """The LLVM IR of a static branch: `invoke ... to label %off unwind label %on` without its labels."""
    patchpoint = "@llvm.experimental.patchpoint.void"
    arguments = f"(i64 {key}, i32 {size}, ptr null, i32 0) memory(inaccessiblemem: readwrite)"
    return f"invoke anyregcc void (i64, i32, ptr, i32, ...) {patchpoint}{arguments}"


def branch_function(name: str, key: int, off: int, on: int) -> str:
    """A function that returns `off` or `on`, by one static branch."""
    return f"""
define i64 @{name}() {host().prologue} personality ptr @personality {{
  {invoke_branch(key)} to label %off unwind label %on
off:
  ret i64 {off}
on:
  %pad = landingpad {{ ptr, i32 }} cleanup
  ret i64 {on}
}}
"""
