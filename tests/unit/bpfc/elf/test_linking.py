"""Functions, calls and relocations that clang does not make every day."""

from __future__ import annotations

import pytest

from bpfc.elf.reader import read_object
from bpfc.testing.elf_writer import (
    ALLOCATED,
    HIDDEN,
    LOCAL,
    NO_TYPE,
    OBJECT,
    SECTION,
    SHT_NOBITS,
    WEAK,
    WRITE,
    Part,
    Reloc,
    Sym,
    code,
    write_elf,
)
from ir.asm import assemble
from ir.btf_encode import encode_btf
from ir.btf_types import DataSection, Int, Linkage, Member, Pointer, Prototype, SectionEntry, Struct, Variable
from ir.diagnostics import RejectedError
from ir.encoding import encode
from ir.kinds import MapType
from ir.object import FunctionInfo, Object, ReferenceKind, Relocation

R_64_64, R_ABS64, R_64_32 = 1, 2, 10
RETURN = "r0 = 0\nexit"


def bytes_of(text: str, big_endian: bool = False) -> bytes:
    """The instructions of some assembly."""
    return encode(assemble(text), big_endian)


def read(parts: list[Part], symbols: list[Sym], big_endian: bool = False) -> Object:
    """The object of a file made of `parts`."""
    return read_object(write_elf(parts, symbols, big_endian), "made.o")


def problems(parts: list[Part], symbols: list[Sym]) -> list[str]:
    """The codes of what is wrong with a file made of `parts`."""
    with pytest.raises(RejectedError) as caught:
        read(parts, symbols)
    return [problem.code for problem in caught.value.diagnostics]


def test_several_programs_share_a_section() -> None:
    found = read([code("xdp", bytes_of(RETURN) * 2)], [Sym("a", "xdp", 0, 16), Sym("b", "xdp", 16, 16)])
    assert {name: len(program.insns) for name, program in found.programs.items()} == {"a": 2, "b": 2}


def test_a_symbol_without_a_size_reaches_to_the_next() -> None:
    found = read([code("xdp", bytes_of(RETURN) * 3)], [Sym("a", "xdp", 0), Sym("b", "xdp", 32)])
    assert {name: len(program.insns) for name, program in found.programs.items()} == {"a": 4, "b": 2}


def test_a_section_without_symbols_is_one_program_named_after_it() -> None:
    found = read([code("cgroup/dev", bytes_of(RETURN))], [])
    assert list(found.programs) == ["cgroup_dev"]


def test_calls_within_a_section_without_symbols_cut_it_into_functions() -> None:
    found = read([code("xdp", bytes_of("call pc+1\nexit\nr0 = 1\nexit"))], [])
    assert found.programs["xdp"].functions == (
        FunctionInfo("xdp", 0, 2, True, section="xdp", offset=0),
        FunctionInfo("xdp_1", 2, 2, False, section="xdp", offset=16),
    )


def test_functions_that_are_not_marked_as_such_are_found_by_their_names() -> None:
    symbols = [Sym("old", "xdp", type=NO_TYPE), Sym("LBB0_1", "xdp", 8, type=NO_TYPE, binding=LOCAL)]
    assert list(read([code("xdp", bytes_of(RETURN))], symbols).programs) == ["old"]


def test_functions_in_text_are_programs_when_there_is_nothing_else() -> None:
    symbols = [Sym("main", ".text", 0, 16), Sym("helper", ".text", 16, 16, binding=LOCAL)]
    assert list(read([code(".text", bytes_of(RETURN) * 2)], symbols).programs) == ["main"]


def test_functions_in_text_are_subprograms_beside_others() -> None:
    parts = [code(".text", bytes_of(RETURN)), code("xdp", bytes_of(RETURN))]
    assert list(read(parts, [Sym("helper", ".text", 0, 16), Sym("main", "xdp", 0, 16)]).programs) == ["main"]


@pytest.mark.parametrize("big_endian", [False, True])
def test_a_call_of_another_section_is_linked(big_endian: bool) -> None:
    parts = [
        code(".text", bytes_of(f"{RETURN}\nr0 = 2\nexit", big_endian)),
        code("xdp", bytes_of("call pc-1\nexit", big_endian), Reloc(0, R_64_32, "helper")),
    ]
    symbols = [Sym("first", ".text", 0, 16), Sym("helper", ".text", 16, 16), Sym("main", "xdp", 0, 16)]
    program = read(parts, symbols, big_endian).programs["main"]
    assert program.insns == assemble("call pc+1\nexit\nr0 = 2\nexit")


def test_a_call_of_a_static_function_goes_by_its_section_and_distance() -> None:
    parts = [
        code(".text", bytes_of(f"{RETURN}\nr0 = 2\nexit")),
        code("xdp", bytes_of("call pc+1\nexit"), Reloc(0, R_64_32, ".text")),
    ]
    symbols = [
        Sym(".text", ".text", type=SECTION, binding=LOCAL),
        Sym("first", ".text", 0, 16, binding=LOCAL),
        Sym("second", ".text", 16, 16, binding=LOCAL),
        Sym("main", "xdp", 0, 16),
    ]
    program = read(parts, symbols).programs["main"]
    assert [function.name for function in program.functions] == ["main", "second"]


def test_an_explicit_addend_is_used_instead_of_the_one_in_the_instruction() -> None:
    parts = [
        code(".text", bytes_of(f"{RETURN}\nr0 = 2\nexit")),
        code(
            "xdp",
            bytes_of("call pc-1\nr1 = 0 ll\nexit"),
            Reloc(0, R_64_32, ".text", 16),
            Reloc(8, R_64_64, "data", 4),
        ),
        Part(".data", bytes(16), ALLOCATED | WRITE),
    ]
    symbols = [
        Sym(".text", ".text", type=SECTION, binding=LOCAL),
        Sym("first", ".text", 0, 16),
        Sym("second", ".text", 16, 16),
        Sym("main", "xdp", 0, 32),
        Sym("data", ".data", 8, 8, OBJECT),
    ]
    program = read(parts, symbols).programs["main"]
    assert [function.name for function in program.functions] == ["main", "second"]
    assert program.references[1].offset == 12


def test_two_static_functions_of_one_name_are_told_apart() -> None:
    parts = [
        code(".text", bytes_of(RETURN)),
        code("more", bytes_of(RETURN)),
        code(
            "xdp",
            bytes_of("call pc-1\ncall pc-1\nexit"),
            Reloc(0, R_64_32, ".text"),
            Reloc(8, R_64_32, "more"),
        ),
    ]
    symbols = [
        Sym(".text", ".text", type=SECTION, binding=LOCAL),
        Sym("more", "more", type=SECTION, binding=LOCAL),
        Sym("twin", ".text", 0, 16, binding=LOCAL),
        Sym("twin", "more", 0, 16, binding=LOCAL),
        Sym("main", "xdp", 0, 24),
    ]
    program = read(parts, symbols).programs["main"]
    assert [function.name for function in program.functions] == ["main", "twin", "twin.1"]


def test_recursion_is_linked_once() -> None:
    parts = [code("xdp", bytes_of("call pc+1\nexit\ncall pc-1\nexit"))]
    symbols = [Sym("main", "xdp", 0, 16), Sym("again", "xdp", 16, 16, binding=LOCAL)]
    program = read(parts, symbols).programs["main"]
    assert program.insns == assemble("call pc+1\nexit\ncall pc-1\nexit")


def test_a_chain_of_calls_deeper_than_the_stack_of_python_is_linked() -> None:
    count = 3000
    parts = [
        code(".text", bytes_of("call pc+1\nexit") * (count - 1) + bytes_of(RETURN)),
        code("xdp", bytes_of("call pc-1\nexit"), Reloc(0, R_64_32, "f0")),
    ]
    symbols = [Sym(f"f{number}", ".text", 16 * number, 16) for number in range(count)]
    program = read(parts, [*symbols, Sym("main", "xdp", 0, 16)]).programs["main"]
    assert len(program.functions) == count + 1


def test_hidden_functions_are_programs_but_not_global() -> None:
    symbols = [Sym("main", "xdp", 0, 16, visibility=HIDDEN)]
    assert not read([code("xdp", bytes_of(RETURN))], symbols).programs["main"].functions[0].is_global


def test_an_undefined_function_is_a_kernel_function() -> None:
    parts = [code("xdp", bytes_of("call pc-1\nexit"), Reloc(0, R_64_32, "elsewhere"))]
    program = read(parts, [Sym("main", "xdp", 0, 16), Sym("elsewhere", type=NO_TYPE, binding=WEAK)]).programs[
        "main"
    ]
    reference = program.references[0]
    assert (reference.kind, reference.name, reference.is_weak) == (ReferenceKind.KFUNC, "elsewhere", True)
    assert program.insns[0].src == 2


def test_strings_of_the_linker_are_global_data() -> None:
    parts = [
        code("xdp", bytes_of("r1 = 3 ll\nexit"), Reloc(0, R_64_64, ".rodata.str1.1")),
        Part(".rodata.str1.1", b"ab\0cd\0"),
    ]
    symbols = [
        Sym(".rodata.str1.1", ".rodata.str1.1", type=SECTION, binding=LOCAL),
        Sym("main", "xdp", 0, 24),
    ]
    found = read(parts, symbols)
    assert found.maps[".rodata.str1.1"].initial == b"ab\0cd\0"
    assert found.programs["main"].references[0].offset == 3


def test_sections_whose_map_names_are_cut_to_the_same_keep_their_full_names() -> None:
    parts = [Part(f".data.a_long_name_{number}", b"x") for number in range(2)]
    assert list(read(parts, []).maps) == [".data.a_long_na", ".data.a_long_name_1"]


def test_zeroed_sections_take_no_place_in_the_file() -> None:
    found = read([Part(".bss", type=SHT_NOBITS, size=4096)], [])
    assert found.maps["made.bss"].initial == bytes(4096)


def test_relocations_of_data_are_kept_with_what_they_point_at() -> None:
    parts = [
        code("xdp", bytes_of(RETURN) * 2),
        Part(".static_keys", bytes(16), relocations=[Reloc(0, R_ABS64, "xdp"), Reloc(8, R_ABS64, "key")]),
        Part(".data", bytes(8)),
    ]
    symbols = [
        Sym("xdp", "xdp", type=SECTION, binding=LOCAL),
        Sym("main", "xdp", 0, 32),
        Sym("key", ".data", 4, 4, OBJECT),
    ]
    found = read(parts, symbols)
    assert found.relocations == (
        Relocation(".static_keys", 0, "R_BPF_64_ABS64", "xdp", 0, "xdp", 0),
        Relocation(".static_keys", 8, "R_BPF_64_ABS64", "key", 0, ".data", 4),
    )
    assert found.data == {".static_keys": bytes(16)}


def test_a_place_in_a_section_is_found_in_each_program() -> None:
    parts = [
        code(".text", bytes_of("r0 = 1 ll\nexit")),
        code("xdp", bytes_of("call pc-1\nexit"), Reloc(0, R_64_32, "helper")),
    ]
    program = read(parts, [Sym("helper", ".text", 0, 24), Sym("main", "xdp", 0, 16)]).programs["main"]
    assert [program.slot_of("xdp", 8), program.slot_of(".text", 16), program.slot_of(".text", 24)] == [
        1,
        4,
        None,
    ]


def test_structs_of_functions_are_maps_whose_slots_name_programs() -> None:
    of = [
        Int("int", 4, 32),
        Prototype(1, ()),
        Pointer(2),
        Struct("ops", False, 16, (Member("flags", 1, 0), Member("init", 3, 64))),
        Variable("mine", 4, Linkage.GLOBAL),
        DataSection(".struct_ops", 24, (SectionEntry(5, 8, 16),)),
    ]
    parts = [
        code("struct_ops/init", bytes_of(RETURN)),
        Part(".struct_ops", bytes(8) + b"\x07" + bytes(15), relocations=[Reloc(16, R_ABS64, "init")]),
        Part(".BTF", encode_btf(of)),
    ]
    symbols = [Sym("init", "struct_ops/init", 0, 16), Sym("mine", ".struct_ops", 8, 16, OBJECT)]
    found = read(parts, symbols)
    mine = found.maps["mine"]
    assert (mine.type, mine.value_size, mine.initial) == (MapType.STRUCT_OPS, 16, b"\x07" + bytes(15))
    assert mine.slots == ((8, "init"),)
    assert found.programs["init"].attach_target == "init"


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        ([Sym("main", "xdp", 4, 8)], ["bad-function"]),
        ([Sym("main", "xdp", 0, 24)], ["bad-function"]),
        ([Sym("main", "xdp", 0, 12)], ["truncated-program"]),
        ([Sym("a", "xdp", 0, 16), Sym("b", "xdp", 8, 8)], ["bad-function"]),
        ([Sym("main", "xdp", 1 << 40, 8)], ["bad-function"]),
        ([Sym("main", "xdp", 0, 8), Sym("main", "xdp", 8, 8)], ["duplicate-program"]),
    ],
)
def test_functions_that_do_not_fit_their_section_are_refused(symbols: list[Sym], said: list[str]) -> None:
    assert problems([code("xdp", bytes_of(RETURN))], symbols) == said


@pytest.mark.parametrize(
    ("text", "relocation", "said"),
    [
        ("call pc-1\nexit", Reloc(0, R_64_64, "data"), "bad-relocation"),  # of the wrong type
        ("call pc-1\nexit", Reloc(0, R_64_32, "data"), "bad-relocation"),  # a call of data
        ("call 1\nexit", Reloc(0, R_64_32, "main"), "bad-relocation"),  # the call of a helper
        ("r1 = 0 ll\nexit", Reloc(8, R_64_64, "data"), "bad-relocation"),  # in the middle
        ("r1 = 0 ll\nexit", Reloc(0, R_64_64, "odd"), "bad-relocation"),  # a section that is no data
        ("r1 = 0\nexit", Reloc(0, R_64_64, "data"), "bad-relocation"),  # nothing to relocate
        ("call pc+0\nexit", Reloc(0, R_64_32, "main"), "bad-call-target"),  # the middle of a function
        ("call pc+7\nexit", None, "bad-call-target"),
    ],
)
def test_relocations_that_make_no_sense_are_refused(text: str, relocation: Reloc | None, said: str) -> None:
    parts = [
        code("xdp", bytes_of(text), *([relocation] if relocation is not None else [])),
        Part(".data", bytes(8)),
        Part("odd", bytes(8)),
    ]
    symbols = [Sym("main", "xdp"), Sym("data", ".data", type=OBJECT), Sym("odd", "odd", type=OBJECT)]
    assert problems(parts, symbols) == [said]


def test_more_linked_instructions_than_any_kernel_takes_are_refused() -> None:
    count = 256
    big = bytes_of("r0 = 0") * 20_000 + bytes_of("exit")
    parts = [
        code(".text", big),
        *(code(f"s{n}", bytes_of("call pc-1\nexit"), Reloc(0, R_64_32, "big")) for n in range(count)),
    ]
    symbols = [Sym("big", ".text", 0, len(big)), *(Sym(f"p{n}", f"s{n}", 0, 16) for n in range(count))]
    assert problems(parts, symbols) == ["too-large"]
