"""Reads test files of the public bpf_conformance suite, whose assembly it puts into ours row by row.

The suite is not part of this repository: BPFC_CONFORMANCE_SUITE names the `tests` folder of a checkout.

    -- asm                          mov32 %r0, 5             w0 = 5
    -- mem      00 11 22            lock fetch add [%r1-8], %r2     r2 = atomic_fetch_add((u64 *)(r1 - 8), r2)
    -- result   0x2a                jne %r0, 1, fail         if r0 != 1 goto fail
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ir.asm import assemble
from ir.encoding import encode
from ir.isa import ROW_BY_NAME, Insn

SIZES: Final = {"b": 8, "h": 16, "w": 32, "dw": 64}
MNEMONICS: Final = {"exit": "exit", "ja": "ja", "ja32": "gotol", "lddw": "lddw plain"}
MEMORY: Final = re.compile(r"\[%r(?P<register>\d+)\s*(?P<mem>[+-]\s*\w+)?\]")


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the suite: a program on raw memory and the r0 it must return."""

    insns: tuple[Insn, ...]
    memory: bytes
    result: int


def read_case(path: Path) -> Case:
    """The test in a `.data` file."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text().splitlines():
        code = line.partition("#")[0].strip()
        if code.startswith("--"):
            current = sections.setdefault(code.removeprefix("--").strip(), [])
        elif code:
            current.append(code)
    memory = bytes(int(byte, 16) for byte in " ".join(sections.get("mem", [])).split())
    return Case(assemble(translate(sections["asm"])), memory, int(sections["result"][-1], 0))


def wrap_in_elf(insns: tuple[Insn, ...]) -> bytes:
    """A relocatable BPF object of a section .text with a function `main`, as the suite writes it."""
    code = encode(insns)
    names, strings = b"\0.text\0.symtab\0.strtab\0", b"\0main\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0, len(code))  # global function in section 1
    bodies = (code, symbols, strings, names)
    offsets = [64 + sum(map(len, bodies[:number])) for number in range(len(bodies) + 1)]
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<2HI3QI6H", 1, 247, 1, 0, 0, offsets[4], 0, 64, 0, 0, 64, 5, 4)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = (
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 6, 0, offsets[0], len(code), 0, 0, 8, 0),
        (7, 2, 0, 0, offsets[1], len(symbols), 3, 1, 8, 24),
        (15, 3, 0, 0, offsets[2], len(strings), 0, 0, 1, 0),
        (15, 3, 0, 0, offsets[3], len(names), 0, 0, 1, 0),
    )
    return header + b"".join(bodies) + b"".join(struct.pack("<2I4Q2I2Q", *section) for section in sections)


def translate(lines: list[str]) -> str:
    """The suite's assembly in our syntax. A label `exit` that is not defined stands for the first exit."""
    text: list[str] = []
    has_exit_label = "exit:" in lines
    for line in lines:
        if line.endswith(":"):
            text.append(line)
            continue
        if line == "exit" and not has_exit_label:
            text.append("exit:")
            has_exit_label = True
        mnemonic, _, rest = line.partition(" ")
        text.append(statement(mnemonic, [operand.strip() for operand in rest.split(",") if operand.strip()]))
    return "\n".join(text)


def statement(mnemonic: str, operands: list[str]) -> str:
    """One instruction: the template of its row, filled in."""
    if mnemonic == "lock":
        return atomic(operands)
    if mnemonic == "call":
        return call(operands[0].split())
    if mnemonic in MNEMONICS:
        jump = dict.fromkeys(("jump", "far_jump"), operands[0]) if operands else {}
        immediate = {"dst": register(operands[0]), "imm64": operands[1]} if len(operands) == 2 else {}
        return fill(MNEMONICS[mnemonic], **jump, **immediate)
    if access := re.fullmatch(r"(ldxs?|stx?)(b|h|w|dw)", mnemonic):
        return memory_access(access[1], SIZES[access[2]], operands)
    if extension := re.fullmatch(r"movsx(8|16|32)(32|64)", mnemonic):
        row = f"movsx{extension[1]}to{extension[2]}"
        return fill(row, dst=register(operands[0]), src=register(operands[1]))
    if swap := re.fullmatch(r"(le|be|b?swap)(16|32|64)", mnemonic):
        return fill(
            f"{swap[1].replace('bswap', 'swap').replace('swap', 'bswap')}{swap[2]}", dst=register(operands[0])
        )
    name = mnemonic if mnemonic.endswith(("32", "64")) else f"{mnemonic}64"
    if len(operands) == 1:
        return fill(name, dst=register(operands[0]))
    form = "reg" if operands[1].startswith("%") else "imm"
    second = {"src": register(operands[1])} if form == "reg" else {"imm": operands[1]}
    jump = {"jump": operands[2]} if len(operands) == 3 else {}
    return fill(f"{name} {form}", dst=register(operands[0]), **second, **jump)


def memory_access(mnemonic: str, bits: int, operands: list[str]) -> str:
    """A load or a store."""
    place = MEMORY.fullmatch(operands[1 if mnemonic.startswith("ldx") else 0])
    assert place is not None, operands
    mem = place["mem"] or "+ 0"
    if mnemonic.startswith("ldx"):
        return fill(f"{mnemonic}{bits}", dst=register(operands[0]), src=place["register"], mem=mem)
    value = {"imm": operands[1]} if mnemonic == "st" else {"src": register(operands[1])}
    return fill(f"{mnemonic}{bits}", dst=place["register"], mem=mem, **value)


def atomic(operands: list[str]) -> str:
    """What follows `lock`: an operation, perhaps after `fetch`, and its place; then a register."""
    *words, place = operands[0].split()
    name = re.sub(r"(32)?$", lambda match: match[0] or "64", words[-1], count=1)
    if not name.startswith(("xchg", "cmpxchg")):
        name = f"{'fetch' if words[0] == 'fetch' else 'lock'}_{name}"
    at = MEMORY.fullmatch(place)
    assert at is not None, operands
    return fill(name, dst=at["register"], mem=at["mem"] or "+ 0", src=register(operands[1]))


def call(words: list[str]) -> str:
    """A call: of a helper unless a mode is named, through a register, or of a label."""
    target = words[-1]
    if words[0] == "local":
        return fill("call subprogram", pc_jump=target)
    return (
        fill("callx", dst=register(target)) if target.startswith("%") else fill("call helper", helper=target)
    )


def fill(row: str, **fields: str) -> str:
    """The text of a row with these fields."""
    return ROW_BY_NAME[row].text.format(**fields)


def register(operand: str) -> str:
    """The number of `%r5`."""
    return operand.removeprefix("%r")
