"""The other encoding of static branches: a marker loaded into r11, which is then compared with itself.

    r11 = 0x5174 ll                      goto +0
    if r11 == r11 goto +3        ->      goto +0
                                         goto_or_nop +3          (!= gives nop_or_goto)

It was proposed in place of the flagged jump and never merged: newer verifiers decide such compares, and use r11
for other things. So nothing is rewritten unless asked for, and with no register but r11; every other `rX op rX`
is an ordinary compare. The two nops keep all distances, and become no native instruction.
"""

from __future__ import annotations

import struct
from typing import Final

from ir.encoding import encode
from ir.isa import ROW_BY_NAME, WIDE_OPCODE, Insn

_MARKER: Final = 11
_FORMS: Final = {
    ROW_BY_NAME["jeq64 reg"].opcode: ROW_BY_NAME["goto_or_nop"],
    ROW_BY_NAME["jne64 reg"].opcode: ROW_BY_NAME["nop_or_goto"],
}
_NOP: Final = Insn(ROW_BY_NAME["ja"].opcode)


def lower_self_compares(code: bytes, big_endian: bool = False) -> bytes:
    """Bytecode with every marked compare of r11 with itself made a static branch; of the same length."""
    out = bytearray(code)
    both = _MARKER << 4 | _MARKER
    marker = _MARKER << 4 if big_endian else _MARKER
    slot = struct.Struct(">BBhi" if big_endian else "<BBhi")
    at = 0
    while at + 24 <= len(code):
        opcode, registers, _, _ = slot.unpack_from(code, at)
        if opcode != WIDE_OPCODE:
            at += 8
            continue
        compare, compared, offset, imm = slot.unpack_from(code, at + 16)
        row = _FORMS.get(compare)
        if registers == marker and row is not None and compared == both and not imm:
            assert isinstance(row.src, int), "static branches are told apart by this field"
            branch = Insn(row.opcode, src=row.src, offset=offset)
            out[at : at + 24] = encode((_NOP, _NOP, branch), big_endian)
        at += 16
    return bytes(out)
