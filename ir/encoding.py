"""Instructions as bytes: decoding by the legal fields of the rows, encoding, and what is wrong with an instruction."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from errno import EINVAL

from ir.algebra import signed
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError
from ir.isa import ROWS_BY_OPCODE, WIDE_OPCODE, Insn, find_row


def check(insn: Insn, at: Location) -> Diagnostic | None:
    """Why `insn` is not a legal instruction, or None when it is."""
    rows = ROWS_BY_OPCODE.get(insn.opcode, ())
    if not rows:
        return Diagnostic(
            "unknown-opcode", f"opcode {insn.opcode:#04x} is not an instruction", at, errno=EINVAL
        )
    nearest = min(rows, key=lambda row: len(row.misfits(insn)))
    misfits = nearest.misfits(insn)
    if not misfits:
        return None
    said = ", ".join(f"{name} = {getattr(insn, name)}" for name in misfits)
    return Diagnostic("reserved-field", f"'{nearest.name}' does not allow {said}", at, errno=EINVAL)


def encode(insns: Iterable[Insn], big_endian: bool = False) -> bytes:
    """The bytes of `insns`; the inverse of `decode`."""
    pack = struct.Struct(">BBhi" if big_endian else "<BBhi").pack
    out = bytearray()
    for opcode, dst, src, offset, imm in insns:
        registers = dst << 4 | src if big_endian else src << 4 | dst
        if opcode == WIDE_OPCODE:
            out += pack(opcode, registers, offset, signed(32, imm)) + pack(0, 0, 0, signed(32, imm >> 32))
        else:
            out += pack(opcode, registers, offset, imm)
    return bytes(out)


def decode(code: bytes, big_endian: bool = False, at: Location | None = None) -> tuple[Insn, ...]:
    """The instructions of `code`, each one legal by its row.

    Raises UnreadableError when the bytes are not whole slots, RejectedError naming every illegal instruction.
    """
    at = at or Location()
    if len(code) % 8:
        said = f"program of {len(code)} bytes is not a whole number of 8-byte instructions"
        raise UnreadableError([Diagnostic("truncated-program", said, at, errno=EINVAL)])
    insns: list[Insn] = []
    problems: list[Diagnostic] = []
    slots = struct.Struct(">BBhi" if big_endian else "<BBhi").iter_unpack(code)
    slot = 0
    for opcode, registers, offset, imm in slots:
        start = slot
        slot += 1
        dst, src = (registers >> 4, registers & 15) if big_endian else (registers & 15, registers >> 4)
        if opcode == WIDE_OPCODE:
            second = next(slots, None)
            slot += 1
            if second is None or second[:3] != (0, 0, 0):
                problems.append(_bad_wide(second, replace(at, insn=start)))
                continue
            imm = imm & 0xFFFF_FFFF | (second[3] & 0xFFFF_FFFF) << 32
        insn = Insn(opcode, dst, src, offset, imm)
        insns.append(insn)
        if find_row(insn) is None:
            problem = check(insn, replace(at, insn=start))
            assert problem is not None
            problems.append(problem)
    if problems:
        raise RejectedError(problems)
    return tuple(insns)


def _bad_wide(second: tuple[int, ...] | None, at: Location) -> Diagnostic:
    if second is None:
        return Diagnostic("bad-wide-load", "64-bit immediate load has no second half", at, errno=EINVAL)
    said = "second half of a 64-bit immediate load has an opcode, registers or an offset"
    return Diagnostic("bad-wide-load", said, at, errno=EINVAL)
