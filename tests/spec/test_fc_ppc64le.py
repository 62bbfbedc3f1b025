"""FC-18: what the table of contents of ppc64le asks of calls (64-Bit ELF V2 ABI, 2.2.3 and 2.3.2.1), under qemu-user.

r2     the table's base of the image that runs
r12    at a function's global entry: the address of that entry, from which it finds its own r2
24(r1) where a call of another image saves r2; calls inside an image leave it alone
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

import bpfc
from backends.native_code import NativeCode, Section, Symbol
from backends.registry import target_named
from bpfc import Options
from bpfc.compile import compile_for
from runtime.emulate.qemu import QemuPlatform
from runtime.link_report import Reach
from runtime.linker import LinkedImage, link
from tests.engines import require_emulator
from tests.native import compile_text

PPC64LE = target_named("ppc64le")
BLR = 0x4E800020
GET_R12 = (0x7D836378, BLR)  # mr r3, r12
GET_R2 = (0x7C431378, BLR)  # mr r3, r2
STD_R2 = (0xF8410018).to_bytes(4, "little")  # std r2, 24(r1)
LD_R2 = (0xE8410018).to_bytes(4, "little")  # ld r2, 24(r1)
MARK = 0x5A5A
# A caller that puts a mark where r2 would be saved, calls r3(r4) and tells the mark and r2 by memory at r5.
WATCH = (
    0x7C0802A6,  # mflr r0
    0xF8010010,  # std r0, 16(r1)
    0xFBE1FFF8,  # std r31, -8(r1)
    0xF821FFC1,  # stdu r1, -64(r1)
    0x7CBF2B78,  # mr r31, r5
    0x38C05A5A,  # li r6, MARK
    0xF8C10018,  # std r6, 24(r1)
    0x7C6C1B78,  # mr r12, r3
    0x7D8903A6,  # mtctr r12
    0x7C832378,  # mr r3, r4
    0x4E800421,  # bctrl
    0xE8C10018,  # ld r6, 24(r1)
    0xF8DF0000,  # std r6, 0(r31)
    0xF85F0008,  # std r2, 8(r31)
    0x38210040,  # addi r1, r1, 64
    0xE8010010,  # ld r0, 16(r1)
    0xEBE1FFF8,  # ld r31, -8(r1)
    0x7C0803A6,  # mtlr r0
    BLR,
)
CALLER = """
@counter = internal global i64 40
declare i64 @get_r2()
declare i64 @get_r12()
define internal i64 @inner(i64 %x) noinline {
  %old = load volatile i64, ptr @counter
  %new = add i64 %old, %x
  store volatile i64 %new, ptr @counter
  ret i64 %new
}
define internal i64 @middle(i64 %x) noinline {
  %y = call i64 @inner(i64 %x)
  %z = call i64 @inner(i64 %y)
  ret i64 %z
}
define i64 @inside(i64 %x) {
  %y = call i64 @middle(i64 %x)
  %z = call i64 @inner(i64 1)
  ret i64 %z
}
define i64 @base_around_calls(i64 %x) {
  %before = call i64 @get_r2()
  %y = call i64 @middle(i64 %x)
  %after = call i64 @get_r2()
  %same = icmp eq i64 %before, %after
  %base = select i1 %same, i64 %before, i64 0
  ret i64 %base
}
define i64 @host_entry(i64 %x) {
  %r12 = call i64 @get_r12()
  %z = call i64 @inner(i64 1)
  ret i64 %r12
}
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[QemuPlatform]:
    require_emulator("ppc64le")
    made = QemuPlatform(PPC64LE)
    yield made
    made.close()


def machine_code(name: str, words: tuple[int, ...]) -> NativeCode:
    """One function of these instructions, with one entry."""
    data = b"".join(word.to_bytes(4, "little") for word in words)
    section = Section(".text", data, len(data), 16, is_executable=True, is_writable=False)
    symbol = Symbol(name, 0, 0, len(data), is_global=True, is_function=True)
    return NativeCode("ppc64le", (section,), (symbol,), ())


@pytest.fixture(scope="module")
def images(platform: QemuPlatform) -> Iterator[dict[str, LinkedImage]]:
    """The host's functions and, linked to them, functions that LLVM made."""
    host = {name: machine_code(name, words) for name, words in {"get_r2": GET_R2, "get_r12": GET_R12}.items()}
    linked = {name: link(code, {}, platform.pool) for name, code in host.items()}
    addresses = {name: image.address_of(name) for name, image in linked.items()}
    linked["caller"] = link(compile_text(CALLER, PPC64LE), addresses, platform.pool)
    linked["watch"] = link(machine_code("watch", WATCH), {}, platform.pool)
    yield linked
    for image in linked.values():
        image.close()


def test_fc_18_internal_calls_leave_r2_and_its_save_slot_alone(
    platform: QemuPlatform, images: dict[str, LinkedImage]
) -> None:
    caller, seen = images["caller"], platform.allocate(16)
    watch = platform.function(images["watch"].address_of("watch"), *[int] * 3)
    watch(caller.address_of("inside"), 2, _address(seen))
    found = [int.from_bytes(bytes(seen[at : at + 8]), "little") for at in (0, 8)]
    assert found == [MARK, caller.address + caller.layout.table_base]


def test_fc_18_r2_is_the_images_own_before_and_after_internal_calls(
    platform: QemuPlatform, images: dict[str, LinkedImage]
) -> None:
    caller = images["caller"]
    around = platform.function(caller.address_of("base_around_calls"), int)
    assert around(2) == caller.address + caller.layout.table_base


def test_fc_18_a_call_of_a_host_function_sets_r12_to_its_entry_and_restores_r2(
    platform: QemuPlatform, images: dict[str, LinkedImage]
) -> None:
    caller = images["caller"]
    entry = platform.function(caller.address_of("host_entry"), int)
    assert entry(0) == images["get_r12"].address_of("get_r12")
    assert entry(0) == images["get_r12"].address_of(
        "get_r12"
    )  # the counter was reached through r2 in between


def test_fc_18_calls_inside_go_to_local_entries_and_others_through_veneers(
    images: dict[str, LinkedImage],
) -> None:
    caller = images["caller"]
    code = caller.block.read()
    by_callee = {call.callee: call for call in caller.calls}
    restored = {}
    for name in ("inner", "get_r12"):
        end = by_callee[name].offset + 4
        restored[name] = code[end : end + 4] == LD_R2
    assert {name: by_callee[name].reach for name in restored} == {
        "inner": Reach.NEAR,
        "get_r12": Reach.VENEER,
    }
    assert restored == {"inner": False, "get_r12": True}


def test_fc_18_subprograms_of_a_program_do_without_the_save_slot() -> None:
    """No function of it stores to 24(r1) or loads r2 from there but around calls of the host."""
    text = "r6 = r1\ncall first\ncall second\nr0 += 1\nexit\nfirst: r0 = 40\nexit\nsecond: r0 = 41\nexit"
    compiled = compile_for(bpfc.assemble(text).program("main"), {}, Options(level="O0"), ["ppc64le"])
    native = compiled["ppc64le"].code
    words: set[bytes] = set()
    for name in ("main", "subprog_1", "subprog_2"):
        symbol = native.symbol(name)
        body = native.sections[symbol.section].data[symbol.offset : symbol.offset + symbol.size]
        words.update(body[at : at + 4] for at in range(0, len(body), 4))
    assert BLR.to_bytes(4, "little") in words
    assert not {STD_R2, LD_R2} & words


def _address(memory: ctypes.Array[ctypes.c_uint8]) -> int:
    return ctypes.addressof(memory)
