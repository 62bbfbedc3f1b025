"""Acceptance cases of direct map values and read-only data: GD-01 to GD-23."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from errno import EACCES, EBUSY, EINVAL, EOPNOTSUPP, EPERM, EPROTO
from pathlib import Path
from typing import Literal

import pytest

import bpfc
from bpfc import Loaded, RejectedError
from bpfc.insn_sets import transformed
from bpfc.options import Options
from ir.core import Load
from ir.diagnostics import DiagnosticError, SourceLine
from ir.encoding import encode
from ir.explain import Notes
from ir.isa import Insn, Kind, row_of
from ir.kinds import MapFlag, MapType, ProgramType
from ir.lift import lift
from ir.map_loads import bind_maps, numbered
from ir.object import Map
from ir.passes.fold_rodata import FoldRodata
from runtime.maps.view import MapView
from runtime.space import Space

OBJECTS = Path(__file__).parent.parent / "objects"
ARRAY = Map("array", MapType.ARRAY, 4, 48, 1)
FD = 3
PACKET = bytes(64)
GLOBALS = OBJECTS / "globals.o"


def assemble(text: str, map: Map = ARRAY) -> Loaded:
    return bpfc.assemble(text + "\nr0 = 0\nexit", maps={FD: map})


def refusal(text: str, map: Map = ARRAY) -> DiagnosticError:
    with pytest.raises(DiagnosticError) as caught, assemble(text, map).start() as runtime:
        runtime["main"].run(bytes(8))
    return caught.value


def run_global(program: str, **rodata: int) -> int:
    loaded = bpfc.load(GLOBALS)
    for name, value in rodata.items():
        loaded.rodata[name] = value
    with loaded.start() as runtime:
        return runtime[program].run(PACKET).ret


def order_of(loaded: Loaded) -> Literal["big", "little"]:
    return "big" if loaded.object.big_endian else "little"


def decided(loaded: Loaded, name: str = "main") -> list[bool]:
    """Which way each branch goes that read-only data decides."""
    notes: Notes = []
    FoldRodata().run(lift(loaded.program(name), loaded.maps), notes)
    return [note.is_taken for note in notes if note.loads]


def wide(src: int, low: int, high: int = 0, offset: int = 0) -> bytes:
    return encode((Insn(0x18, 1, src, offset, high << 32 | low),), False)


EXIT = encode((Insn(0xB7, 0, 0, 0, 0), Insn(0x95)), False)


def test_gd_01_a_store_at_offset_8_is_seen_by_the_host(machine: Space) -> None:
    loaded = bpfc.assemble(
        "r1 = map_value(3, 8)\nr2 = 4242\n*(u64 *)(r1 + 0) = r2\nr0 = 7\nexit", maps={FD: ARRAY}
    )
    with loaded.start() as runtime:
        assert runtime["main"].run(bytes(8)).ret == 7
        value = runtime.maps["array"][0]
    assert value == bytes(8) + (4242).to_bytes(8, machine.target.byte_order) + bytes(32)


def test_gd_02_an_offset_must_lie_in_the_value() -> None:
    with assemble("r1 = map_value(3, 47)\n*(u8 *)(r1 + 0) = 1").start() as runtime:
        assert runtime["main"].run(bytes(8)).ret == 0
    assert refusal("r1 = map_value(3, 48)").errno == EINVAL
    assert refusal("r1 = map_value(3, 40)\n*(u64 *)(r1 + 4) = 1").errno == EACCES
    for offset in (0xFFFF_FFFF, 1 << 29):
        error = refusal(f"r1 = map_value(3, {offset})")
        assert error.errno == EINVAL
        assert "536870912" in str(error)
    error = refusal(f"r1 = map_value(3, {(1 << 29) - 1})")
    assert error.errno == EINVAL
    assert "536870911" in str(error)
    assert "48" in str(error)


def test_gd_03_a_negative_displacement_may_lead_back_into_the_value() -> None:
    with assemble("r1 = map_value(3, 1)\n*(u64 *)(r1 - 1) = 1").start() as runtime:
        assert runtime["main"].run(bytes(8)).ret == 0


@pytest.mark.no_code
@pytest.mark.parametrize(
    "code",
    [
        wide(1, FD, 47),
        wide(2, FD, 0, offset=1),
        wide(2, FD)[:8] + bytes.fromhex("0001000000000000"),
        wide(2, FD)[:8] + bytes.fromhex("0000010000000000"),
        wide(2, FD)[:8] + bytes.fromhex("1800000000000000"),
    ],
    ids=["map with offset", "offset field", "second dst", "second offset", "second opcode"],
)
def test_gd_04_fields_that_mean_nothing_must_be_zero(code: bytes) -> None:
    with pytest.raises(DiagnosticError) as caught:
        bpfc.from_bytes(code + EXIT, maps={FD: ARRAY}, big_endian=False)
    assert caught.value.errno == EINVAL


def test_gd_05_only_arrays_of_one_entry_have_direct_values() -> None:
    assert refusal("r1 = map_value(3, 0)", Map("two", MapType.ARRAY, 4, 8, 2)).errno == EOPNOTSUPP
    assert refusal("r1 = map_value(3, 0)", Map("hash", MapType.HASH, 4, 8, 1)).errno == EINVAL


def test_gd_06_an_index_needs_an_fd_array() -> None:
    text = "r1 = map_idx_value(1, 8)\n*(u8 *)(r1 + 0) = 5\nr0 = 0\nexit"
    with pytest.raises(RejectedError) as caught:
        bpfc.assemble(text, maps={FD: ARRAY})
    assert caught.value.errno == EPROTO
    with bpfc.assemble(text, maps={FD: ARRAY}, fd_array=[99, FD]).start() as runtime:
        runtime["main"].run(bytes(8))
        assert runtime.maps["array"][0] == bytes(8) + b"\x05" + bytes(39)


def test_gd_07_a_program_sees_the_initial_values_of_all_sections(machine: Space) -> None:
    with bpfc.load(GLOBALS).start() as runtime:
        assert runtime["read"].run(PACKET).ret == 0
        copies = runtime.maps["copies"].live.lookup(bytes(4))
    order = machine.target.byte_order
    pair = b"\x07" + bytes(3) + (0x12345678).to_bytes(4, order) + b"static\0\0"
    constant_pair = b"\x09" + bytes(3) + (0x9ABCDEF0).to_bytes(4, order) + b"read" + bytes(4)
    numbers = b"".join(number.to_bytes(8, order) for number in (42, 0, 24))
    assert copies == numbers + pair + constant_pair + bytes(16) + b"a string".ljust(16, b"\0")


def test_gd_08_variables_are_memory_shared_with_the_host() -> None:
    with bpfc.load(GLOBALS).start() as runtime:
        program = runtime["count"]
        assert {program.run(PACKET).ret for _ in range(1000)} == {42}
        assert runtime.bss.zeroed == 1000
        runtime.data.initialized = 43
        assert program.run(PACKET).ret == 43


def test_gd_09_read_only_data_may_change_before_the_load_only(machine: Space) -> None:
    loaded = bpfc.load(GLOBALS)
    loaded.rodata["constant"] = 99
    with loaded.start() as runtime:
        runtime["read"].run(PACKET)
        copies = runtime.maps["copies"].live.lookup(bytes(4))
        assert copies[16:24] == (99).to_bytes(8, machine.target.byte_order)
        rodata = next(view for name, view in runtime.maps.items() if name.endswith(".rodata"))
        with pytest.raises(RejectedError) as caught:
            rodata[0] = rodata[0]
        assert caught.value.errno == EPERM
        with pytest.raises(RejectedError) as caught, rodata.mmap(writable=True):
            pass
        assert caught.value.errno in (EPERM, EACCES)
        with rodata.mmap(writable=False) as view, pytest.raises(TypeError):
            view[0] = 1


def test_gd_10_a_store_into_read_only_data_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        run_global("store")
    assert caught.value.errno == EACCES


def test_gd_11_a_map_is_frozen_once_and_not_while_mapped_writable() -> None:
    map = Map("mapped", MapType.ARRAY, 4, 8, 1, MapFlag.MMAPABLE)
    with assemble("r1 = map_fd(3)", map).start() as runtime:
        view = runtime.maps["mapped"]
        with view.mmap() as memory:
            memory[0] = 1
            with pytest.raises(RejectedError) as caught:
                view.freeze()
            assert caught.value.errno == EBUSY
        view.freeze()
        with pytest.raises(RejectedError) as caught:
            view.freeze()
        assert caught.value.errno == EBUSY


def test_gd_12_a_call_behind_a_false_read_only_flag_is_gone() -> None:
    assert run_global("guarded") == 3
    loaded = bpfc.load(GLOBALS)
    live = transformed(loaded.program("guarded"), loaded.maps).program
    assert not any(row_of(insn).kind is Kind.CALL for insn in live.insns)
    with loaded.start() as runtime:
        code = runtime["guarded"].compiled.code
    assert not any("2000" in name or name.startswith("helper.") for name in code.undefined)
    with pytest.raises(DiagnosticError, match="2000") as caught:
        run_global("guarded", use_missing=1)
    at = caught.value.diagnostics[0].at
    assert at.insn is not None
    assert (
        row_of(loaded.program("guarded").insns[loaded.program("guarded").starts.index(at.insn)]).kind
        is Kind.CALL
    )


def test_gd_13_a_flag_that_may_change_hides_nothing() -> None:
    with pytest.raises(DiagnosticError, match="2000"):
        run_global("open")
    loaded = bpfc.load(GLOBALS)
    loaded.bss["use_missing_data"] = 1
    with pytest.raises(DiagnosticError, match="2000"), loaded.start() as runtime:
        runtime["open"].run(PACKET)


def test_gd_14_a_loop_over_read_only_data_ends() -> None:
    assert run_global("loop") == 3 << 8 | 9
    bpfc.load(GLOBALS).verify("loop").raise_for_status()


LOADS = ("u8", "u16", "u32", "u64", "s8", "s16", "s32")
BITS = b"\x80\x81\x82\x83\x84\x85\x86\x87\x7f\x01\xff\xfe\x00\x80\x7e\x80"


@pytest.mark.parametrize("place", [0, 8])
@pytest.mark.parametrize("load", LOADS)
def test_gd_15_folded_loads_have_the_value_of_loads_at_run_time(load: str, place: int) -> None:
    constants = Map("bits", MapType.ARRAY, 4, 16, 1, MapFlag.RDONLY_PROG, initial=BITS, is_read_only=True)
    loaded = bpfc.assemble(
        f"r1 = map_value(3, 0)\nr0 = *({load} *)(r1 + {place})\nexit", maps={FD: constants}
    )
    results = []
    for fold in (True, False):
        with loaded.start(Options(fold=fold)) as runtime:
            results.append(runtime["main"].run(bytes(8)).ret)
    size = int(load[1:]) // 8
    number = int.from_bytes(BITS[place : place + size], order_of(loaded), signed=load[0] == "s")
    assert results == [number & (1 << 64) - 1] * 2
    module = lift(loaded.program("main"), loaded.maps)
    FoldRodata().run(module, [])
    assert not any(type(inst) is Load for function in module.functions.values() for inst in function.insts())


def test_gd_15_sums_of_folded_loads_are_those_of_c() -> None:
    assert run_global("widths") == 1


@pytest.mark.parametrize(("index", "wanted"), [(0, 0), (3, 9), (15, 225), (16, 0xFFFF_FFFF)])
def test_gd_16_a_variable_index_is_bounded_at_run_time(index: int, wanted: int) -> None:
    assert decided(bpfc.load(GLOBALS), "indexed") == []
    with bpfc.load(GLOBALS).start() as runtime:
        assert runtime["indexed"].run(PACKET, {"mark": index}).verdict == wanted


READ_ONLY = Map(
    "constants", MapType.ARRAY, 4, 16, 1, MapFlag.RDONLY_PROG, initial=bytes(range(16)), is_read_only=True
)


@pytest.mark.parametrize(("jump", "taken"), [("if w1 s< 0 goto +1", True), ("if w1 > 1 goto +1", True)])
def test_gd_17_a_32_bit_compare_folds_as_it_runs(jump: str, taken: bool) -> None:
    constants = Map(
        "ones", MapType.ARRAY, 4, 4, 1, MapFlag.RDONLY_PROG, initial=b"\xff" * 4, is_read_only=True
    )
    text = f"r2 = map_value(3, 0)\nr1 = *(u32 *)(r2 + 0)\nr0 = 1\n{jump}\nr0 = 2\nexit"
    loaded = bpfc.assemble(text, maps={FD: constants})
    assert decided(loaded) == [taken]
    with loaded.start() as runtime:
        assert runtime["main"].run(bytes(8)).ret == (1 if taken else 2)


@pytest.mark.parametrize(("second", "wanted"), [(1, (2, 1)), (0, (1, 1))])
def test_gd_18_a_branch_on_a_join_folds_when_both_sides_agree(second: int, wanted: tuple[int, int]) -> None:
    text = f"""
        r3 = map_value(3, 0)
        r4 = *(u8 *)(r3 + {second})
        r2 = *(u8 *)(r1 + 0)
        if r2 == 0 goto +1
        r4 = *(u8 *)(r3 + 0)
        r0 = 1
        if r4 == 0 goto +1
        r0 = 2
        exit
    """
    loaded = bpfc.assemble(text, maps={FD: READ_ONLY})
    assert decided(loaded) == ([] if wanted[0] != wanted[1] else [True])
    with loaded.start() as runtime:
        assert tuple(runtime["main"].run(bytes([first])).ret for first in (0, 1)) == wanted


DEAD_CODE = {  # Linux's selftests (verifier/dead_code.c), in assembly
    "start": ("goto +2\nr0 = *(u8 *)(r1 + 0)\ngoto +2\nr0 = 7\nif r0 >= 10 goto -4\nexit", 7),
    "middle 1": ("r0 = 7\nif r0 >= 0 goto +1\nr0 = 0\nif r0 >= 10 goto -4\nexit", 7),
    "middle 2": (
        "call 7\nif r0 & 1 goto +4\nif r0 & 1 goto +1\ngoto +2\nr0 = 7\ngoto +1\nr0 = 1\nexit",
        1,
    ),
    "end 1": ("r0 = 7\nif r0 >= 10 goto +1\nexit\nexit", 7),
    "end 2": ("r0 = 7\nif r0 >= 10 goto +1\nexit\nr0 = 12\nexit", 7),
    "end 3": ("r0 = 7\nif r0 >= 8 goto +1\nexit\nif r0 >= 10 goto +1\ngoto -3\nr0 = 12\nexit", 7),
    "tail and function": ("r0 = 7\nif r0 >= 8 goto +1\nexit\ncall pc+1\nexit\nr0 = 12\nexit", 7),
    "tail and two functions": (
        "r0 = 7\nif r0 >= 8 goto +1\nexit\ncall pc+1\nexit\nr0 = 12\ncall pc+1\nexit\nr0 = 12\nexit",
        7,
    ),
    "function in the middle": (
        "r0 = 7\nif r0 >= 7 goto +1\ncall pc+3\nr0 = 7\ncall pc+3\nexit\nr0 = 12\nexit\n"
        "r0 = 7\nif r0 >= 7 goto +1\ncall pc-5\nexit",
        7,
    ),
    "before a call": (
        "r1 = 2\nr0 = 2\nif r1 >= 2 goto +1\nr1 = 5\ncall pc+1\nexit\nr0 = r1\nexit",
        2,
    ),
    "start of a function": (
        "r1 = 2\ncall pc+1\nexit\nr0 = r1\nif r1 == 2 goto +1\nr0 = 0\nexit",
        2,
    ),
    "zero extension": (
        "r0 = 0\n*(u32 *)(r10 - 4) = r0\nr0 = *(u32 *)(r10 - 4)\nif r0 == 0 goto +1\nr0 = 1\nexit",
        0,
    ),
}


@pytest.mark.parametrize("shape", DEAD_CODE)
def test_gd_19_dead_code_of_every_shape_goes_away(shape: str) -> None:
    text, wanted = DEAD_CODE[shape]
    loaded = bpfc.assemble(text, type=ProgramType.SOCKET_FILTER)
    whole = loaded.program("main")
    lines = {slot: SourceLine("dead.c", 1 + slot, 1, "") for slot in whole.starts[:-1]}
    with loaded.start() as runtime:
        assert runtime["main"].run(PACKET).ret == wanted
    rewritten = transformed(replace(whole, lines=lines), {})
    live = rewritten.program
    starts = set(live.starts[:-1])
    assert len(live.insns) < len(whole.insns) or shape in ("middle 2", "start of a function")
    assert [info.start for info in live.functions] == sorted({0, *(info.start for info in live.functions)})
    assert sum(info.slots for info in live.functions) == live.starts[-1]
    assert set(live.lines) <= starts
    kept = {new: old for old, new in enumerate(rewritten.moved) if new is not None}
    assert all(line.line in range(1, 2 + kept[slot]) for slot, line in live.lines.items())
    with bpfc.from_insns(live.insns, type=ProgramType.SOCKET_FILTER).start() as runtime:
        assert runtime["main"].run(PACKET).ret == wanted


def test_gd_20_a_branch_on_a_function_pointer_is_decided_at_run_time() -> None:
    with bpfc.load(GLOBALS).start() as runtime:
        rodata = next(view for name, view in runtime.maps.items() if name.endswith(".rodata"))
        program = runtime["pointer"]
        (start, size), *_ = rodata.live.declared.relocated
        place = rodata.live.layout.values_offset + start
        rodata.live.block.view[place : place + size] = bytes(size)
        assert program.run(PACKET).ret == 1
        rodata.live.block.view[place : place + size] = b"\x01" * size
        assert program.run(PACKET).ret == 2


@pytest.mark.no_code
def test_gd_21_a_dump_by_number_loads_to_the_same_program() -> None:
    loaded = bpfc.assemble("r1 = map_value(3, 8)\nr2 = map_fd(3)\nr0 = 0\nexit", maps={FD: ARRAY})
    program = loaded.programs["main"]
    dumped = numbered(program, {"array": 77})
    assert [(insn.src, insn.imm) for insn in dumped[:2]] == [(2, 8 << 32 | 77), (1, 77)]
    again = bpfc.from_insns(dumped, maps={77: ARRAY}).programs["main"]
    assert dict(again.references) == dict(program.references)
    assert bind_maps(again, {}) == again


@pytest.mark.parametrize("delay", [0, 1, 5, 20])
def test_gd_22_an_update_is_whole_or_refused_when_another_thread_freezes(delay: int) -> None:
    map = Map("later", MapType.ARRAY, 4, 48, 1, MapFlag.RDONLY_PROG)
    loaded = bpfc.assemble("r1 = map_value(3, 0)\nr0 = *(u64 *)(r1 + 40)\nexit", maps={FD: map})
    with loaded.start() as runtime:
        view = runtime.maps["later"]
        assert isinstance(view, MapView)
        written: list[int] = []
        refused: list[int] = []

        def write() -> None:
            for number in range(1, 100_000):
                try:
                    view[0] = bytes([number & 0xFF]) * 48
                    written.append(number)
                except RejectedError as error:
                    refused.append(error.errno)
                    return

        writer = threading.Thread(target=write)
        writer.start()
        while len(written) < delay:
            time.sleep(0)
        view.freeze()
        writer.join()
        frozen = view[0]
        assert refused == [EPERM]
        last = (written[-1] if written else 0) & 0xFF
        assert frozen == bytes([last]) * 48
        assert runtime["main"].run(bytes(8)).ret == int.from_bytes(bytes([last]) * 8)
        assert "value.later" not in runtime["main"].compiled.code.undefined


@pytest.mark.host_only("threads that run at the same time")
def test_gd_23_atomic_adds_of_four_threads_all_count() -> None:
    runs = 500
    with bpfc.load(GLOBALS).start() as runtime:
        program = runtime["add"]
        seen: list[int] = []

        def work() -> None:
            for _ in range(runs):
                program.run(PACKET)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(runtime.bss.zeroed)
        for thread in threads:
            thread.join()
        assert runtime.bss.zeroed == 4 * runs
    assert seen == sorted(seen)


@pytest.mark.no_code
def test_raw_programs_have_no_type() -> None:
    assert assemble("r1 = map_fd(3)").programs["main"].type is ProgramType.UNSPEC
