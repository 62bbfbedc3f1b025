"""Sessions: one program before and after a function, with a word that it keeps in between; and what links tell."""

from __future__ import annotations

import ctypes
import errno
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc
from ir.function_model import U64, Model
from runtime.native_entry import NativeFunction, function_at_pointer
from tests.native import load_text
from tests.shared_objects import build_library
from tests.tracing import run

if TYPE_CHECKING:
    from bpfc.running import Runtime

OBJECTS = Path(__file__).parent.parent / "objects"
CODE = """
define i64 @f(i64 %a, ptr %again) noinline {
  %none = icmp eq ptr %again, null
  br i1 %none, label %out, label %more
more:
  %call = load volatile ptr, ptr %again
  %b = add i64 %a, 1
  %deeper = call i64 %call(i64 %b, ptr null)
  ret i64 %deeper
out:
  ret i64 %a
}
"""


def test_a_session_keeps_a_word_from_entry_to_exit(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f"]
    with tracers["keeps"].attach_fsession(target, "f"):
        assert run(target) == 5
        assert run(target, 7, 1) == 8
    assert run(target) == 5
    assert [tracers.globals[name] for name in ("kept", "sum", "returned")] == [2, 2009, 8]


def test_each_session_has_a_word_of_its_own(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f"]
    with (
        tracers["keeps"].attach_fsession(target, "f"),
        tracers["on_entry"].attach_fentry(target, "f"),
        tracers["keeps_too"].attach_fsession(target, "f"),
        tracers["on_exit"].attach_fexit(target, "f"),
    ):
        assert run(target) == 5
    seen = [tracers.globals[name] for name in ("kept", "sum", "entries", "exits", "count", "result")]
    assert seen == [2, 2004, 1, 1, 2, 5]


@pytest.mark.host_only("about a C function of this process")
def test_the_word_belongs_to_one_call(tracers: Runtime) -> None:
    """A call inside of a call has a word of its own, and the outer one finds its own again."""
    with load_text(CODE) as code:
        pointer = ctypes.c_uint64(code.address_of("f"))
        target: NativeFunction = function_at_pointer("f", ctypes.addressof(pointer), Model((U64, U64), U64))
        call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)
        with tracers["keeps"].attach_fsession(target):
            # Safe because the pointer leads to the function, or to what is hooked before it.
            assert call(pointer.value)(5, ctypes.addressof(pointer)) == 6
        assert [tracers.globals[name] for name in ("kept", "sum")] == [2, 2011]


@pytest.mark.little_endian("s390x allows 27 programs, not 38")
def test_a_session_counts_twice_and_is_attached_once(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f"]
    source = bpfc.load(OBJECTS / "tracers.o")
    with ExitStack() as stack:
        stack.enter_context(tracers["keeps"].attach_fsession(target, "f"))
        with pytest.raises(bpfc.RejectedError) as caught:
            tracers["keeps"].attach_fsession(target, "f")
        assert caught.value.errno == errno.EBUSY
        for _ in range(36):
            stack.enter_context(stack.enter_context(source.start())["entry_a"].attach_fentry(target, "f"))
        for name, how in (("entry_b", "attach_fentry"), ("keeps_too", "attach_fsession")):
            with pytest.raises(bpfc.RejectedError) as caught:
                getattr(tracers[name], how)(target, "f")
            assert caught.value.errno == errno.E2BIG
        assert run(target) == 5
    assert tracers.globals["sum"] == 1002


def test_sections_say_how_and_where_programs_are_attached(targets: Runtime) -> None:
    with bpfc.load(OBJECTS / "tracers.o").start() as tracers:
        with bpfc.attach(tracers["keeps"], targets["calls_f"], cookie=3) as link:
            assert (link.kind.value, link.target, link.function, link.cookie) == (
                "fsession",
                "calls_f",
                "f",
                3,
            )
            assert bpfc.list_links()[-1] is link
            assert run(targets["calls_f"]) == 5
        assert link not in bpfc.list_links()
        assert tracers.globals["sum"] == 1002


@pytest.mark.little_endian("the object is built so")
def test_an_object_is_attached_at_its_start(targets: Runtime) -> None:
    source = bpfc.load(OBJECTS / "attached.o")
    with source.start(traces=targets["calls_f"]) as tracers:
        assert [(link.kind.value, link.function) for link in tracers.links] == [
            ("fentry", "f"),
            ("fexit", "f"),
        ]
        assert run(targets["calls_f"]) == 5
        assert [tracers.globals[name] for name in ("entries", "exits", "sum")] == [1, 1, 5]
    assert bpfc.list_links() == ()
    with pytest.raises(bpfc.RejectedError) as caught:
        source.start(traces=targets["calls_g"])
    assert (caught.value.errno, bpfc.list_links()) == (errno.EINVAL, ())


@pytest.mark.host_only("about a C function of this process")
def test_an_object_is_attached_to_a_library_at_its_start(tmp_path: Path) -> None:
    lib = build_library(
        tmp_path,
        "hookable.c",
        "gcc",
        "-fpatchable-function-entry=16",
        "-falign-functions=16",
        name="libonlyhere",
    )
    source = bpfc.load(OBJECTS / "attached.o")
    with source.start(traces=lib) as tracers:
        assert lib.f(-2, ctypes.c_ulong(9)) == 7
        with bpfc.attach(tracers["named"], bpfc.native("libonlyhere", "f")):
            assert lib.f(1, ctypes.c_ulong(2)) == 3
        names = ("entries", "exits", "sum", "elsewhere")
        assert [tracers.globals[name] for name in names] == [2, 2, 10, 1]


def test_links_are_listed_while_they_are_open(targets: Runtime, tracers: Runtime) -> None:
    before = bpfc.list_links()
    first = tracers["on_entry"].attach_fentry(targets["calls_f"], "f", cookie=5)
    second = tracers["on_exit"].attach_fexit(targets["calls_f"], "f")
    assert bpfc.list_links() == (*before, first, second)
    assert repr(first) == "<fentry link of on_entry to calls_f:f>"
    first.close()
    assert bpfc.list_links() == (*before, second)
    assert repr(first) == "<fentry link of on_entry to calls_f:f, detached>"
    second.close()
    second.close()
    assert bpfc.list_links() == before
