"""Objects written anew: what was rewritten is, what was not is as it was, and everything about code follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import bpfc
from bpfc.bpf_output import emit_bpf, shrink_programs
from bpfc.elf.file import read_elf
from bpfc.pcap import read_pcap
from bpfc.testing.elf_writer import Part, Reloc, Sym, code, write_elf
from ir.diagnostics import DiagnosticError, RejectedError, UnsupportedError
from ir.encoding import encode
from ir.isa import Callee, Insn, Kind

OBJECTS = Path(__file__).parents[3] / "objects"
DEEP = "extending"  # has a program with 9 frames, which is refused as a whole


def is_for_linux(path: Path) -> bool:
    """Whether Linux has everything that the object's programs do."""
    rows = (row for program in bpfc.load(path).programs.values() for row in program.rows)
    return not any(row.kind is Kind.STATIC_BRANCH or row.callee is Callee.INDIRECT for row in rows)


OWN = sorted(
    path.name for path in OBJECTS.glob("*.o") if not path.name.startswith(DEEP) and is_for_linux(path)
)
EXIT = Insn(0x95)


def again(name: str) -> tuple[bpfc.Loaded, bpfc.Loaded]:
    before = bpfc.load(OBJECTS / name)
    return before, bpfc.load(before.emit_bpf(), name)


@pytest.mark.parametrize("name", OWN)
def test_an_object_reads_back_as_what_was_written(name: str) -> None:
    before, after = again(name)
    assert list(after.programs) == list(before.programs)
    assert after.maps == before.maps
    assert after.object.license == before.object.license
    assert (after.object.btf is None) == (before.object.btf is None)
    shrunken = shrink_programs(before, before.programs, bpfc.Options())
    for key in before.programs:
        wanted = shrunken[key].program
        found = after.programs[key]
        assert found.insns == wanted.insns
        assert found.references == wanted.references
        assert dict(found.lines) == dict(wanted.lines)
        assert [(f.name, f.start, f.slots, f.is_global, f.btf_id) for f in found.functions] == [
            (f.name, f.start, f.slots, f.is_global, f.btf_id) for f in wanted.functions
        ]
        assert all(function.start in found.lines for function in found.functions if function.btf_id)


@pytest.mark.parametrize("name", OWN)
def test_writing_twice_changes_nothing_more(name: str) -> None:
    once = bpfc.load(OBJECTS / name).emit_bpf()
    assert bpfc.load(once, name).emit_bpf() == once


def test_what_was_written_runs_as_what_was_read() -> None:
    before, after = again("xdp_stats.o")
    packets = [packet.data for packet in read_pcap(OBJECTS / "sample.pcap")]
    with before.start() as one, after.start() as other:
        assert list(one["xdp_stats"].run_batch(packets)) == list(other["xdp_stats"].run_batch(packets))
        assert dict(one.globals.items()) == dict(other.globals.items())
        assert dict(one.maps["sources"].items()) == dict(other.maps["sources"].items())
    sizes = [loaded.programs["xdp_stats"].starts[-1] for loaded in (before, after)]
    assert sizes[1] < sizes[0]


def test_constants_specialize_the_object() -> None:
    loaded = bpfc.load(OBJECTS / "xdp_stats.o")
    quiet = bpfc.load(loaded.emit_bpf(), "quiet.o")
    loaded.rodata["debug"] = 1
    loud = bpfc.load(loaded.emit_bpf(), "loud.o")
    assert loud.rodata["debug"] == 1
    assert loud.programs["xdp_stats"].starts[-1] > quiet.programs["xdp_stats"].starts[-1]
    kept = bpfc.load(loaded.emit_bpf(options=bpfc.Options(fold=False)), "kept.o")
    assert kept.programs["xdp_stats"].starts[-1] > loud.programs["xdp_stats"].starts[-1]


def test_only_the_programs_asked_for_are_written() -> None:
    loaded = bpfc.load(OBJECTS / "hooked.o")
    only = bpfc.load(loaded.emit_bpf(["calls_g"]), "hooked.o")
    assert list(only.programs) == ["calls_g"]
    assert [info.name for info in only.programs["calls_g"].functions] == ["calls_g", "g"]
    names = {symbol.name for symbol in read_elf(only.source, "hooked.o").symbols if symbol.is_function}
    assert names == {"calls_g", "g"}


def test_unused_functions_go() -> None:
    """`eliminated` is called behind `if (dead)` only."""
    _, after = again("hooked.o")
    assert [info.name for info in after.programs["calls_siblings"].functions] == ["calls_siblings", "sibling"]


def test_without_optimization_nothing_changes() -> None:
    loaded = bpfc.load(OBJECTS / "globals.o")
    same = bpfc.load(loaded.emit_bpf(options=bpfc.Options(level="O0")), "globals.o")
    for name, program in loaded.programs.items():
        assert same.programs[name].insns == program.insns


CALL = Insn(0x85, src=1, imm=-1)
DEAD = Insn(0xB7, 3, imm=1)
ONE = Insn(0xB7, 0, imm=1)


@pytest.mark.parametrize("addend", [None, 8])
def test_calls_find_functions_by_symbol_by_section_and_by_distance(addend: int | None) -> None:
    """.text: two functions behind dead code; the second calls the first by distance, main calls it by its section."""
    text = encode([DEAD, ONE, EXIT, DEAD, CALL._replace(imm=-5), DEAD, EXIT])
    section = Reloc(0, 10, ".text", None if addend is None else 24)
    main = encode([CALL._replace(imm=2 if addend is None else -1), EXIT])
    data = write_elf(
        [code(".text", text), code("xdp", main, section)],
        [
            Sym("first", ".text", 0, 24, binding=0),
            Sym("second", ".text", 24, 32, binding=0),
            Sym(".text", ".text", type=3, binding=0),
            Sym("main", "xdp", 0, 16),
        ],
    )
    loaded = bpfc.load(data, "calls.o")
    after = bpfc.load(loaded.emit_bpf(), "calls.o")
    assert [(info.name, info.slots) for info in after.programs["main"].functions] == [
        ("main", 2),
        ("second", 2),
        ("first", 2),
    ]
    with after.start() as runtime:
        assert runtime["main"].run(b"").ret == 1


def test_pointers_to_functions_in_data_are_refused_where_they_cannot_be_followed() -> None:
    table = Part(".data", bytes([8, *bytes(7)]), 3, relocations=[Reloc(0, 2, ".text")])
    data = write_elf(
        [code(".text", encode([ONE, EXIT])), code("xdp", encode([CALL, EXIT]), Reloc(0, 10, "f")), table],
        [Sym("f", ".text", 0, 16), Sym(".text", ".text", type=3, binding=0), Sym("main", "xdp", 0, 16)],
    )
    loaded = bpfc.load(data, "pointers.o")
    with pytest.raises(UnsupportedError) as caught:
        loaded.emit_bpf()
    assert "a word points into code" in str(caught.value)


def test_what_linux_does_not_have_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        bpfc.load(OBJECTS / "static_keys.o").emit_bpf()
    assert caught.value.diagnostics[0].code == "cannot-emit"
    assert "Linux has no static branches" in str(caught.value)
    with pytest.raises(UnsupportedError) as caught:
        bpfc.assemble("r0 = 0\nexit").emit_bpf()
    assert "only what was read from an ELF object" in str(caught.value)


def test_the_byte_order_is_the_objects() -> None:
    with pytest.raises(UnsupportedError) as caught:
        emit_bpf(bpfc.load(OBJECTS / "xdp_stats.o"), "bpfeb")
    assert caught.value.diagnostics[0].code == "foreign-byte-order"


def test_an_object_without_programs_is_refused() -> None:
    data = write_elf([Part("license", b"GPL\0")])
    with pytest.raises(RejectedError):
        bpfc.load(data, "empty.o").emit_bpf()


def test_debian_objects_are_written_or_refused_with_a_reason(debian_objects: Path) -> None:
    written, refused = 0, set()
    for path in sorted(debian_objects.rglob("*.o"))[::5]:
        try:
            loaded = bpfc.load(path)
        except DiagnosticError:
            continue
        try:
            data = loaded.emit_bpf()
        except DiagnosticError as error:
            refused.add(error.diagnostics[0].code)
            continue
        written += list(bpfc.load(data, loaded.object.name).programs) == list(loaded.programs)
    assert written > 20
    assert refused <= {"cannot-emit", "no-program"}


@pytest.mark.parametrize("info", [3, 99], ids=["itself", "nothing"])
def test_relocations_of_no_section_are_left_out(info: int) -> None:
    data = bytearray(
        write_elf(
            [code("xdp", encode([ONE, EXIT])), Part("x", bytes(8), 3, relocations=[Reloc(0, 2, "main")])],
            [Sym("main", "xdp", 0, 16)],
        )
    )
    headers = int.from_bytes(data[40:48], "little")
    place = headers + 3 * 64 + 44  # sh_info of section 3, the table
    data[place : place + 4] = info.to_bytes(4, "little")
    written = bpfc.load(bytes(data), "x.o").emit_bpf()
    assert [section.name for section in read_elf(written, "x.o").sections[1:3]] == ["xdp", "x"]
