"""Assembly text: spellings accepted, listings, and what is said about text that is not assembly."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ir.asm import assemble, disassemble_program, format_insn, jump_labels, read_assembly
from ir.diagnostics import RejectedError, SourceLine
from ir.encoding import decode, encode
from ir.isa import ROWS, Insn, Kind
from ir.kinds import ProgramType
from ir.object import FunctionInfo, Program, Reference, ReferenceKind

SPELLINGS = [
    # ours and LLVM's, the kernel's log's, the instruction
    ("r1 = *(u32 *)(r2 + 4)", "(61) r1 = *(u32 *)(r2 +4)", Insn(0x61, 1, 2, 4)),
    ("r1 = *(u32 *)(r2 + 4)", "w1 = *(u32 *)(r2 + 4)", Insn(0x61, 1, 2, 4)),
    ("r1 = *(s8 *)(r2 - 4)", "r1=*(s8*)(r2-4)", Insn(0x91, 1, 2, -4)),
    ("*(u8 *)(r10 - 1) = r3", "*(u8 *)(r10 -1) = w3", Insn(0x73, 10, 3, -1)),
    ("*(u64 *)(r1 + 0) = -7", "*(u64 *)(r1) = 0xfffffff9", Insn(0x7A, 1, 0, 0, -7)),
    ("r1 = 5", "(b7) r1 = 0x5", Insn(0xB7, 1, 0, 0, 5)),
    ("r1 = -1", "r1 = 0xffffffff", Insn(0xB7, 1, 0, 0, -1)),
    ("r1 = 0x1122334455667788 ll", "r1 = 0x1122334455667788", Insn(0x18, 1, 0, 0, 0x1122334455667788)),
    ("r1 = 0xffffffff ll", "(18) r1 = 0xffffffff", Insn(0x18, 1, 0, 0, 0xFFFFFFFF)),
    ("r1 = 0xfffffffffffffffe ll", "r1 = -2 ll", Insn(0x18, 1, 0, 0, 2**64 - 2)),
    ("if r1 == 5 goto +3", "(15) if r1 == 0x5 goto pc+3", Insn(0x15, 1, 0, 3, 5)),
    ("if w1 s> w2 goto -1", "if w1 s> w2 goto pc-1", Insn(0x6E, 1, 2, -1)),
    ("if r1 & 8 goto +0", "if r1&8 goto pc+0", Insn(0x45, 1, 0, 0, 8)),
    ("gotol +70000", "gotol pc+70000", Insn(0x06, 0, 0, 0, 70000)),
    ("call 12", "(85) call 0xc", Insn(0x85, 0, 0, 0, 12)),
    ("call -1", "call -0x1", Insn(0x85, 0, 0, 0, -1)),
    ("call pc-3", "(85) call pc-3", Insn(0x85, 0, 1, 0, -3)),
    ("lock *(u32 *)(r1 + 8) += w2", "lock *(u32 *)(r1 +8) += r2", Insn(0xC3, 1, 2, 8, 0)),
    ("r2 = atomic_fetch_add((u64 *)(r1 + 8), r2)", "r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)",
     Insn(0xDB, 1, 2, 8, 1)),
    ("w2 = atomic_fetch_or((u32 *)(r1 + 8), w2)", "r2 = atomic_fetch_or((u32 *)(r1 +8), r2)",
     Insn(0xC3, 1, 2, 8, 0x41)),
    ("r2 = xchg_64(r1 + 8, r2)", "r2 = atomic64_xchg((u64 *)(r1 +8), r2)", Insn(0xDB, 1, 2, 8, 0xE1)),
    ("w0 = cmpxchg32_32(r1 + 8, w0, w2)", "r0 = atomic_cmpxchg((u32 *)(r1 +8), r0, r2)",
     Insn(0xC3, 1, 2, 8, 0xF1)),
    ("r0 = *(u16 *)skb[r3 + 0]", "r0 = *(u16 *)skb[r3]", Insn(0x48, 0, 3)),
    ("r0 = *(u16 *)skb[r3 + 12]", "(48) r0 = *(u16 *)skb[r3 + 12]", Insn(0x48, 0, 3, 0, 12)),
    ("r1 = addr_space_cast(r2, 1, 0)", "r1 = addr_space_cast(r2, 0x1, 0x0)", Insn(0xBF, 1, 2, 1, 0x10000)),
    ("r4 = func(pc+9)", "r4 = func( pc + 9 )", Insn(0x18, 4, 4, 0, 9)),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "other", "insn"), SPELLINGS)
def test_both_spellings_are_read_and_one_is_written(ours: str, other: str, insn: Insn) -> None:
    assert format_insn(insn) == ours
    assert assemble(ours) == (insn,)
    assert assemble(other) == (insn,)


def test_labels_and_comments_of_every_sort_are_understood() -> None:
    text = """
        r1 = 3          ; a comment
    loop: r1 += -1      # and another
        if r1 != 0 goto loop // and a third
        r2 = 0x1 ll
        goto exit       <.text+0x30>
    exit:
        exit
    """
    assert assemble(text) == (
        Insn(0xB7, 1, 0, 0, 3),
        Insn(0x07, 1, 0, 0, -1),
        Insn(0x55, 1, 0, -2, 0),
        Insn(0x18, 2, 0, 0, 1),
        Insn(0x05, 0, 0, 0),
        Insn(0x95),
    )


def test_a_name_that_is_called_is_a_label_first_and_a_helper_otherwise() -> None:
    helpers = {"map_lookup": 1, "double": 2}
    program = assemble("call double\ncall map_lookup\nr1 = func(double)\nexit\ndouble: exit", helpers)
    assert program[:3] == (Insn(0x85, 0, 1, 0, 4), Insn(0x85, 0, 0, 0, 1), Insn(0x18, 1, 4, 0, 2))


def test_labels_and_lines_are_told() -> None:
    assembly = read_assembly("r1 = 1 ll\nend:\n  exit", file="a.s")
    assert assembly.labels == {"end": 2}
    assert assembly.lines == {
        0: SourceLine("a.s", 1, 1, "r1 = 1 ll"),
        2: SourceLine("a.s", 3, 3, "  exit"),
    }


MISTAKES = [
    ("r1 = 0x1ffffffff + 1", 1, "unknown-instruction", "'r1 = 0x1ffffffff + 1' is not an instruction"),
    ("  r1 += 4294967296", 9, "operand-range",
     "4294967296 does not fit in 'add64 imm', which takes -2147483648 to 4294967295"),
    ("r1 = *(u8 *)(r2 + 32768)", 17, "operand-range",
     "32768 does not fit in 'ldx8', which takes -32768 to 32767"),
    ("if r1 == 1 goto there", 17, "unknown-label", "no label is named 'there'"),
    ("call there", 6, "unknown-label", "no label or helper is named 'there'"),
    ("r11 = 1", 1, "bad-operand", "'mov64 imm' does not allow dst = 11"),
    ("r1 = -r2", 7, "bad-operand", "'neg64' wants the same register twice, found 2"),
    ("r1 = *(u8 *)skb[4]", 1, "bad-operand", "'ldabs8' wants register 0 here, found 1"),
    ("r1 = addr_space_cast(r2, 1, 1)", 1, "bad-operand", "'addr_space_cast' does not allow imm = 65537"),
    ("(61) r1 = 5", 6, "unknown-instruction", "'r1 = 5' is not an instruction with opcode 61"),
    ("r1 = " + "9" * 5000, 1, "unknown-instruction", f"'r1 = {'9' * 5000}' is not an instruction"),
    ("x: x: exit", 4, "duplicate-label", "label 'x' is defined twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "column", "code", "message"), MISTAKES, ids=[row[0][:30] for row in MISTAKES]
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, code: str, message: str) -> None:
    with pytest.raises(RejectedError) as caught:
        assemble(text)
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.message) == (code, message)
    assert problem.at.source == SourceLine("asm", 1, column, text)


def test_every_mistake_of_a_text_is_reported_in_order() -> None:
    with pytest.raises(RejectedError) as caught:
        assemble("goto a\nfoo\nexit\nr1 = r99")
    assert [problem.at.source.line for problem in caught.value.diagnostics if problem.at.source] == [1, 2, 4]


def test_a_program_is_listed_with_functions_references_and_lines() -> None:
    text = "r1 = map_fd(0)\ncall 1\ncall f\nexit\nf:\nr0 = 2\nexit"
    program = Program(
        "main",
        "xdp",
        ProgramType.XDP,
        assemble(text),
        (FunctionInfo("main", 0, 5, True), FunctionInfo("f", 5, 2, False)),
        references={0: Reference(ReferenceKind.MAP, "counters")},
        lines={0: SourceLine("a.c", 7, 1, "  lookup(&counters);"), 5: SourceLine("a.c", 3, 1, "return 2;")},
    )
    listing = disassemble_program(program, {1: "bpf_map_lookup_elem"})
    assert listing.splitlines() == [
        "main:",
        "; lookup(&counters); @ a.c:7",
        "   0: r1 = map_fd(0)  ; map counters",
        "   2: call bpf_map_lookup_elem",
        "   3: call f",
        "   4: exit",
        "f:",
        "; return 2; @ a.c:3",
        "   5: r0 = 2",
        "   6: exit",
    ]
    assert assemble(listing, {"bpf_map_lookup_elem": 1}) == program.insns


def test_labels_stand_only_where_instructions_start() -> None:
    assert jump_labels(assemble("goto +1\nr1 = 1 ll\ngoto -1\ngoto +9\ngoto -6")) == {0: "L0", 3: "L3"}


LLVM_MC = shutil.which("llvm-mc-22")


def samples_for_llvm() -> list[Insn]:
    """An insn of each row that LLVM has a text for."""
    unknown = {
        row.name for row in ROWS if row.kind is Kind.STATIC_BRANCH or (row.kind is Kind.WIDE and row.src)
    }
    unknown |= {"call subprogram", "call kfunc"}
    samples = []
    for row in ROWS:
        imm = 1 if isinstance(row.imm, frozenset) else row.imm if isinstance(row.imm, int) else 7
        offset = row.offset if isinstance(row.offset, int) else 3
        src = row.src if isinstance(row.src, int) else 2
        if row.name not in unknown:
            imm = 0 if row.name.startswith("ldind") else imm
            samples.append(Insn(row.opcode, 0 if row.dst == 0 else 1, src, offset, imm))
    return samples


@pytest.mark.skipif(LLVM_MC is None, reason="needs llvm-mc 22")
def test_llvm_disassembles_our_bytes_to_text_that_we_read() -> None:
    assert LLVM_MC is not None
    samples = samples_for_llvm()
    code = "\n".join(" ".join(f"{byte:#04x}" for byte in encode([insn])) for insn in samples)
    command = [LLVM_MC, "--disassemble", "-triple=bpfel", "--mcpu=v4"]
    text = subprocess.run(command, input=code, text=True, capture_output=True, check=True).stdout
    assert list(assemble(text)) == samples


@pytest.mark.skipif(LLVM_MC is None, reason="needs llvm-mc 22")
def test_llvm_assembles_our_text_to_our_bytes() -> None:
    assert LLVM_MC is not None
    samples = samples_for_llvm()
    text = "\n".join(map(format_insn, samples)).replace(" + 0]", "]")
    command = [LLVM_MC, "-triple=bpfel", "--mcpu=v4", "--show-encoding"]
    shown = subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout
    code = bytes(int(byte, 16) for byte in re.findall(r"0x[0-9a-f]{2}(?=[,\]])", shown))
    assert list(decode(code)) == samples
