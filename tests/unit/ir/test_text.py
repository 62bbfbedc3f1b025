"""The text form: what it shows of slots and C lines, and what is said about text that is not IR."""

from __future__ import annotations

import pytest

from ir.asm import assemble
from ir.diagnostics import SourceLine, UnreadableError
from ir.functions import discover_functions
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import Program, Reference, ReferenceKind
from ir.parse import parse_function, parse_module
from ir.text import format_function, format_module

EVERYTHING = """\
program "odd name" type socket_filter big-endian
map m array key 4 value 8 entries 3 flags 0x80 read-only 0011223344556677 relocated 0:8
function main (v0: r1) slots 0 40 global:
block 0 @0:
  v1 = frame  @0
  v2 = const 0x123456789abcdef0  @0
  v3 = address map m  @2
  v4 = address ksym "a symbol" + 8 weak btf 12  @4
  v5 = neg64 v2  @6
  v6 = bswap32 v5  @7
  v7 = add64 v6, -1  @8
  v8 = ldxs16 [v0 - 4]  @9
  stx32 [v1 - 8], v8  @10
  store_release64 [v1 - 16], v7  @11
  lock_or32 [v1 - 8], v7  @12
  v9 = fetch_add64 [v1 - 16], v7  @13
  v10 = cmpxchg64 [v1 - 16], v7 if v9  @14
  v11 = ldabs16 v0 [12]  @15
  v12 = ldind8 v0 [v11 + -1]  @16
  v13 = call helper map_lookup_elem (v3, v1)  @17
  v14 = call helper 9999  @18
  v15 = call subprogram f (v13)  @19
  v16 = call kfunc "bpf obj new"  @20
  v17 = call indirect v4 (v16)  @21
  goto_or_nop: block 1 else block 2 (v17)  @22
block 1 @23:
  may_goto: block 2 (7) else block 2 (v14)  @23
block 2 (v18: r3) @24:
  if jset32 v18, 255: block 3 else block 2 (v15)  @24
block 3 @25:
  return v10  @25
function f (v0: r1):
block 0:
  return v0"""


def test_every_kind_of_instruction_is_read_back() -> None:
    lines = [
        line.partition("  @")[0]
        for line in format_module(parse_module(EVERYTHING), True, maps=True).split("\n")
    ]
    wanted = [line.partition("  @")[0] for line in EVERYTHING.split("\n")]
    wanted[-3] = "function f (v0: r1) slots 0 0:"
    wanted[-2] = "block 0 @-1:"
    assert lines == wanted


def test_a_block_may_stand_above_what_dominates_it() -> None:
    text = """\
function f (v0: r1):
block 0:
  jump block 2
block 1:
  return v1
block 2:
  v1 = add64 v0, 1
  jump block 1"""
    assert format_function(parse_function(text)) == text


def test_c_lines_stand_above_their_first_instruction() -> None:
    insns = assemble("r0 = 1\nr0 += r1\nr0 += 2\nexit")
    lines = {0: SourceLine("a.c", 3, 5, "\treturn 1 +"), 2: SourceLine("a.c", 4, 7, "    + 2;")}
    program = Program("f", "", ProgramType.UNSPEC, insns, discover_functions(insns, "f"), lines=lines)
    assert format_function(lift(program, {}).main, lines=True).splitlines()[2:] == [
        "  ; a.c:3: return 1 +",
        "  v2 = frame",
        "  v3 = add64 1, v0",
        "  ; a.c:4: + 2;",
        "  v4 = add64 v3, 2",
        "  return v4",
    ]


def test_a_direct_map_value_shows_its_map_and_offset() -> None:
    insns = assemble("r1 = map_value(0, 4)\nr0 = *(u32 *)(r1 + 0)\nexit")
    references = {0: Reference(ReferenceKind.MAP_VALUE, ".rodata", 4)}
    program = Program(
        "f", "", ProgramType.UNSPEC, insns, discover_functions(insns, "f"), references=references
    )
    assert "v3 = address map-value .rodata + 4\n" in format_function(lift(program, {}).main)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  v1 = frob64 v0, v0", "no operation is named 'frob64'"),
        ("  v1 = add64 v0, v9", "v9 is not defined"),
        ("  v0 = add64 v0, v0", "'v0' is not a new value"),
        ("  v1 = ja v0", "'ja' does not stand for itself"),
        ("  stx64 [v0 8], v0", "found '8', wanted '+'"),
        ("  stx64 [v0 + 8] v0", "found 'v0', wanted ','"),
        ("  v1 = const 5 5", "'5' is left over"),
        ("  jump block 7", "block 7 is not there"),
        ("  ?", "'?' is not understood"),
        ("  if jeq64 v0, v0: block 0", "found '', wanted 'else'"),
        ("  if add64 v0, v0: block 0 else block 0", "'add64 reg' is not a condition"),
        ("  v1 = call nobody f", "'nobody' is none of helper, subprogram, kfunc, indirect"),
        ("  v1 = call helper frob", "'frob' is not a number"),
        ("  v1 = address nothing m", "no such kind of reference"),
        ('  v1 = address map "\\x"', "is not a quoted name"),
        ('  v1 = address map "\\ud800"', "is not a quoted name"),
        ("  v1 = const 007", "'007' is not a number"),
        (f"  v1 = const {10**30}", "is not a number"),
        ("function f:", "there is a function 'f' already"),
    ],
)
def test_what_is_not_ir_is_named_with_its_line(line: str, said: str) -> None:
    ends = "" if "block" in line else "  return v0\n"
    with pytest.raises(UnreadableError) as caught:
        parse_function(f"function f (v0: r1):\nblock 0:\n{line}\n{ends}", "case")
    diagnostic = caught.value.diagnostics[0]
    assert said in diagnostic.message
    assert diagnostic.code == "bad-ir"
    assert diagnostic.at.source is not None
    assert diagnostic.at.source.file == "case"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("block 0:", "there is no function yet"),
        ("program p type nothing", "'nothing' is none of unspec, "),
        ("map m nothing key 4 value 4 entries 1", "'nothing' is none of unspec, "),
        ("map m array key 4 value 4 entries 1 read-only 0x", "'0x' is not bytes in hexadecimal"),
        ("function f (v0: r11):", "'r11' is not a register"),
    ],
)
def test_so_is_what_is_no_header(line: str, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        parse_function(f"{line}\n")


def test_a_block_needs_a_terminator() -> None:
    with pytest.raises(UnreadableError, match="a block has no terminator"):
        parse_function("function f (v0: r1):\nblock 0:\n  v1 = const 5\n")
