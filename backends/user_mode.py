"""The program that qemu-user runs for us, as LLVM IR: it serves requests from its standard input.

    request, eight u64      0: system call (number, six arguments)      1: call (address, six arguments)
                            2: calls from now on use this stack         3: what `thunk.N` returns
    reply                   0, result                                   none for 3
    from `thunk.N`          N + 1, run, r1..r5                          answered by requests, of which 3 is the last

`thunk.N` are functions that code calls and that we answer, N counting from 0. Calls that we make while we answer one use
the stack below it.
"""

from __future__ import annotations

from typing import Final

from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.target import Target

THUNKS: Final = 512
_FRAMES: Final = 4096  # more than the frames between a thunk and the next call need

_SIX: Final = "i64, i64, i64, i64, i64, i64"


def generate(target: Target) -> NativeCode:
    """The program's code; it leaves `syscall` and `enter` open."""
    machine = Machine(target, Level.DEFAULT, cpu=target.cpu)
    module = machine.parse(user_mode_text(target))
    machine.optimize(module)
    return parse_object(machine.emit_object(module), target)


def user_mode_text(target: Target) -> str:
    """The program as LLVM IR."""
    user = target.user_mode
    assert user is not None, "asked for a target that qemu-user runs"
    loads = "\n".join(
        f"  %p{i} = getelementptr i64, ptr %box, i64 {i}\n  %a{i} = load i64, ptr %p{i}" for i in range(8)
    )
    given = ", ".join(f"i64 %a{i}" for i in range(2, 8))
    stores = "\n".join(
        f"  %p{i} = getelementptr i64, ptr %box, i64 {i}\n  store i64 %{name}, ptr %p{i}"
        for i, name in enumerate(("id", "run", "r1", "r2", "r3", "r4", "r5"))
    )
    thunks = "\n".join(
        f"""define i64 @"thunk.{n}"({_SIX}) {{
  %r = call i64 @bridge(i64 {n + 1}, i64 %0, i64 %1, i64 %2, i64 %3, i64 %4, i64 %5)
  ret i64 %r
}}"""
        for n in range(THUNKS)
    )
    return f"""
declare i64 @syscall(i64, {_SIX})
declare i64 @enter(i64, {_SIX}, i64)
define i64 @exchange(i64 %number, i64 %file, ptr %box) noinline {{
  %at = ptrtoint ptr %box to i64
  %n = call i64 @syscall(i64 %number, i64 %file, i64 %at, i64 64, i64 0, i64 0, i64 0)
  ret i64 %n
}}
define i64 @bridge(i64 %id, i64 %run, i64 %r1, i64 %r2, i64 %r3, i64 %r4, i64 %r5) noinline {{
  %box = alloca [8 x i64], align 8
{stores}
  %w = call i64 @exchange(i64 {user.write}, i64 1, ptr %box)
  %here = ptrtoint ptr %box to i64
  %below = sub i64 %here, {_FRAMES}
  %top = and i64 %below, -64
  %r = call i64 @serve(i64 %top)
  ret i64 %r
}}
define void @_start() {{
  %r = call i64 @serve(i64 0)
  ret void
}}
define i64 @serve(i64 %top) noinline {{
entry:
  %box = alloca [8 x i64], align 8
  br label %serve
serve:
  %stack = phi i64 [ %top, %entry ], [ %next, %reply ]
  %n = call i64 @exchange(i64 {user.read}, i64 0, ptr %box)
{loads}
  %whole = icmp eq i64 %n, 64
  br i1 %whole, label %which, label %end
end:
  %gone = call i64 @syscall(i64 {user.exit}, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  unreachable
which:
  switch i64 %a0, label %system [ i64 1, label %call i64 2, label %use i64 3, label %back ]
back:
  ret i64 %a1
use:
  br label %reply
call:
  %called = call i64 @enter(i64 %a1, {given}, i64 %stack)
  br label %reply
system:
  %done = call i64 @syscall(i64 %a1, {given})
  br label %reply
reply:
  %next = phi i64 [ %stack, %call ], [ %stack, %system ], [ %a1, %use ]
  %result = phi i64 [ %called, %call ], [ %done, %system ], [ 0, %use ]
  store i64 0, ptr %p0
  store i64 %result, ptr %p1
  %w = call i64 @exchange(i64 {user.write}, i64 1, ptr %box)
  br label %serve
}}
{thunks}
"""
