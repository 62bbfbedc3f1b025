"""ELF files that lie: each lie is refused, and soon."""

from __future__ import annotations

from pathlib import Path
from struct import pack, pack_into, unpack_from
from time import process_time

import pytest

from bpfc.elf.file import MAX_ZEROED
from bpfc.elf.reader import read_object
from bpfc.testing.elf_writer import LOCAL, OBJECT, SHT_NOBITS, Part, Reloc, Sym, code, write_elf
from ir.asm import assemble
from ir.diagnostics import DiagnosticError, UnreadableError
from ir.encoding import encode
from ir.kinds import MapType

OBJECTS = Path(__file__).parents[3] / "objects"
RETURN = encode(assemble("r0 = 0\nexit"))
PLAIN = write_elf([code("xdp", RETURN)], [Sym("main", "xdp", 0, 16)])

TYPE, OFFSET, SIZE, LINK, INFO, ENTRY = 4, 24, 32, 40, 44, 56  # fields of a section header
XDP, SYMTAB, STRTAB, NAMES = 1, 2, 3, 4  # the sections of PLAIN


def lie(section: int, field: int, value: int, width: str = "Q") -> bytes:
    """PLAIN with another value in a field of a section header."""
    data = bytearray(PLAIN)
    (headers,) = unpack_from("<Q", data, 40)
    pack_into("<" + width, data, headers + 64 * section + field, value)
    return bytes(data)


def header(offset: int, value: int, width: str) -> bytes:
    """PLAIN with another value in a field of the ELF header."""
    data = bytearray(PLAIN)
    pack_into("<" + width, data, offset, value)
    return bytes(data)


def code_of(data: bytes) -> str:
    """The code of the first thing that is wrong with an object."""
    begin = process_time()
    with pytest.raises(DiagnosticError) as caught:
        read_object(data, "lie.o")
    assert process_time() - begin < 1
    return caught.value.diagnostics[0].code


def test_the_plain_file_is_fine() -> None:
    assert list(read_object(PLAIN, "plain.o").programs) == ["main"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(4, 1, "B"), "not-bpf"),  # 32 bits
        (header(4, 9, "B"), "not-elf"),
        (header(5, 0, "B"), "not-elf"),
        (header(16, 3, "H"), "not-relocatable"),  # a shared library
        (header(18, 0x3E, "H"), "not-bpf"),
        (header(40, 0, "Q"), "bad-elf"),  # no section headers
        (header(40, 1 << 63, "Q"), "bad-elf"),
        (header(40, (1 << 64) - 8, "Q"), "bad-elf"),
        (header(58, 8, "H"), "bad-elf"),
        (header(60, 0xFFFF, "H"), "bad-elf"),
        (header(62, 0xFFFE, "H"), "bad-elf"),
        (header(62, 0xFFFF, "H"), "bad-elf"),
        (lie(XDP, OFFSET, 1 << 63), "bad-elf"),
        (lie(XDP, SIZE, 1 << 40), "bad-elf"),
        (lie(XDP, SIZE, (1 << 64) - 1), "bad-elf"),
        (lie(XDP, 0, 0xFFFF_FFFF, "I"), "bad-elf"),  # its name
        (lie(SYMTAB, SIZE, 25), "bad-elf"),
        (lie(SYMTAB, ENTRY, 0), "bad-elf"),
        (lie(SYMTAB, LINK, 99, "I"), "bad-elf"),
        (lie(SYMTAB, OFFSET, 0), "bad-elf"),
        (lie(STRTAB, TYPE, 2, "I"), "bad-elf"),  # two symbol tables
        (lie(NAMES, SIZE, 4), "bad-elf"),
    ],
)
def test_a_lie_in_a_header_is_refused(data: bytes, said: str) -> None:
    assert code_of(data) == said


def test_a_count_of_sections_beyond_the_file_is_refused() -> None:
    data = bytearray(header(60, 0, "H"))  # then the size of section 0 counts them
    (headers,) = unpack_from("<Q", data, 40)
    pack_into("<Q", data, headers + SIZE, 1 << 50)
    assert code_of(bytes(data)) == "bad-elf"


def test_zeroed_sections_may_not_ask_for_any_amount() -> None:
    big = Part(".bss", type=SHT_NOBITS, size=MAX_ZEROED + 1)
    many = [Part(f".bss.{number}", type=SHT_NOBITS, size=MAX_ZEROED // 16) for number in range(17)]
    assert code_of(write_elf([big])) == "section-too-large"
    assert code_of(write_elf(many)) == "section-too-large"


def test_sections_that_share_the_whole_file_are_refused() -> None:
    parts = [Part(f".data.{number}", bytes(8)) for number in range(2000)]
    data = bytearray(write_elf(parts))
    (headers,) = unpack_from("<Q", data, 40)
    for number in range(1, 2001):
        pack_into("<QQ", data, headers + 64 * number + OFFSET, 0, len(data))
    assert code_of(bytes(data)) == "bad-elf"


def test_symbols_that_all_have_the_longest_name_are_read_soon() -> None:
    long_name = "x" * 4000
    symbols = [Sym(long_name, "xdp", 0, 16, OBJECT, LOCAL) for _ in range(2000)]
    data = write_elf([code("xdp", RETURN)], [Sym("main", "xdp", 0, 16), *symbols])
    begin = process_time()
    assert list(read_object(data, "long.o").programs) == ["main"]
    assert process_time() - begin < 1


def test_a_name_without_an_end_is_refused() -> None:
    data = write_elf([code("xdp", RETURN)], [Sym("y" * 5000, "xdp", 0, 16)])
    assert code_of(data) == "bad-elf"


@pytest.mark.parametrize("symbol", [99, (1 << 32) - 1])
def test_a_relocation_against_no_symbol_is_refused(symbol: int) -> None:
    data = bytearray(write_elf([code("xdp", RETURN, Reloc(0, 1, "main"))], [Sym("main", "xdp", 0, 16)]))
    (headers,) = unpack_from("<Q", data, 40)
    (place,) = unpack_from("<Q", data, headers + 2 * 64 + OFFSET)
    pack_into("<Q", data, place + 8, symbol << 32 | 1)
    assert code_of(bytes(data)) == "bad-relocation"


def test_every_byte_of_a_file_may_be_cut_off() -> None:
    data = (OBJECTS / "legacy_maps.o").read_bytes()
    for size in range(0, len(data), 97):
        with pytest.raises(UnreadableError):
            read_object(data[:size], "cut.o")


def legacy_map(*words: int) -> bytes:
    """A struct bpf_map_def."""
    return pack(f"<{len(words)}I", *words)


def test_short_map_definitions_have_no_flags() -> None:
    data = write_elf([Part("maps", legacy_map(1, 4, 8, 16))], [Sym("m", "maps", 0, 16, OBJECT)])
    found = read_object(data, "old.o").maps["m"]
    assert (found.type, found.key_size, found.value_size, found.max_entries, found.flags) == (
        MapType.HASH,
        4,
        8,
        16,
        0,
    )


def test_zero_padding_behind_a_map_definition_is_fine() -> None:
    data = write_elf([Part("x/maps", legacy_map(1, 4, 8, 16, 1, 0, 0))], [Sym("m", "x/maps", 0, 28, OBJECT)])
    assert read_object(data, "old.o").maps["m"].flags == 1


def test_iproute2_names_inner_maps_by_id() -> None:
    outer, inner = legacy_map(12, 4, 4, 2, 0, 1, 0, 7, 0), legacy_map(2, 4, 8, 1, 0, 7, 2, 0, 0)
    symbols = [Sym("outer", "maps", 0, 36, OBJECT), Sym("inner", "maps", 36, 36, OBJECT)]
    maps = read_object(write_elf([Part("maps", outer + inner)], symbols), "old.o").maps
    assert maps["outer"].inner == maps["inner"]
    assert maps["inner"].is_pinned


@pytest.mark.parametrize(
    ("content", "symbols", "said"),
    [
        (legacy_map(1, 4, 8, 16, 0, 5), [Sym("m", "maps", type=OBJECT)], "unknown-map-options"),
        (legacy_map(1, 4, 8, 16), [Sym("m", "maps", type=OBJECT, binding=LOCAL)], "static-map"),
        (legacy_map(99, 4, 8, 16), [Sym("m", "maps", type=OBJECT)], "bad-map"),
        (legacy_map(0, 4, 8, 16), [Sym("m", "maps", type=OBJECT)], "bad-map"),
        (legacy_map(1, 4, 8), [Sym("m", "maps", type=OBJECT)], "bad-map"),
        (legacy_map(1, 4, 8, 16) * 2, [Sym("m", "maps"), Sym("n", "maps", 8)], "bad-map"),
        (legacy_map(1, 4, 8, 16) * 2, [Sym("m", "maps"), Sym("m", "maps", 16)], "duplicate-map"),
        (legacy_map(1, 4, 8, 16), [], "bad-map"),
    ],
)
def test_map_definitions_that_make_no_sense_are_refused(
    content: bytes, symbols: list[Sym], said: str
) -> None:
    assert code_of(write_elf([Part("maps", content)], symbols)) == said


def test_declared_maps_without_types_are_refused() -> None:
    assert (
        code_of(write_elf([Part(".maps", bytes(32))], [Sym("m", ".maps", 0, 32, OBJECT)]))
        == "map-without-type"
    )


def test_types_that_are_not_needed_only_warn_when_malformed() -> None:
    data = write_elf([code("xdp", RETURN), Part(".BTF", b"nonsense" * 4)], [Sym("main", "xdp", 0, 16)])
    found = read_object(data, "odd.o")
    assert found.btf is None
    assert [warning.code for warning in found.warnings] == ["bad-btf"]
