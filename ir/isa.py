"""The BPF instruction set, one row per operation: encoding, legal fields, assembly text and meaning.

Nothing else in bpfc lists opcodes. Decoding, encoding, the assembler, the disassembler, the interpreter, the constant
folder, the verifier, lowering and the property tests are all driven by these rows. A new operation is one new row.

An instruction is one or two 8-byte slots (RFC 9669 section 3; big-endian objects swap the nibbles of byte 1):

    byte   0        1           2..3      4..7
         +--------+-----+-----+---------+-----------------------+
         | opcode | src | dst | offset  | imm                   |
         +--------+-----+-----+---------+-----------------------+
         | 0      | 0   | 0   | 0       | imm, upper half       |   second slot of a 64-bit immediate load only
         +--------+-----+-----+---------+-----------------------+

Jump distances count slots from the end of the jumping instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple, final

from ir.algebra import Algebra
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError

EINVAL = 22

Field = range | int | frozenset[int]
Meaning = Callable[[Algebra[Any], int, Any, Any], Any]

REG = range(11)
S16 = range(-0x8000, 0x8000)
S32 = range(-0x8000_0000, 0x8000_0000)
U32 = range(0x1_0000_0000)
U64 = range(0x1_0000_0000_0000_0000)

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = REG
FRAME_POINTER = R10
ARGUMENT_REGISTERS = (R1, R2, R3, R4, R5)
NOP_FIRST = 2  # bit of a static branch's source field: its first form is the nop


class Kind(Enum):
    """The shape of an operation: what its fields are for and what may follow it."""

    ALU = "alu"  # dst = meaning(dst, src or imm)
    WIDE = "wide"  # dst = 64-bit immediate, or the address that `src` names
    LOAD = "load"  # dst = memory[src + offset]
    STORE = "store"  # memory[dst + offset] = src or imm
    ATOMIC = "atomic"  # memory[dst + offset] = meaning(memory, src), atomically
    PACKET = "packet"  # r0 = packet[src + imm], big-endian; leaves the program when out of bounds
    JUMP = "jump"
    BRANCH = "branch"  # jump when meaning(dst, src or imm)
    STATIC_BRANCH = "static-branch"  # jump or nop, flipped from outside
    MAY_GOTO = "may-goto"  # jump once the loop budget is used up
    CALL = "call"
    EXIT = "exit"


class Wide(Enum):
    """What the 64-bit immediate of `Kind.WIDE` stands for; the value is the source-register field."""

    PLAIN = 0
    MAP_FD = 1
    MAP_VALUE = 2
    BTF_ID = 3
    FUNC = 4
    MAP_IDX = 5
    MAP_IDX_VALUE = 6


class Callee(Enum):
    """Whom `Kind.CALL` calls; the value is the source-register field (`INDIRECT` has an opcode of its own)."""

    HELPER = 0
    SUBPROGRAM = 1
    KFUNC = 2
    INDIRECT = -1


class Insn(NamedTuple):
    """One instruction. `imm` is signed, but for a wide load it is the unsigned 64-bit value of both halves."""

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0

    @property
    def slots(self) -> int:
        """How many 8-byte slots it takes: 2 for a 64-bit immediate load, else 1."""
        return 2 if self.opcode == WIDE_OPCODE else 1


WIDE_OPCODE = 0x18


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One operation.

    `dst`, `src`, `offset`, `imm` are the legal values of each field (an int: exactly that one). `text` is the assembly
    template (see `ir/asm.py`), `aliases` further spellings the assembler takes. `bits` is the width the meaning works
    at, `size` the bytes of memory touched, `signed` whether a load sign-extends. `version` is the cpu version (v1..v4)
    that has it, `group` the conformance group of RFC 9669 section 2.4.
    """

    name: str
    kind: Kind
    opcode: int
    text: str
    dst: Field = 0
    src: Field = 0
    offset: Field = 0
    imm: Field = 0
    bits: int = 64
    size: int = 0
    signed: bool = False
    meaning: Meaning | None = None
    fetches: bool = False
    callee: Callee | None = None
    version: int = 1
    group: str = "base64"
    aliases: tuple[str, ...] = ()

    @property
    def uses_src(self) -> bool:
        """Whether the source field names a register (and not a kind, a flag or nothing)."""
        return self.src is REG

    @property
    def reads_dst(self) -> bool:
        """Whether the result of this ALU row depends on what the destination held."""
        return not self.name.startswith(("mov", "addr_space_cast"))

    def accepts(self, insn: Insn) -> bool:
        """Whether every field of `insn` (whose opcode is this row's) is legal here."""
        return (
            _legal(self.src, insn.src)
            and _legal(self.offset, insn.offset)
            and _legal(self.imm, insn.imm)
            and _legal(self.dst, insn.dst)
        )

    def misfits(self, insn: Insn) -> list[str]:
        """The names of the fields of `insn` that are not legal here."""
        return [
            name
            for name in ("src", "offset", "imm", "dst")
            if not _legal(getattr(self, name), getattr(insn, name))
        ]


def _legal(field: Field, value: int) -> bool:
    return value == field if isinstance(field, int) else value in field


# Meanings. Division and shifts are made total here, before the operation (RFC 9669 sections 4.1 and 4.3).


def _add(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.add(bits, x, y)


def _sub(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.sub(bits, x, y)


def _mul(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.mul(bits, x, y)


def _or(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.or_(bits, x, y)


def _and(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.and_(bits, x, y)


def _xor(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.xor(bits, x, y)


def _mov(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return y


def _neg(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.sub(bits, a.const(bits, 0), x)


def _shift_count(a: Algebra[Any], bits: int, y: Any) -> Any:
    return a.and_(bits, y, a.const(bits, bits - 1))


def _lsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.shl(bits, x, _shift_count(a, bits, y))


def _rsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.lshr(bits, x, _shift_count(a, bits, y))


def _arsh(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.ashr(bits, x, _shift_count(a, bits, y))


def _div(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero = a.const(bits, 0)
    by_zero = a.eq(bits, y, zero)
    return a.select(bits, by_zero, zero, a.udiv(bits, x, a.select(bits, by_zero, a.const(bits, 1), y)))


def _mod(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    by_zero = a.eq(bits, y, a.const(bits, 0))
    return a.select(bits, by_zero, x, a.urem(bits, x, a.select(bits, by_zero, a.const(bits, 1), y)))


def _sdiv(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero, one = a.const(bits, 0), a.const(bits, 1)
    by_zero = a.eq(bits, y, zero)
    by_minus_one = a.eq(bits, y, a.const(bits, -1))
    quotient = a.sdiv(bits, x, a.select(bits, by_zero, one, a.select(bits, by_minus_one, one, y)))
    return a.select(bits, by_zero, zero, a.select(bits, by_minus_one, a.sub(bits, zero, x), quotient))


def _smod(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    zero, one = a.const(bits, 0), a.const(bits, 1)
    by_zero = a.eq(bits, y, zero)
    by_minus_one = a.eq(bits, y, a.const(bits, -1))
    remainder = a.srem(bits, x, a.select(bits, by_zero, one, a.select(bits, by_minus_one, one, y)))
    return a.select(bits, by_zero, x, remainder)


def _sign_extend(width: int) -> Meaning:
    def meaning(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
        return a.sext(width, a.trunc(bits, y, width), bits)

    return meaning


def _swap(width: int, big: bool | None) -> Meaning:
    """Reverse the low `width` bits' bytes and clear the rest: always (None), or to reach big- or little-endian order."""

    def meaning(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
        low = x if width == bits else a.trunc(bits, x, width)
        swapped = low if big is not None and big == a.big_endian else a.bswap(width, low)
        return swapped if width == bits else a.zext(width, swapped, bits)

    return meaning


def _negated(meaning: Meaning) -> Meaning:
    return lambda a, bits, x, y: a.not_(meaning(a, bits, x, y))


def _flipped(meaning: Meaning) -> Meaning:
    return lambda a, bits, x, y: meaning(a, bits, y, x)


def _eq(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.eq(bits, x, y)


def _ult(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.ult(bits, x, y)


def _slt(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.slt(bits, x, y)


def _set(a: Algebra[Any], bits: int, x: Any, y: Any) -> Any:
    return a.not_(a.eq(bits, a.and_(bits, x, y), a.const(bits, 0)))


_ne, _ugt, _sgt = _negated(_eq), _flipped(_ult), _flipped(_slt)
_uge, _sge, _ule, _sle = _negated(_ult), _negated(_slt), _negated(_ugt), _negated(_sgt)


def _alu_rows() -> Iterator[Row]:
    table: tuple[tuple[str, int, str, Meaning, int, int, str], ...] = (
        # name, code, sign in the text, meaning, offset field, cpu version, group
        ("add", 0x00, "+=", _add, 0, 1, "base"),
        ("sub", 0x10, "-=", _sub, 0, 1, "base"),
        ("mul", 0x20, "*=", _mul, 0, 1, "divmul"),
        ("div", 0x30, "/=", _div, 0, 1, "divmul"),
        ("sdiv", 0x30, "s/=", _sdiv, 1, 4, "divmul"),
        ("or", 0x40, "|=", _or, 0, 1, "base"),
        ("and", 0x50, "&=", _and, 0, 1, "base"),
        ("lsh", 0x60, "<<=", _lsh, 0, 1, "base"),
        ("rsh", 0x70, ">>=", _rsh, 0, 1, "base"),
        ("mod", 0x90, "%=", _mod, 0, 1, "divmul"),
        ("smod", 0x90, "s%=", _smod, 1, 4, "divmul"),
        ("xor", 0xA0, "^=", _xor, 0, 1, "base"),
        ("mov", 0xB0, "=", _mov, 0, 1, "base"),
        ("arsh", 0xC0, "s>>=", _arsh, 0, 1, "base"),
    )
    for bits, cls, reg in ((64, 0x07, "r"), (32, 0x04, "w")):
        for name, code, sign, meaning, offset, version, group in table:
            common = {"kind": Kind.ALU, "dst": REG, "offset": offset, "bits": bits, "meaning": meaning}
            tags = {"version": version, "group": f"{group}{bits}"}
            yield Row(
                f"{name}{bits} imm",
                opcode=code | cls,
                text=f"{reg}{{dst}} {sign} {{imm}}",
                imm=S32,
                **common,
                **tags,
            )  # type: ignore[arg-type]  # a dict of keyword arguments has one value type
            yield Row(
                f"{name}{bits} reg",
                opcode=code | cls | 8,
                text=f"{reg}{{dst}} {sign} {reg}{{src}}",
                src=REG,
                **common,
                **tags,  # type: ignore[arg-type]  # as above
            )
        yield Row(
            f"neg{bits}",
            Kind.ALU,
            0x80 | cls,
            f"{reg}{{dst}} = -{reg}{{dst}}",
            dst=REG,
            bits=bits,
            meaning=_neg,
            group=f"base{bits}",
        )
        for width in (8, 16, 32)[: 3 if bits == 64 else 2]:
            yield Row(
                f"movsx{width}to{bits}",
                Kind.ALU,
                0xB8 | cls,
                f"{reg}{{dst}} = (s{width}){reg}{{src}}",
                dst=REG,
                src=REG,
                offset=width,
                bits=bits,
                meaning=_sign_extend(width),
                version=4,
                group=f"base{bits}",
            )
    for width in (16, 32, 64):
        group = "base64" if width == 64 else "base32"
        for name, opcode, big, version in (
            ("le", 0xD4, False, 1),
            ("be", 0xDC, True, 1),
            ("bswap", 0xD7, None, 4),
        ):
            yield Row(
                f"{name}{width}",
                Kind.ALU,
                opcode,
                f"r{{dst}} = {name}{width} r{{dst}}",
                dst=REG,
                imm=width,
                meaning=_swap(width, big),
                version=version,
                group=group,
            )
    yield Row(
        "addr_space_cast",
        Kind.ALU,
        0xBF,
        "r{dst} = addr_space_cast(r{src}, {to_space}, {from_space})",
        dst=REG,
        src=REG,
        offset=1,
        imm=frozenset((1, 0x10000)),
        meaning=_mov,
        version=4,
    )


def _memory_rows() -> Iterator[Row]:
    for size, code in ((4, 0x00), (2, 0x08), (1, 0x10), (8, 0x18)):
        kind, group = f"u{size * 8}", "base64" if size == 8 else "base32"
        load = f"*({kind} *)(r{{src}} {{mem}})"
        store = f"*({kind} *)(r{{dst}} {{mem}})"
        low = size < 8
        yield Row(
            f"ldx{size * 8}",
            Kind.LOAD,
            0x61 | code,
            f"r{{dst}} = {load}",
            dst=REG,
            src=REG,
            offset=S16,
            size=size,
            group=group,
            aliases=(f"w{{dst}} = {load}",) if low else (),
        )
        if low:
            yield Row(
                f"ldxs{size * 8}",
                Kind.LOAD,
                0x81 | code,
                f"r{{dst}} = *(s{size * 8} *)(r{{src}} {{mem}})",
                dst=REG,
                src=REG,
                offset=S16,
                size=size,
                signed=True,
                version=4,
            )
            yield Row(
                f"ldabs{size * 8}",
                Kind.PACKET,
                0x20 | code,
                f"r0 = *({kind} *)skb[{{imm}}]",
                imm=S32,
                size=size,
                group="packet",
            )
            yield Row(
                f"ldind{size * 8}",
                Kind.PACKET,
                0x40 | code,
                f"r0 = *({kind} *)skb[r{{src}} {{imm_mem}}]",
                src=REG,
                imm=S32,
                size=size,
                group="packet",
            )
        yield Row(
            f"st{size * 8}",
            Kind.STORE,
            0x62 | code,
            f"{store} = {{imm}}",
            dst=REG,
            offset=S16,
            imm=S32,
            size=size,
            group=group,
        )
        yield Row(
            f"stx{size * 8}",
            Kind.STORE,
            0x63 | code,
            f"{store} = r{{src}}",
            dst=REG,
            src=REG,
            offset=S16,
            size=size,
            group=group,
            aliases=(f"{store} = w{{src}}",) if low else (),
        )
        yield Row(
            f"load_acquire{size * 8}",
            Kind.LOAD,
            0xC3 | code,
            f"r{{dst}} = load_acquire(({kind} *)(r{{src}} {{mem}}))",
            dst=REG,
            src=REG,
            offset=S16,
            imm=0x100,
            size=size,
            version=4,
            group="atomic64" if size == 8 else "atomic32",
            aliases=(f"w{{dst}} = load_acquire(({kind} *)(r{{src}} {{mem}}))",) if low else (),
        )
        yield Row(
            f"store_release{size * 8}",
            Kind.STORE,
            0xC3 | code,
            f"store_release(({kind} *)(r{{dst}} {{mem}}), r{{src}})",
            dst=REG,
            src=REG,
            offset=S16,
            imm=0x110,
            size=size,
            version=4,
            group="atomic64" if size == 8 else "atomic32",
            aliases=(f"store_release(({kind} *)(r{{dst}} {{mem}}), w{{src}})",) if low else (),
        )
    wide: tuple[tuple[Wide, str, Field], ...] = (
        (Wide.PLAIN, "r{dst} = {imm64} ll", U64),
        (Wide.MAP_FD, "r{dst} = map_fd({low})", U32),
        (Wide.MAP_VALUE, "r{dst} = map_value({low}, {high})", U64),
        (Wide.BTF_ID, "r{dst} = btf_id({low}, {high})", U64),
        (Wide.FUNC, "r{dst} = func({low_jump})", U32),
        (Wide.MAP_IDX, "r{dst} = map_idx({low})", U32),
        (Wide.MAP_IDX_VALUE, "r{dst} = map_idx_value({low}, {high})", U64),
    )
    for what, text, imm in wide:
        kernel = ("r{dst} = {imm64}",) if what is Wide.PLAIN else ()
        name = f"lddw {what.name.lower()}"
        yield Row(name, Kind.WIDE, WIDE_OPCODE, text, dst=REG, src=what.value, imm=imm, aliases=kernel)


def _atomic_rows() -> Iterator[Row]:
    table: tuple[tuple[str, int, str, Meaning], ...] = (
        ("add", 0x00, "+=", _add),
        ("or", 0x40, "|=", _or),
        ("and", 0x50, "&=", _and),
        ("xor", 0xA0, "^=", _xor),
    )
    for bits, opcode, reg, wide, kernel in ((32, 0xC3, "w", "32_32", "atomic"), (64, 0xDB, "r", "_64", "atomic64")):
        place = f"(u{bits} *)(r{{dst}} {{mem}})"
        size, group = bits // 8, f"atomic{bits}"
        for name, imm, sign, meaning in table:
            yield Row(
                f"lock_{name}{bits}",
                Kind.ATOMIC,
                opcode,
                f"lock *{place} {sign} {reg}{{src}}",
                dst=REG,
                src=REG,
                offset=S16,
                imm=imm,
                bits=bits,
                size=size,
                meaning=meaning,
                group=group,
                aliases=(f"lock *{place} {sign} r{{src}}",) if bits == 32 else (),
            )
            yield Row(
                f"fetch_{name}{bits}",
                Kind.ATOMIC,
                opcode,
                f"{reg}{{src}} = atomic_fetch_{name}({place}, {reg}{{src}})",
                dst=REG,
                src=REG,
                offset=S16,
                imm=imm | 1,
                bits=bits,
                size=size,
                meaning=meaning,
                fetches=True,
                version=3,
                group=group,
                aliases=(f"r{{src}} = {kernel}_fetch_{name}({place}, r{{src}})",),
            )
        yield Row(
            f"xchg{bits}",
            Kind.ATOMIC,
            opcode,
            f"{reg}{{src}} = xchg{wide}(r{{dst}} {{mem}}, {reg}{{src}})",
            dst=REG,
            src=REG,
            offset=S16,
            imm=0xE1,
            bits=bits,
            size=size,
            meaning=_mov,
            fetches=True,
            version=3,
            group=group,
            aliases=(f"r{{src}} = {kernel}_xchg({place}, r{{src}})",),
        )
        yield Row(
            f"cmpxchg{bits}",
            Kind.ATOMIC,
            opcode,
            f"{reg}0 = cmpxchg{wide}(r{{dst}} {{mem}}, {reg}0, {reg}{{src}})",
            dst=REG,
            src=REG,
            offset=S16,
            imm=0xF1,
            bits=bits,
            size=size,
            fetches=True,
            version=3,
            group=group,
            aliases=(f"r0 = {kernel}_cmpxchg({place}, r0, r{{src}})",),
        )


def _control_rows() -> Iterator[Row]:
    table: tuple[tuple[str, int, str, Meaning, int], ...] = (
        ("jeq", 0x10, "==", _eq, 1),
        ("jgt", 0x20, ">", _ugt, 1),
        ("jge", 0x30, ">=", _uge, 1),
        ("jset", 0x40, "&", _set, 1),
        ("jne", 0x50, "!=", _ne, 1),
        ("jsgt", 0x60, "s>", _sgt, 1),
        ("jsge", 0x70, "s>=", _sge, 1),
        ("jlt", 0xA0, "<", _ult, 2),
        ("jle", 0xB0, "<=", _ule, 2),
        ("jslt", 0xC0, "s<", _slt, 2),
        ("jsle", 0xD0, "s<=", _sle, 2),
    )
    for bits, cls, reg in ((64, 0x05, "r"), (32, 0x06, "w")):
        for name, code, sign, meaning, since in table:
            version = since if bits == 64 else 3
            yield Row(
                f"{name}{bits} imm",
                Kind.BRANCH,
                code | cls,
                f"if {reg}{{dst}} {sign} {{imm}} goto {{jump}}",
                dst=REG,
                offset=S16,
                imm=S32,
                bits=bits,
                meaning=meaning,
                version=version,
                group=f"base{bits}",
            )
            yield Row(
                f"{name}{bits} reg",
                Kind.BRANCH,
                code | cls | 8,
                f"if {reg}{{dst}} {sign} {reg}{{src}} goto {{jump}}",
                dst=REG,
                src=REG,
                offset=S16,
                bits=bits,
                meaning=meaning,
                version=version,
                group=f"base{bits}",
            )
    static = {"kind": Kind.STATIC_BRANCH, "version": 4, "group": "static"}
    yield Row("ja", Kind.JUMP, 0x05, "goto {jump}", offset=S16)
    yield Row("gotol", Kind.JUMP, 0x06, "gotol {far_jump}", imm=S32, version=4, group="base32")
    yield Row("goto_or_nop", opcode=0x05, text="goto_or_nop {jump}", src=1, offset=S16, **static)  # type: ignore[arg-type]  # a dict of keyword arguments has one value type
    yield Row("nop_or_goto", opcode=0x05, text="nop_or_goto {jump}", src=3, offset=S16, **static)  # type: ignore[arg-type]  # as above
    yield Row("gotol_or_nop", opcode=0x06, text="gotol_or_nop {far_jump}", src=1, imm=S32, **static)  # type: ignore[arg-type]  # as above
    yield Row("nop_or_gotol", opcode=0x06, text="nop_or_gotol {far_jump}", src=3, imm=S32, **static)  # type: ignore[arg-type]  # as above
    yield Row("may_goto", Kind.MAY_GOTO, 0xE5, "may_goto {jump}", offset=S16, version=4)
    yield Row("call helper", Kind.CALL, 0x85, "call {helper}", imm=S32, callee=Callee.HELPER)
    yield Row(
        "call subprogram", Kind.CALL, 0x85, "call {pc_jump}", src=1, imm=S32, callee=Callee.SUBPROGRAM
    )
    yield Row(
        "call kfunc",
        Kind.CALL,
        0x85,
        "call kfunc({imm}, {offset})",
        src=2,
        offset=S16,
        imm=S32,
        callee=Callee.KFUNC,
    )
    yield Row("callx", Kind.CALL, 0x8D, "callx r{dst}", dst=REG, callee=Callee.INDIRECT, group="callx")
    yield Row("exit", Kind.EXIT, 0x95, "exit")


ROWS: tuple[Row, ...] = (*_alu_rows(), *_memory_rows(), *_atomic_rows(), *_control_rows())
ROW_BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
ROWS_BY_OPCODE: dict[int, tuple[Row, ...]] = {
    opcode: tuple(row for row in ROWS if row.opcode == opcode)
    for opcode in sorted({row.opcode for row in ROWS})
}
assert len(ROW_BY_NAME) == len(ROWS)


def find_row(insn: Insn) -> Row | None:
    """The row whose legal fields `insn` keeps to, or None."""
    for row in ROWS_BY_OPCODE.get(insn.opcode, ()):
        if row.accepts(insn):
            return row
    return None


def row_of(insn: Insn) -> Row:
    """The row of a legal instruction (one that `decode` returned, or `check` passed)."""
    row = find_row(insn)
    assert row is not None, insn
    return row


def jump_distance(row: Row, insn: Insn) -> int:
    """Slots from the end of `insn` to where it jumps; of a jump, branch, static branch or subprogram call."""
    return insn.offset if row.offset is S16 else insn.imm


def operand(row: Row, insn: Insn) -> int | None:
    """The register that holds the second operand of an ALU, branch or store row, or None when it is the immediate."""
    return insn.src if row.uses_src else None


def compute(row: Row, algebra: Algebra[Any], x: Any, y: Any) -> Any:
    """What an ALU row leaves in its 64-bit destination, given 64-bit operands; a branch row: its one-bit condition."""
    assert row.meaning is not None
    if row.bits == 64:
        return row.meaning(algebra, 64, x, y)
    result = row.meaning(algebra, 32, algebra.trunc(64, x, 32), algebra.trunc(64, y, 32))
    return result if row.kind is Kind.BRANCH else algebra.zext(32, result, 64)


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
            out += pack(opcode, registers, offset, _signed32(imm)) + pack(0, 0, 0, _signed32(imm >> 32))
        else:
            out += pack(opcode, registers, offset, imm)
    return bytes(out)


def decode(code: bytes, big_endian: bool = False, at: Location | None = None) -> tuple[Insn, ...]:
    """The instructions of `code`, each one legal by its row.

    Raises UnreadableError when the bytes are not whole slots, RejectedError with every illegal instruction otherwise.
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


def slot_numbers(insns: Iterable[Insn]) -> list[int]:
    """The slot at which each instruction starts, and one more entry: the number of slots of them all."""
    starts = [0]
    for insn in insns:
        starts.append(starts[-1] + (2 if insn.opcode == WIDE_OPCODE else 1))
    return starts


def _bad_wide(second: tuple[int, ...] | None, at: Location) -> Diagnostic:
    if second is None:
        return Diagnostic("bad-wide-load", "64-bit immediate load has no second half", at, errno=EINVAL)
    said = "second half of a 64-bit immediate load has an opcode, registers or an offset"
    return Diagnostic("bad-wide-load", said, at, errno=EINVAL)


def _signed32(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - 0x1_0000_0000 if value >> 31 else value
