"""The linker: every relocation that LLVM emits here, what it refuses, and what an image tells of itself."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

import pytest

from backends.native_code import NativeCode, Relocation, Section, Symbol
from ir.diagnostics import RejectedError
from runtime.linker import link
from runtime.memory import Pool
from tests.native import compile_text, function_at, load_text

EVERYTHING = """
@constant = internal constant [4 x i64] [i64 100, i64 200, i64 300, i64 400]
@variable = internal global i64 5
@zeroed = internal global [100 x i64] zeroinitializer
@pointers = internal constant [2 x ptr] [ptr @one, ptr @two]
@outside = external global i64
define internal i64 @one() noinline { ret i64 1 }
define internal i64 @two() noinline { ret i64 2 }
define i64 @constants(i64 %i) {
  %p = getelementptr [4 x i64], ptr @constant, i64 0, i64 %i
  %r = load i64, ptr %p
  ret i64 %r
}
define i64 @count(i64 %by) {
  %old = load i64, ptr @variable
  %new = add i64 %old, %by
  store i64 %new, ptr @variable
  store i64 %new, ptr getelementptr ([100 x i64], ptr @zeroed, i64 0, i64 99)
  %kept = load i64, ptr getelementptr ([100 x i64], ptr @zeroed, i64 0, i64 99)
  ret i64 %kept
}
define i64 @choose(i64 %i) {
  %p = getelementptr [2 x ptr], ptr @pointers, i64 0, i64 %i
  %f = load ptr, ptr %p
  %r = call i64 %f()
  ret i64 %r
}
define i64 @read() {
  %r = load i64, ptr @outside
  ret i64 %r
}
define i64 @jump_table(i64 %i, i64 %x) {
  switch i64 %i, label %other [
    i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %d  i64 4, label %e
  ]
a:
  %1 = mul i64 %x, 3
  ret i64 %1
b:
  %2 = xor i64 %x, 77
  ret i64 %2
c:
  %3 = sub i64 1000, %x
  ret i64 %3
d:
  %4 = udiv i64 %x, 3
  ret i64 %4
e:
  %5 = shl i64 %x, 5
  ret i64 %5
other:
  ret i64 -1
}
"""


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


@pytest.mark.parametrize("at", [None, 0x2000_0000_0000], ids=["near pool", "far away"])
def test_code_reaches_its_constants_variables_and_tables(pool: Pool, at: int | None) -> None:
    outside = ctypes.c_uint64(42)
    symbols = {"outside": ctypes.addressof(outside)}
    with link(compile_text(EVERYTHING), symbols, pool, at=at) as image:
        run = {symbol.name: function_at(symbol.address) for symbol in image.functions}
        assert [run["constants"](i) for i in range(4)] == [100, 200, 300, 400]
        assert [run["count"](10), run["count"](1)] == [15, 16]
        assert [run["choose"](i) for i in range(2)] == [1, 2]
        assert [run["jump_table"](i, 30) for i in range(6)] == [90, 83, 970, 10, 960, 2**64 - 1]
        assert run["read"]() == 42
        outside.value = 43
        assert run["read"]() == 43


def test_images_of_one_code_have_variables_of_their_own(pool: Pool) -> None:
    code = compile_text(EVERYTHING)
    with link(code, {"outside": 16}, pool) as first, link(code, {"outside": 16}, pool) as second:
        runs = [function_at(image.address_of("count")) for image in (first, second)]
        assert [run(1) for run in runs] == [6, 6]


def test_all_undefined_symbols_are_named_and_nothing_stays_allocated(pool: Pool) -> None:
    body = "{ %1 = call i64 @a() %2 = call i64 @b() ret i64 %2 }"
    text = f"declare i64 @a() declare i64 @b() define i64 @f() {body}"
    with pytest.raises(RejectedError) as caught:
        load_text(text, pool=pool)
    assert [d.message for d in caught.value.diagnostics] == ["nothing defines 'a'", "nothing defines 'b'"]
    assert caught.value.errno == errno.ENOENT
    first = pool.allocate_code(64)
    assert first.address == pool.allocate_code(64).address - 64
    assert first.start == 0


def test_a_value_that_does_not_fit_is_refused_with_its_place(pool: Pool) -> None:
    section = Section(".text", bytes(16), 16, 16, True, False)
    code = NativeCode(
        "x86_64",
        (section,),
        (Symbol("far", -1, 0, 0, True, False),),
        (Relocation(0, 4, "R_X86_64_PC32", 0, -4),),
    )
    with pytest.raises(RejectedError) as caught:
        link(code, {"far": 1 << 62}, pool)
    assert caught.value.errno == errno.ERANGE
    assert "R_X86_64_PC32 of 'far' is " in str(caught.value)
    assert str(caught.value).startswith(".text: byte 0x4")


def test_symbols_have_names_addresses_and_lengths(pool: Pool) -> None:
    with load_text(EVERYTHING, {"outside": 16}, pool) as image:
        by_name = {symbol.name: symbol for symbol in image.functions}
        assert sorted(by_name) == ["choose", "constants", "count", "jump_table", "one", "read", "two"]
        one = by_name["one"]
        assert image.block.read(one.address - image.address, one.length) == bytes.fromhex("b801000000c3")
        with pytest.raises(KeyError):
            image.address_of("no such")


def test_closing_an_image_twice_is_fine(pool: Pool) -> None:
    image = load_text("define i64 @f() { ret i64 1 }", pool=pool)
    image.close()
    image.close()
