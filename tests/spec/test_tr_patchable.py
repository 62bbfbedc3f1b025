"""Trampolines at entries that C compilers left room at, models from DWARF: TR-01 to TR-05, 12, 17 and 25."""

from __future__ import annotations

import ctypes
import errno
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bpfc
from tests.shared_objects import build_library
from tests.storms import going_on
from tests.tracing import slots

if TYPE_CHECKING:
    from bpfc.running import Runtime

OBJECTS = Path(__file__).parent.parent / "objects"
WRAP = 1 << 64
SLED = ("-fpatchable-function-entry=16", "-falign-functions=16")
WAYS = {
    "gcc-16-nops": ("gcc", *SLED),
    "gcc-5-nops": ("gcc", "-fpatchable-function-entry=5", "-falign-functions=16"),
    "gcc-cet": ("gcc", "-fcf-protection=full", *SLED),
    "gcc-before-and-behind": ("gcc", "-fpatchable-function-entry=24,8", "-falign-functions=16"),
    "gcc-mcount": ("gcc", "-pg", "-mfentry", "-mnop-mcount", "-mrecord-mcount", "-fno-pic"),
    "clang-5-bytes": ("clang-19", "-fpatchable-function-entry=5"),
    "clang-16-bytes": ("clang-19", "-fpatchable-function-entry=16"),
}


class Pair(ctypes.Structure):
    """Two words by value."""

    _fields_ = [("x", ctypes.c_ulong), ("y", ctypes.c_ulong)]  # as ctypes wants it


class Small(ctypes.Structure):
    """Three bytes by value."""

    _fields_ = [("a", ctypes.c_char), ("b", ctypes.c_char), ("c", ctypes.c_char)]  # as above


class Deep(ctypes.Structure):
    """A number in a structure in an array."""

    class Inner(ctypes.Structure):
        """A structure with a number."""

        _fields_ = [("x", ctypes.c_float)]  # as above

    _fields_ = [("inner", Inner * 2)]  # as above


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_library(tmp_path_factory.mktemp("libraries"), "hookable.c", "gcc", *SLED)


def entry(address: int) -> bytes:
    # Safe because the address is that of a function of a loaded library.
    return ctypes.string_at(address, 16)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_tr_01_entries_of_every_sort_are_hooked(
    tmp_path: Path, tracers: Runtime, way: tuple[str, ...]
) -> None:
    lib = build_library(tmp_path, "hookable.c", *way)
    target = bpfc.native(lib, "add")
    before = entry(target.address)
    with tracers["on_entry"].attach_fentry(target, cookie=9):
        assert lib.add(-2, 7) == 5
        assert slots(tracers, 2) == [WRAP - 2, 7]
        seen = tracers.globals
        assert [seen[name] for name in ("count", "cookie", "address")] == [2, 9, target.address]
        assert lib.loops(100) == 442  # calls inside the library are seen, too
        assert tracers.globals["entries"] == 101
        with tracers["all_slots"].attach_fexit(target):
            assert lib.add(30, 4) == 34
        assert tracers.globals["result"] == 34
        assert entry(target.address) != before
    assert entry(target.address) == before
    assert lib.add(3, 4) == 7
    assert tracers.globals["entries"] == 102


def test_functions_that_nobody_exports_are_hooked(library: ctypes.CDLL, tracers: Runtime) -> None:
    with tracers["on_exit"].attach_fexit(
        bpfc.native(library, "hidden", ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 2))
    ):
        assert library.calls_hidden(7) == 122
    assert (tracers.globals["exits"], slots(tracers, 1), tracers.globals["result"]) == (1, [7], 121)


def test_tr_02_six_arguments_of_mixed_width(library: ctypes.CDLL, tracers: Runtime) -> None:
    library.six.restype = ctypes.c_ulong
    given = (ctypes.c_ulong(1 << 63), ctypes.c_void_p(16), -2, -3, ctypes.c_void_p(32), ctypes.c_ulong(7))
    plain = library.six(*given)
    with tracers["all_at_entry"].attach_fentry(bpfc.native(library, "six")):
        assert library.six(*given) == plain
    assert slots(tracers, 6) == [1 << 63, 16, WRAP - 2, WRAP - 3, 32, 7]


def test_tr_03_eleven_arguments_of_mixed_width(library: ctypes.CDLL, tracers: Runtime) -> None:
    library.eleven.restype = ctypes.c_long
    long = ctypes.c_long
    given = (-1, long(2), -3, long(4), 5, long(-6), long(7), -8, long(9), -10, ctypes.c_uint(1 << 31))
    plain = library.eleven(*given)
    with tracers["all_slots"].attach_fexit(bpfc.native(library, "eleven")):
        assert library.eleven(*given) == plain
    assert slots(tracers, 11) == [WRAP - 1, 2, WRAP - 3, 4, 5, WRAP - 6, 7, WRAP - 8, 9, WRAP - 10, 1 << 31]
    assert (tracers.globals["count"], tracers.globals["result"]) == (11, plain % WRAP)


@pytest.mark.parametrize(
    ("name", "given", "seen", "result"),
    [
        ("pair_first", (Pair(1, 2), 3, 4), [1, 2, 3, 4], 1234),
        ("pair_middle", (3, Pair(1, 2), 4), [3, 1, 2, 4], 1234),
        ("pair_last", (3, 4, Pair(1, 2)), [3, 4, 1, 2], 1234),
    ],
)
def test_tr_03_structs_of_two_words(
    library: ctypes.CDLL, tracers: Runtime, name: str, given: tuple[Any, ...], seen: list[int], result: int
) -> None:
    function = getattr(library, name)
    with tracers["all_slots"].attach_fexit(bpfc.native(library, name)):
        assert function(*given) == result
    assert (slots(tracers, 4), tracers.globals["count"]) == (seen, 4)
    with tracers["all_at_entry"].attach_fentry(bpfc.native(library, name)):
        assert function(*given) == result
    assert slots(tracers, 4) == seen


def test_tr_03_structs_between_registers_and_stack(library: ctypes.CDLL, tracers: Runtime) -> None:
    long = ctypes.c_long
    given = (*(long(n) for n in range(1, 6)), Pair(6, 7), long(8), Pair(9, 10))
    for name, how in (("all_slots", "fexit"), ("all_at_entry", "fentry")):
        with getattr(tracers[name], f"attach_{how}")(bpfc.native(library, "pair_straddling")):
            assert library.pair_straddling(*given) == 1006795
        assert slots(tracers, 10) == list(range(1, 11))
        assert tracers.globals["count"] == 10


def test_tr_03_small_structs_enums_and_flags_are_normalized(library: ctypes.CDLL, tracers: Runtime) -> None:
    with tracers["all_slots"].attach_fexit(bpfc.native(library, "small_struct")):
        assert library.small_struct(Small(b"\x01", b"\x02", b"\x03"), -1, 1) == 6
    assert slots(tracers, 3) == [0x030201, WRAP - 1, 1]


def test_tr_04_the_exit_sees_arguments_that_the_function_overwrote(
    library: ctypes.CDLL, tracers: Runtime
) -> None:
    with tracers["all_slots"].attach_fexit(bpfc.native(library, "overwrites")):
        assert library.overwrites(-6, 7) == -41
    assert (slots(tracers, 2), tracers.globals["result"]) == ([WRAP - 6, 7], WRAP - 41)


@pytest.mark.parametrize(("answer", "result", "effects"), [(0, 33, 2), (-22, -44, 0)])
def test_tr_05_an_override_stands_for_the_call(
    library: ctypes.CDLL, tracers: Runtime, answer: int, result: int, effects: int
) -> None:
    """With 0 the function runs: 33 and side effect 2 in two calls of which the first starts at 1; else -44 from both."""
    effect = ctypes.c_int(0)
    target = bpfc.native(library, "modify", may_override=True)
    tracers.globals["answer"] = answer
    with (
        tracers["before_override"].attach_fentry(target),
        tracers["override"].attach_fmod_ret(target),
        tracers["after_override"].attach_fexit(target),
    ):
        total = sum(library.modify(n, ctypes.byref(effect)) for n in (1, 25))
    assert (total, effect.value) == (result, effects)
    seen = tracers.globals
    assert (seen["order"], seen["before"]) == (123123, 0)
    assert seen["result"] == (29 if answer == 0 else WRAP - 22)


@pytest.mark.parametrize(
    "name", ["thirteen", "variadic", "takes_large", "returns_pair", "takes_mixed", "longest"]
)
def test_tr_12_prototypes_that_cannot_be_hooked(library: ctypes.CDLL, name: str) -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        bpfc.native(library, name)
    assert (caught.value.errno, caught.value.diagnostics[0].code) == (errno.EINVAL, "bad-prototype")
    assert name in str(caught.value)


def test_tr_12_of_a_wide_result_only_the_entry_is_hooked(library: ctypes.CDLL, tracers: Runtime) -> None:
    target = bpfc.native(library, "wide")
    for how, program in (("fexit", "all_slots"), ("fmod_ret", "override")):
        with pytest.raises(bpfc.RejectedError) as caught:
            getattr(tracers[program], f"attach_{how}")(target)
        assert caught.value.errno == errno.EOPNOTSUPP
    with tracers["all_at_entry"].attach_fentry(target):
        library.wide.restype = ctypes.c_long  # the low half
        assert library.wide(ctypes.c_long(-5), ctypes.c_ulong(12), ctypes.c_ulong(77)) == 7
    assert (slots(tracers, 3), tracers.globals["count"]) == ([WRAP - 5, 12, 77], 3)


def test_floating_point_arguments_stay_in_their_registers(library: ctypes.CDLL, tracers: Runtime) -> None:
    library.half.restype = ctypes.c_float
    with tracers["all_slots"].attach_fexit(bpfc.native(library, "half")):
        assert library.half(ctypes.c_float(5.0), 3, ctypes.c_double(0.25)) == 5.75
    bits = ctypes.c_uint32.from_buffer(ctypes.c_float(5.0)).value
    assert slots(tracers, 3) == [bits, 3, ctypes.c_uint64.from_buffer(ctypes.c_double(0.25)).value]


@pytest.mark.parametrize("kind", [ctypes.c_longdouble, Deep])
def test_what_travels_in_other_registers_is_refused(library: ctypes.CDLL, kind: Any) -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        bpfc.native(library, "add", ctypes.CFUNCTYPE(ctypes.c_int, kind))
    assert (caught.value.errno, caught.value.diagnostics[0].code) == (errno.EINVAL, "bad-prototype")


def test_what_cannot_be_hooked_says_why(tmp_path: Path, library: ctypes.CDLL) -> None:
    plain = build_library(tmp_path, "hookable.c", "gcc")
    bare = build_library(tmp_path, "hookable.c", "gcc", *SLED, debug=False)
    narrow = build_library(
        tmp_path, "hookable.c", "gcc", "-fpatchable-function-entry=3", "-falign-functions=16"
    )
    for of, name, code, number in (
        (plain, "add", "no-patchable-entry", errno.EINVAL),
        (narrow, "add", "no-patchable-entry", errno.EINVAL),
        (bare, "add", "no-prototype", errno.EINVAL),
        (library, "no_such_function", "no-such-library", errno.ENOENT),
        ("libnothing.so", "add", "no-such-library", errno.ENOENT),
    ):
        with pytest.raises(bpfc.RejectedError) as caught:
            bpfc.native(of, name)
        assert (caught.value.diagnostics[0].code, caught.value.errno) == (code, number)


def test_tr_25_more_programs_change_a_literal_and_no_instruction(
    library: ctypes.CDLL, tracers: Runtime
) -> None:
    target = bpfc.native(library, "add")
    with tracers["on_entry"].attach_fentry(target):
        before = entry(target.address)
        with tracers["on_exit"].attach_fexit(target):
            assert entry(target.address) == before
            assert library.add(2, 3) == 5
    assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 1)


def test_tr_17_a_function_is_callable_all_the_time(tmp_path: Path, tracers: Runtime) -> None:
    """Threads run through the NOPs while a jump takes their place and gives it back."""
    lib = build_library(tmp_path, "hookable.c", *WAYS["gcc-5-nops"])
    target = bpfc.native(lib, "add")
    before = entry(target.address)
    lib.loops.restype = ctypes.c_long
    wrong: list[int] = []
    cycles = 0
    goes_on = going_on(2, lambda: cycles > 10)

    def call() -> None:
        while goes_on():
            result = lib.loops(20000)
            if result != 90000:
                wrong.append(result)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    while goes_on():
        with tracers["entry_a"].attach_fentry(target):
            cycles += 1
    for thread in threads:
        thread.join()
    assert (wrong, entry(target.address)) == ([], before)
    assert cycles > 10


def test_calls_of_a_library_are_hooked_with_what_the_callee_says(tmp_path: Path, tracers: Runtime) -> None:
    lib = build_library(tmp_path, "hookable.c", "gcc")  # no room at entries; calls go through its own table
    lib.loops.restype = ctypes.c_long
    with tracers["on_entry"].attach_fentry(bpfc.imported(lib, "add")):
        assert lib.loops(100) == 442
    assert lib.loops(100) == 442
    assert (tracers.globals["entries"], slots(tracers, 2)) == (100, [3, 1])
