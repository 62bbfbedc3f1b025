"""BTF: reading, checking, writing and showing types."""

from __future__ import annotations

from array import array
from pathlib import Path
from struct import pack
from time import process_time

import pytest

from bpfc.kernel_types import running_kernel
from ir.btf import Btf, read_btf
from ir.btf_c import c_declaration, dump_c
from ir.btf_check import check_btf
from ir.btf_dump import dump_raw
from ir.btf_encode import encode_btf
from ir.btf_ext import CoreKind, CoreRelocation, read_btf_ext, source_line
from ir.btf_names import Names, essential_name
from ir.btf_types import (
    VOID,
    Array,
    BtfKind,
    DataSection,
    DeclTag,
    Enum,
    Enumerator,
    Float,
    Forward,
    Function,
    Int,
    Linkage,
    Member,
    Parameter,
    Pointer,
    Prototype,
    Qualifier,
    SectionEntry,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Variable,
)
from ir.diagnostics import SourceLine, UnreadableError

KERNEL = Path("/sys/kernel/btf/vmlinux")
INT = Int("int", 4, 32, is_signed=True)
EVERY: tuple[Type, ...] = (
    INT,
    Pointer(1),
    Array(1, 1, 3),
    Struct("s", False, 8, (Member("a", 1, 0, 3), Member("b", 1, 32, 0))),
    Struct("u", True, 8, (Member("a", 1, 0), Member("", 4, 0))),
    Enum("e", 4, True, (Enumerator("NEGATIVE", -1), Enumerator("ONE", 1))),
    Forward("f", True),
    Typedef("t", 4),
    Qualifier(BtfKind.VOLATILE, 1),
    Qualifier(BtfKind.CONST, 9),
    Qualifier(BtfKind.RESTRICT, 2),
    Prototype(1, (Parameter("x", 1), Parameter("", 2)), True),
    Function("main", 12, Linkage.GLOBAL),
    Variable("v", 3, Linkage.STATIC),
    DataSection(".data", 12, (SectionEntry(14, 0, 12),)),
    Float("double", 8),
    DeclTag("tag", 4, 1),
    TypeTag("user", 1),
    Enum("wide", 8, False, (Enumerator("HUGE", (1 << 64) - 1),), True),
    DeclTag("whole", 4, -1),
    Int("_Bool", 1, 8, is_bool=True),
)


def types(*of: Type) -> Btf:
    """BTF of types with ids 1, 2, ..."""
    return read_btf(encode_btf(of))


def header(types_length: int, strings_length: int, length: int = 24, version: int = 1) -> bytes:
    """The header of a little-endian section whose strings follow its types."""
    return pack("<HBBIIIII", 0xEB9F, version, 0, length, 0, types_length, types_length, strings_length)


@pytest.mark.parametrize("big_endian", [False, True])
def test_every_kind_is_read_as_it_was_written(big_endian: bool) -> None:
    btf = read_btf(encode_btf(EVERY, big_endian))
    assert btf.big_endian == big_endian
    assert tuple(btf.type(id) for id in btf.ids()) == EVERY
    assert len(btf) == len(EVERY) + 1
    assert check_btf(btf) == []


def test_a_struct_in_bytes_is_what_the_kernel_says_it_is() -> None:
    strings = b"\0int\0s\0a\0"
    records = pack("<4I", 1, 1 << 24, 4, 1 << 24 | 32)
    records += pack("<6I", 5, 1 << 31 | 4 << 24 | 1, 4, 7, 1, 5 << 24 | 9)
    btf = read_btf(header(len(records), len(strings)) + records + strings)
    assert btf.type(1) == Int("int", 4, 32, is_signed=True)
    assert btf.type(2) == Struct("s", False, 4, (Member("a", 1, 9, 5),))


def test_type_zero_is_void() -> None:
    btf = types()
    assert (btf.type(0), btf.name(0), btf.kind(0), len(btf)) == (VOID, "", BtfKind.UNKN, 1)


def test_split_types_continue_those_of_their_base() -> None:
    base = types(INT, Struct("s", False, 4, (Member("a", 1, 0),)))
    split = read_btf(encode_btf([Pointer(2), Struct("s", False, 8, (Member("p", 3, 0),))], base=base), base)
    assert list(split.ids()) == [3, 4]
    assert split.type(4) == Struct("s", False, 8, (Member("p", 3, 0),))
    assert split.type(1) == INT
    assert list(split.find("s")) == [2, 4]
    assert list(split.find("int", BtfKind.INT)) == [1]
    assert split.size_of(3) == 8
    assert split.name(2) == "s"


def test_names_are_found_by_kind_and_flavour() -> None:
    btf = types(
        INT,
        Struct("x", False, 4, ()),
        Typedef("x", 1),
        Struct("x___new", False, 4, ()),
        Struct("x____", False, 4, ()),
    )
    assert list(btf.find("x")) == [2, 3]
    assert list(btf.find("x", BtfKind.TYPEDEF)) == [3]
    assert list(btf.find_flavours("x")) == [2, 3, 4]
    assert list(btf.find("y")) == []


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("a", "a"),
        ("a___b", "a"),
        ("a___b___c", "a___b"),
        ("a____b", "a____b"),
        ("___b", "___b"),
        ("a___", "a___"),
    ],
)
def test_a_flavour_is_what_follows_three_underscores(name: str, essential: str) -> None:
    assert essential_name(name) == essential


@pytest.mark.parametrize(
    ("id", "size"), [(1, 4), (2, 8), (3, 12), (4, 8), (8, 8), (14, 12), (15, 12), (19, 8)]
)
def test_sizes_go_through_names_and_arrays(id: int, size: int) -> None:
    assert types(*EVERY).size_of(id) == size


@pytest.mark.parametrize("id", [0, 7, 12, 13])
def test_void_functions_and_forward_declarations_have_no_size(id: int) -> None:
    with pytest.raises(UnreadableError, match="btf-no-size"):
        types(*EVERY).size_of(id)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "shorter than its header"),
        (header(0, 1), "do not fit"),
        (b"\x7fELF" + bytes(24), "magic"),
        (header(0, 1, version=2) + b"\0", "version 2"),
        (header(0, 1, length=8) + b"\0", "length 8"),
        (header(0, 1, length=1 << 31) + b"\0", "length 2147483648"),
        (header(0, 2) + b"\0x", "zero byte"),
        (header(0, 1) + b"x", "zero byte"),
        (header(0, 0), "zero byte"),
        (header(2, 1) + bytes(3), "do not fit"),
        (header(8, 1) + pack("<2I", 0, 1 << 24) + b"\0", "type 1 does not fit"),
        (header(12, 1) + pack("<3I", 0, 1 << 24, 0) + b"\0", "type 1 does not fit"),
        (header(12, 1) + pack("<3I", 0, 4 << 24 | 0xFFFF, 0) + b"\0", "type 1 does not fit"),
        (header(12, 1) + pack("<3I", 0, 0, 0) + b"\0", "unknown kind 0"),
        (header(24, 1) + pack("<6I", 0, 2 << 24, 0, 0, 20 << 24, 0) + b"\0", "type 2 is of unknown kind 20"),
    ],
)
def test_a_malformed_section_is_unreadable(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        read_btf(data)


def test_ids_and_strings_that_are_not_there_are_unreadable_when_followed() -> None:
    btf = types(Pointer(9))
    with pytest.raises(UnreadableError, match="no type 9"):
        btf.size_of(9)
    with pytest.raises(UnreadableError, match="no type -1"):
        btf.type(-1)
    with pytest.raises(UnreadableError, match="string offset 1000"):
        btf.string(1000)


def test_a_string_without_an_end_is_not_read_forever() -> None:
    btf = read_btf(header(0, 10_002) + b"\0" + b"x" * 10_000 + b"\0")
    with pytest.raises(UnreadableError, match="longer than"):
        btf.string(1)
    assert btf.string(1, 5, cut=True) == "xxxxx"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((Pointer(5),), "no type 5"),
        ((Struct("s", False, 4, (Member("a", 7, 0),)),), "no type 7"),
        ((INT, Function("f", 1, Linkage.STATIC)), "cannot stand there"),
        ((INT, DataSection(".data", 4, (SectionEntry(1, 0, 4),))), "cannot stand there"),
        ((Int("int", 3, 24),), "24 bits"),
        ((Int("int", 4, 40),), "40 bits"),
        ((Enum("e", 3, False, ()),), "3 bytes"),
        ((INT, Struct("s", False, 4, (Member("a", 1, 64),))), "bit 64"),
        ((Typedef("a", 2), Typedef("b", 1)), "contains itself"),
        ((Array(2, 1, 3), Qualifier(BtfKind.CONST, 1)), "contains itself"),
        ((Struct("s", False, 4, (Member("a", 2, 0),)), Array(1, 1, 1)), "contains itself"),
    ],
)
def test_types_that_make_no_sense_are_found(wrong: tuple[Type, ...], said: str) -> None:
    problems = check_btf(types(*wrong))
    assert problems
    assert said in problems[0].message


def test_a_pointer_may_lead_back() -> None:
    assert check_btf(types(Struct("s", False, 8, (Member("next", 2, 0),)), Pointer(1))) == []


def test_chains_without_an_end_are_unreadable() -> None:
    loop = types(Typedef("a", 2), Typedef("b", 1), Qualifier(BtfKind.CONST, 3))
    with pytest.raises(UnreadableError, match="btf-loop"):
        loop.strip(1)
    with pytest.raises(UnreadableError, match="btf-loop"):
        loop.size_of(1)
    with pytest.raises(UnreadableError, match="btf-too-large"):
        c_declaration(loop, 3, "x")


def test_long_chains_of_types_need_no_deep_stack() -> None:
    count = 4000
    inward = types(*(Struct(f"s{id}", False, 4, (Member("in", id + 1, 0),)) for id in range(1, count)), INT)
    outward = types(
        INT, *(Struct(f"s{id}", False, 4, (Member("in", id - 1, 0),)) for id in range(2, count + 1))
    )
    for nested in (inward, outward):
        assert check_btf(nested) == []
        assert len(list(dump_c(nested))) == count - 1


def test_types_that_explode_are_not_written() -> None:
    doubling: list[Type] = [INT]
    for number in range(1, 26):
        doubling.append(
            Struct("", False, 4 << number, (Member("a", number, 0), Member("b", number, 16 << number)))
        )
    doubling.append(Struct("s", False, 4 << 26, (Member("", 26, 0),)))
    with pytest.raises(UnreadableError, match="btf-too-large"):
        list(dump_c(types(*doubling)))


@pytest.mark.parametrize(
    ("id", "name", "text"),
    [
        (1, "x", "int x"),
        (2, "x", "int *x"),
        (3, "x", "int x[3]"),
        (11, "x", "int *restrict x"),
        (10, "x", "const volatile int x"),
        (12, "f", "int f(int x, int *, ...)"),
        (18, "x", '__attribute__((btf_type_tag("user"))) int x'),
        (8, "", "typedef struct s t;"),
        (7, "", "union f;"),
        (6, "", "enum e {\n\tNEGATIVE = -1,\n\tONE = 1,\n};"),
        (19, "", "enum wide {\n\tHUGE = 18446744073709551615ULL,\n};"),
        (4, "", "struct s {\n\tint a: 3;\n\tint b;\n};"),
        (14, "", "int v[3];"),
    ],
)
def test_a_declaration_is_c(id: int, name: str, text: str) -> None:
    assert c_declaration(types(*EVERY), id, name) == text


@pytest.mark.parametrize(
    ("of", "text"),
    [
        ((INT, Pointer(3), Array(1, 1, 2)), "int (*x)[2]"),
        ((INT, Pointer(3), Prototype(1, ())), "int (*x)(void)"),
        ((INT, Array(3, 1, 4), Pointer(4), Prototype(5, ()), Pointer(0)), "void *(*x[4])(void)"),
        ((INT, Qualifier(BtfKind.CONST, 3), Pointer(4), Qualifier(BtfKind.CONST, 1)), "const int *const x"),
        ((INT, Qualifier(BtfKind.CONST, 3), Array(4, 1, 2), Qualifier(BtfKind.CONST, 1)), "const int x[2]"),
    ],
)
def test_declarators_are_grouped_where_c_wants_it(of: tuple[Type, ...], text: str) -> None:
    assert c_declaration(types(*of), 2, "x").replace("const  ", "const ") == text


def test_layouts_are_kept_by_packing_and_padding() -> None:
    btf = types(
        INT,
        Int("char", 1, 8, is_signed=True),
        Struct("packed", False, 5, (Member("c", 2, 0), Member("i", 1, 8))),
        Struct("gap", False, 16, (Member("i", 1, 0), Member("j", 1, 64))),
        Struct("end", False, 8, (Member("c", 2, 0),)),
    )
    assert c_declaration(btf, 3) == "struct packed {\n\tchar c;\n\tint i;\n} __attribute__((packed));"
    assert c_declaration(btf, 4) == "struct gap {\n\tint i;\n\tint: 32;\n\tint j;\n\tint: 32;\n};"
    assert c_declaration(btf, 5) == "struct end {\n\tchar c;\n\tchar: 8;\n\tshort: 16;\n\tint: 32;\n};"


def test_what_a_definition_needs_comes_before_it() -> None:
    btf = types(
        Struct("outer", False, 16, (Member("in", 2, 0), Member("next", 4, 64))),
        Typedef("inner_t", 3),
        Struct("inner", False, 8, (Member("back", 4, 0),)),
        Pointer(1),
    )
    assert list(dump_c(btf)) == [
        "struct inner;\n",
        "typedef struct inner inner_t;\n",
        "struct outer;\n",
        "struct inner {\n\tstruct outer *back;\n};\n",
        "struct outer {\n\tinner_t in;\n\tstruct outer *next;\n};\n",
    ]


def test_names_that_clash_are_numbered() -> None:
    btf = types(Struct("s", False, 0, ()), Struct("s", False, 0, ()), Typedef("s", 2))
    assert "".join(dump_c(btf)) == "struct s {};\nstruct s___2 {};\ntypedef struct s___2 s;\n"


def test_records_are_shown_as_bpftool_does() -> None:
    assert list(dump_raw(types(*EVERY))) == [
        "[1] INT 'int' size=4 bits_offset=0 nr_bits=32 encoding=SIGNED",
        "[2] PTR '(anon)' type_id=1",
        "[3] ARRAY '(anon)' type_id=1 index_type_id=1 nr_elems=3",
        "[4] STRUCT 's' size=8 vlen=2",
        "\t'a' type_id=1 bits_offset=0 bitfield_size=3",
        "\t'b' type_id=1 bits_offset=32",
        "[5] UNION 'u' size=8 vlen=2",
        "\t'a' type_id=1 bits_offset=0",
        "\t'(anon)' type_id=4 bits_offset=0",
        "[6] ENUM 'e' encoding=SIGNED size=4 vlen=2",
        "\t'NEGATIVE' val=-1",
        "\t'ONE' val=1",
        "[7] FWD 'f' fwd_kind=union",
        "[8] TYPEDEF 't' type_id=4",
        "[9] VOLATILE '(anon)' type_id=1",
        "[10] CONST '(anon)' type_id=9",
        "[11] RESTRICT '(anon)' type_id=2",
        "[12] FUNC_PROTO '(anon)' ret_type_id=1 vlen=3",
        "\t'x' type_id=1",
        "\t'(anon)' type_id=2",
        "\t'(anon)' type_id=0",
        "[13] FUNC 'main' type_id=12 linkage=global",
        "[14] VAR 'v' type_id=3, linkage=static",
        "[15] DATASEC '.data' size=12 vlen=1",
        "\ttype_id=14 offset=0 size=12 (VAR 'v')",
        "[16] FLOAT 'double' size=8",
        "[17] DECL_TAG 'tag' type_id=4 component_idx=1",
        "[18] TYPE_TAG 'user' type_id=1",
        "[19] ENUM64 'wide' encoding=UNSIGNED size=8 vlen=1",
        "\t'HUGE' val=18446744073709551615ULL",
        "[20] DECL_TAG 'whole' type_id=4 component_idx=-1",
        "[21] INT '_Bool' size=1 bits_offset=0 nr_bits=8 encoding=BOOL",
    ]


def ext(functions: bytes = b"", lines: bytes = b"", core: bytes = b"") -> bytes:
    """A .BTF.ext section of these parts."""
    places = (0, len(functions), len(functions), len(lines), len(functions) + len(lines), len(core))
    return pack("<HBBI6I", 0xEB9F, 1, 0, 32, *places) + functions + lines + core


STRINGS = read_btf(header(0, 24) + b"\0xdp\0a.c\0return 0;\x000:1\0\0")


def test_records_of_code_are_read_by_section() -> None:
    functions = pack("<3I", 8, 1, 2) + pack("<4I", 0, 3, 16, 4)
    lines = pack("<3I", 16, 1, 1) + pack("<4I", 8, 5, 9, 12 << 10 | 7)
    core = pack("<3I", 16, 1, 1) + pack("<4I", 24, 5, 19, 2)
    found = read_btf_ext(ext(functions, lines, core), STRINGS)
    assert found.functions == {"xdp": [(0, 3), (16, 4)]}
    assert source_line(found.lines["xdp"][0], STRINGS) == SourceLine("a.c", 12, 7, "return 0;")
    assert found.core == {"xdp": [(24, CoreRelocation(CoreKind.FIELD_EXISTS, 5, "0:1"))]}


def test_longer_records_of_a_newer_compiler_are_read_as_far_as_known() -> None:
    functions = pack("<3I", 12, 1, 2) + pack("<6I", 0, 3, 99, 16, 4, 99)
    assert read_btf_ext(ext(functions), STRINGS).functions == {"xdp": [(0, 3), (16, 4)]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "shorter"),
        (b"\0" * 32, "magic"),
        (ext(b"\0\0"), "no size"),
        (ext(pack("<I", 4)), "records of 4 bytes"),
        (ext(pack("<I", 10)), "records of 10 bytes"),
        (ext(pack("<2I", 8, 1)), "cut short"),
        (ext(pack("<3I", 8, 1, 0)), "0 function records"),
        (ext(pack("<3I", 8, 1, 0xFFFF_FFFF)), "do not fit"),
        (ext(pack("<3I", 0xFFFF_FFFC, 1, 1)), "do not fit"),
        (ext(pack("<5I", 8, 1, 1, 0, 0))[:-4], "do not fit"),
        (ext(lines=pack("<7I", 16, 1, 1, 0, 500, 0, 0)), "string 500"),
        (ext(core=pack("<7I", 16, 1, 1, 0, 0, 0, 13)), "unknown kind 13"),
    ],
)
def test_malformed_records_are_unreadable(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        read_btf_ext(data, STRINGS)


@pytest.mark.skipif(not KERNEL.exists(), reason="the running kernel has no BTF")
def test_the_types_of_the_running_kernel_open_quickly() -> None:
    data = KERNEL.read_bytes()
    begin = process_time()
    btf = read_btf(data)
    found = list(btf.find("task_struct", BtfKind.STRUCT))
    seconds = process_time() - begin
    assert len(btf) > 10_000
    assert len(found) == 1
    assert isinstance(btf.type(found[0]), Struct)
    assert seconds < 2  # 0.2 where it was written; slow machines are slow


def read_names(btf: Btf) -> Names:
    """Names that nobody has asked for."""
    own = btf.names
    return Names(own._offsets, own._first_id, own._tables, own._text)


def test_names_are_found_one_by_one_as_in_the_index() -> None:
    """Strings may share their ends; the index is used once many names have been asked for."""
    kernel = running_kernel()
    if kernel is None:
        pytest.skip("the running kernel has no BTF")
    index = read_btf(kernel.data).names.index()
    for name in sorted(index)[:: len(index) // 200]:
        assert list(read_names(kernel).ids(name)) == index[name], name
    flavoured = [name for name in index if essential_name(name) != name]
    for name in map(essential_name, flavoured):
        assert {*read_names(kernel).flavours(name)} == {
            full for full in index if "___" in full and essential_name(full) == name
        }


def test_a_name_may_be_the_end_of_another_string() -> None:
    names = Names(
        array("I", [1, 3, 0, 3, 5]), 1, [(0, b"\0my_int\0")], {1: "my_int", 3: "_int", 5: "nt"}.__getitem__
    )
    assert [list(names.ids(name)) for name in ("my_int", "_int", "nt", "int", "")] == [
        [1],
        [2, 4],
        [5],
        [],
        [],
    ]


def test_pointers_are_found_by_what_they_point_at() -> None:
    kernel = running_kernel()
    if kernel is None:
        pytest.skip("the running kernel has no BTF")
    for id in kernel.find("sk_buff", BtfKind.STRUCT):
        found = kernel.type(kernel.pointer_to(id))
        assert isinstance(found, Pointer)
        assert found.type_id == id
    assert kernel.pointer_to(len(kernel)) == 0
