"""The BPF instruction set, one row per operation: encoding, legal fields, assembly text and meaning.

Nothing else in bpfc lists opcodes. Decoding, encoding, the assembler, the disassembler, the interpreter,
the constant folder, the verifier, lowering and the property tests are all driven by these rows. A new
operation is one new row.

An instruction is one or two 8-byte slots (RFC 9669 section 3; big-endian objects swap the nibbles of byte 1):

    byte   0        1           2..3      4..7
         +--------+-----+-----+---------+-----------------------+
         | opcode | src | dst | offset  | imm                   |
         +--------+-----+-----+---------+-----------------------+
         | 0      | 0   | 0   | 0       | imm, upper half       |   second slot, 64-bit immediate load only
         +--------+-----+-----+---------+-----------------------+

Jump distances count slots from the end of the jumping instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, final

from ir import meaning as mean
from ir.algebra import Algebra
from ir.meaning import Meaning

Field = range | int | frozenset[int]

REG = range(11)
S16 = range(-0x8000, 0x8000)
S32 = range(-0x8000_0000, 0x8000_0000)
U32 = range(0x1_0000_0000)
U64 = range(0x1_0000_0000_0000_0000)

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = REG
FRAME_POINTER = R10
ARGUMENT_REGISTERS = (R1, R2, R3, R4, R5)
STATIC, NOP_FIRST = 1, 2  # bits of a jump's source field: it can be flipped; its first form is the nop
REGISTER = 8  # bit of an opcode: the second operand is a register


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

    __hash__ = (
        object.__hash__
    )  # kinds are keys of tables that every step of an interpreter reads; Enum's own is slow


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
    """Whom `Kind.CALL` calls; the value is the source-register field (INDIRECT has its own opcode)."""

    HELPER = 0
    SUBPROGRAM = 1
    KFUNC = 2
    INDIRECT = -1


class Insn(NamedTuple):
    """One instruction. `imm` is signed; a wide load's is the unsigned 64-bit value of both halves."""

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
_READS_DST = (Kind.STORE, Kind.ATOMIC, Kind.BRANCH)
_WRITES_DST = (Kind.ALU, Kind.WIDE, Kind.LOAD)
_ENDS_BLOCK = (Kind.JUMP, Kind.BRANCH, Kind.STATIC_BRANCH, Kind.MAY_GOTO, Kind.EXIT)


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One operation.

    `dst`, `src`, `offset`, `imm` are the legal values of each field (an int: exactly that one). `text` is
    the assembly template (see `ir/asm.py`), `aliases` further spellings the assembler takes. `bits` is the
    width the meaning works at, `size` the bytes of memory touched, `signed` whether a load sign-extends.
    `version` is the cpu version (v1..v4) that has it, `group` the conformance group of RFC 9669 section
    2.4. `is_atomic`: an access of the atomic class (read-modify-write, load-acquire, store-release). `uses_src` and
    `reads_dst`: whether the source field names a register (and not a kind, a flag or nothing), and whether what the
    destination register held matters; `writes_dst`: whether it gets the result. `ends_block`: control may go
    elsewhere than on.
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
    is_atomic: bool = field(init=False, compare=False, repr=False)
    uses_src: bool = field(init=False, compare=False, repr=False)
    reads_dst: bool = field(init=False, compare=False, repr=False)
    writes_dst: bool = field(init=False, compare=False, repr=False)
    ends_block: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What passes ask of every instruction, written down once."""
        copies = self.name.startswith(("mov", "addr_space_cast"))
        reads = self.kind in _READS_DST or (self.kind is Kind.ALU and not copies)
        object.__setattr__(self, "is_atomic", self.group.startswith("atomic"))
        object.__setattr__(self, "uses_src", self.src is REG)
        object.__setattr__(self, "reads_dst", reads or self.callee is Callee.INDIRECT)
        object.__setattr__(self, "writes_dst", self.kind in _WRITES_DST)
        object.__setattr__(self, "ends_block", self.kind in _ENDS_BLOCK)

    def accepts(self, insn: Insn) -> bool:
        """Whether every field of `insn` (whose opcode is this row's) is legal here."""
        _, dst, src, offset, imm = insn
        legal = self.src  # written out: every instruction comes here, and a call costs more than a comparison
        if src != legal if type(legal) is int else src not in legal:  # type: ignore[operator]  # no int: has `in`
            return False
        legal = self.offset
        if offset != legal if type(legal) is int else offset not in legal:  # type: ignore[operator]  # as above
            return False
        legal = self.imm
        if imm != legal if type(legal) is int else imm not in legal:  # type: ignore[operator]  # as above
            return False
        legal = self.dst
        return dst == legal if type(legal) is int else dst in legal  # type: ignore[operator]  # as above

    def misfits(self, insn: Insn) -> list[str]:
        """The names of the fields of `insn` that are not legal here."""
        return [
            name
            for name in ("src", "offset", "imm", "dst")
            if not _legal(getattr(self, name), getattr(insn, name))
        ]


def _legal(field: Field, value: int) -> bool:
    return value == field if isinstance(field, int) else value in field


def _alu_rows() -> Iterator[Row]:
    for bits, cls, reg in ((64, 0x07, "r"), (32, 0x04, "w")):
        for name, code, sign, meaning, offset, group in (
            ("add", 0x00, "+=", mean.add, 0, "base"),
            ("sub", 0x10, "-=", mean.sub, 0, "base"),
            ("mul", 0x20, "*=", mean.mul, 0, "divmul"),
            ("div", 0x30, "/=", mean.div, 0, "divmul"),
            ("sdiv", 0x30, "s/=", mean.sdiv, 1, "divmul"),
            ("or", 0x40, "|=", mean.or_, 0, "base"),
            ("and", 0x50, "&=", mean.and_, 0, "base"),
            ("lsh", 0x60, "<<=", mean.lsh, 0, "base"),
            ("rsh", 0x70, ">>=", mean.rsh, 0, "base"),
            ("mod", 0x90, "%=", mean.mod, 0, "divmul"),
            ("smod", 0x90, "s%=", mean.smod, 1, "divmul"),
            ("xor", 0xA0, "^=", mean.xor, 0, "base"),
            ("mov", 0xB0, "=", mean.mov, 0, "base"),
            ("arsh", 0xC0, "s>>=", mean.arsh, 0, "base"),
        ):
            text = f"{reg}{{dst}} {sign} {{imm}}"
            row = Row(f"{name}{bits} imm", Kind.ALU, code | cls, text, REG, 0, offset, S32, bits)
            row = replace(row, meaning=meaning, version=4 if offset else 1, group=f"{group}{bits}")
            yield row
            yield _with_register(row, reg)
        negated = f"{reg}{{dst}} = -{reg}{{dst}}"
        yield Row(
            f"neg{bits}", Kind.ALU, 0x80 | cls, negated, REG, bits=bits, meaning=mean.neg, group=f"base{bits}"
        )
        for width in (8, 16, 32)[: 3 if bits == 64 else 2]:
            text = f"{reg}{{dst}} = (s{width}){reg}{{src}}"
            row = Row(f"movsx{width}to{bits}", Kind.ALU, 0xB8 | cls, text, REG, REG, width, bits=bits)
            yield replace(row, meaning=mean.sign_extend(width), version=4, group=f"base{bits}")
    for width in (16, 32, 64):
        for name, opcode, big, version in (
            ("le", 0xD4, False, 1),
            ("be", 0xDC, True, 1),
            ("bswap", 0xD7, None, 4),
        ):
            text, group = f"r{{dst}} = {name}{width} r{{dst}}", "base64" if width == 64 else "base32"
            row = Row(f"{name}{width}", Kind.ALU, opcode, text, REG, imm=width, version=version, group=group)
            yield replace(row, meaning=mean.swap(width, big))
    cast, spaces = "r{dst} = addr_space_cast(r{src}, {to_space}, {from_space})", frozenset((1, 0x10000))
    yield Row("addr_space_cast", Kind.ALU, 0xBF, cast, REG, REG, 1, spaces, meaning=mean.mov, version=4)


def _memory_rows() -> Iterator[Row]:
    for size, code in ((4, 0x00), (2, 0x08), (1, 0x10), (8, 0x18)):
        yield from _access_rows(size, code)
        if size < 8:
            bits = size * 8
            text = f"r{{dst}} = *(s{bits} *)(r{{src}} {{mem}})"
            row = Row(f"ldxs{bits}", Kind.LOAD, 0x81 | code, text, REG, REG, S16, size=size)
            yield replace(row, signed=True, version=4)
            text = f"r0 = *(u{bits} *)skb[{{imm}}]"
            row = Row(f"ldabs{bits}", Kind.PACKET, 0x20 | code, text, imm=S32, size=size, group="packet")
            yield row
            text = text.replace("{imm}", "r{src} {imm_mem}")
            yield replace(row, name=f"ldind{bits}", opcode=0x40 | code, text=text, src=REG)
    for what, text, imm in (
        (Wide.PLAIN, "{imm64} ll", U64),
        (Wide.MAP_FD, "map_fd({low})", U32),
        (Wide.MAP_VALUE, "map_value({low}, {high})", U64),
        (Wide.BTF_ID, "btf_id({low}, {high})", U64),
        (Wide.FUNC, "func({low_jump})", U32),
        (Wide.MAP_IDX, "map_idx({low})", U32),
        (Wide.MAP_IDX_VALUE, "map_idx_value({low}, {high})", U64),
    ):
        kernel = ("r{dst} = {imm64}",) if what is Wide.PLAIN else ()
        name = f"lddw {what.name.lower()}"
        yield Row(name, Kind.WIDE, WIDE_OPCODE, f"r{{dst}} = {text}", REG, what.value, 0, imm, aliases=kernel)


def _access_rows(size: int, code: int) -> Iterator[Row]:
    """Loads and stores of one size. Up to 32 bits, r4 may also be written w4 or the other way round."""
    bits, at = size * 8, f"(u{size * 8} *)"
    source, target = f"{at}(r{{src}} {{mem}})", f"{at}(r{{dst}} {{mem}})"
    for name, kind, opcode, text, src, imm, group, version in (
        ("ldx", Kind.LOAD, 0x61, f"@{{dst}} = *{source}", REG, 0, "base", 1),
        ("st", Kind.STORE, 0x62, f"*{target} = {{imm}}", 0, S32, "base", 1),
        ("stx", Kind.STORE, 0x63, f"*{target} = @{{src}}", REG, 0, "base", 1),
        ("load_acquire", Kind.LOAD, 0xC3, f"@{{dst}} = load_acquire({source})", REG, 0x100, "atomic", 4),
        ("store_release", Kind.STORE, 0xC3, f"store_release({target}, @{{src}})", REG, 0x110, "atomic", 4),
    ):
        texts = [text.replace("@", reg) for reg in ("rw" if group == "base" else "wr")]
        shown, *aliases = dict.fromkeys(texts) if size < 8 else [text.replace("@", "r")]
        row = Row(f"{name}{bits}", kind, opcode | code, shown, REG, src, S16, imm, size=size)
        group = f"{group}{64 if size == 8 else 32}"
        yield replace(row, version=version, group=group, aliases=tuple(aliases))


def _atomic_rows() -> Iterator[Row]:
    for bits, reg, llvm, kernel in ((32, "w", "32_32", "atomic"), (64, "r", "_64", "atomic64")):
        place, value = f"(u{bits} *)(r{{dst}} {{mem}})", f"{reg}{{src}}"
        for name, code, sign, meaning in (
            ("add", 0x00, "+=", mean.add),
            ("or", 0x40, "|=", mean.or_),
            ("and", 0x50, "&=", mean.and_),
            ("xor", 0xA0, "^=", mean.xor),
        ):
            lock, fetch = f"lock *{place} {sign} ", f"fetch_{name}({place}, "
            aliases = (lock + "r{src}",) if bits == 32 else ()
            yield _atomic_row(bits, f"lock_{name}", lock + value, code, meaning, *aliases)
            text, alias = f"{value} = atomic_{fetch}{value})", f"r{{src}} = {kernel}_{fetch}r{{src}})"
            yield _atomic_row(bits, f"fetch_{name}", text, code | 1, meaning, alias)
        text = f"{value} = xchg{llvm}(r{{dst}} {{mem}}, {value})"
        yield _atomic_row(bits, "xchg", text, 0xE1, mean.mov, f"r{{src}} = {kernel}_xchg({place}, r{{src}})")
        text = f"{reg}0 = cmpxchg{llvm}(r{{dst}} {{mem}}, {reg}0, {value})"
        yield _atomic_row(bits, "cmpxchg", text, 0xF1, None, f"r0 = {kernel}_cmpxchg({place}, r0, r{{src}})")


def _atomic_row(bits: int, name: str, text: str, imm: int, meaning: Meaning | None, *aliases: str) -> Row:
    opcode, fetches = (0xC3 if bits == 32 else 0xDB), imm & 1 == 1
    row = Row(
        f"{name}{bits}", Kind.ATOMIC, opcode, text, REG, REG, S16, imm, bits, bits // 8, aliases=aliases
    )
    version = 3 if fetches else 1
    return replace(row, meaning=meaning, fetches=fetches, version=version, group=f"atomic{bits}")


def _control_rows() -> Iterator[Row]:
    for bits, cls, reg in ((64, 0x05, "r"), (32, 0x06, "w")):
        for name, code, sign, meaning, since in (
            ("jeq", 0x10, "==", mean.eq, 1),
            ("jgt", 0x20, ">", mean.ugt, 1),
            ("jge", 0x30, ">=", mean.uge, 1),
            ("jset", 0x40, "&", mean.has_common_bits, 1),
            ("jne", 0x50, "!=", mean.ne, 1),
            ("jsgt", 0x60, "s>", mean.sgt, 1),
            ("jsge", 0x70, "s>=", mean.sge, 1),
            ("jlt", 0xA0, "<", mean.ult, 2),
            ("jle", 0xB0, "<=", mean.ule, 2),
            ("jslt", 0xC0, "s<", mean.slt, 2),
            ("jsle", 0xD0, "s<=", mean.sle, 2),
        ):
            text, version = f"if {reg}{{dst}} {sign} {{imm}} goto {{jump}}", since if bits == 64 else 3
            row = Row(f"{name}{bits} imm", Kind.BRANCH, code | cls, text, REG, 0, S16, S32, bits)
            row = replace(row, meaning=meaning, version=version, group=f"base{bits}")
            yield row
            yield _with_register(row, reg)
    yield Row("ja", Kind.JUMP, 0x05, "goto {jump}", offset=S16)
    yield Row("gotol", Kind.JUMP, 0x06, "gotol {far_jump}", imm=S32, version=4, group="base32")
    for name, src in (("goto_or_nop", STATIC), ("nop_or_goto", STATIC | NOP_FIRST)):
        far = name.replace("goto", "gotol")
        kind, tags = Kind.STATIC_BRANCH, "static"
        yield Row(name, kind, 0x05, f"{name} {{jump}}", src=src, offset=S16, version=4, group=tags)
        yield Row(far, kind, 0x06, f"{far} {{far_jump}}", src=src, imm=S32, version=4, group=tags)
    yield Row("may_goto", Kind.MAY_GOTO, 0xE5, "may_goto {jump}", offset=S16, version=4)
    for callee, text, offset in (
        (Callee.HELPER, "call {helper}", 0),
        (Callee.SUBPROGRAM, "call {pc_jump}", 0),
        (Callee.KFUNC, "call kfunc({imm}, {offset})", S16),
    ):
        name = f"call {callee.name.lower()}"
        yield Row(name, Kind.CALL, 0x85, text, 0, callee.value, offset, S32, callee=callee)
    yield Row("callx", Kind.CALL, 0x8D, "callx r{dst}", REG, callee=Callee.INDIRECT, group="callx")
    yield Row("exit", Kind.EXIT, 0x95, "exit")


def _with_register(row: Row, reg: str) -> Row:
    """The form of an immediate row that takes its second operand from a register."""
    name, text = row.name.replace("imm", "reg"), row.text.replace("{imm}", f"{reg}{{src}}")
    return replace(row, name=name, opcode=row.opcode | REGISTER, text=text, src=REG, imm=0)


ROWS: tuple[Row, ...] = (*_alu_rows(), *_memory_rows(), *_atomic_rows(), *_control_rows())
ROW_BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
ROWS_BY_OPCODE: dict[int, tuple[Row, ...]] = {
    opcode: tuple(row for row in ROWS if row.opcode == opcode)
    for opcode in sorted({row.opcode for row in ROWS})
}
assert len(ROW_BY_NAME) == len(ROWS)
_ONLY_ROW: dict[int, Row] = {opcode: rows[0] for opcode, rows in ROWS_BY_OPCODE.items() if len(rows) == 1}


def _tell_apart(rows: tuple[Row, ...]) -> tuple[int, dict[int, Row]]:
    """The place in an Insn of a field that alone tells these rows of one opcode apart, and the rows by its value."""
    for place, name in ((2, "src"), (3, "offset"), (4, "imm")):
        by_value = {value: row for row in rows if isinstance(value := getattr(row, name), int)}
        if len(by_value) == len(rows):
            return place, by_value
    raise AssertionError(f"no field tells {[row.name for row in rows]} apart")


_TOLD_APART: dict[int, tuple[int, dict[int, Row]]] = {
    opcode: _tell_apart(rows) for opcode, rows in ROWS_BY_OPCODE.items() if len(rows) > 1
}


def find_row(insn: Insn) -> Row | None:
    """The row whose legal fields `insn` keeps to, or None."""
    for row in ROWS_BY_OPCODE.get(insn.opcode, ()):
        if row.accepts(insn):
            return row
    return None


def row_of(insn: Insn) -> Row:
    """The row of a legal instruction (one that `decode` returned, or `check` passed)."""
    row = _ONLY_ROW.get(insn.opcode)
    if row is not None:
        return row
    place, by_value = _TOLD_APART[insn.opcode]
    return by_value[insn[place]]


def jump_distance(row: Row, insn: Insn) -> int:
    """Slots from the end of `insn` to where it jumps; of a jump, branch, static branch or subprogram call."""
    return insn.offset if row.offset is S16 else insn.imm


def operand(row: Row, insn: Insn) -> int | None:
    """The register of the second operand of an ALU, branch or store row; None when it is the immediate."""
    return insn.src if row.uses_src else None


def compute(row: Row, algebra: Algebra[Any], x: Any, y: Any) -> Any:
    """What an ALU row leaves in its 64-bit destination; of a branch row, its one-bit condition."""
    assert row.meaning is not None
    if row.bits == 64:
        return row.meaning(algebra, 64, x, y)
    result = row.meaning(algebra, 32, algebra.trunc(64, x, 32), algebra.trunc(64, y, 32))
    return result if row.kind is Kind.BRANCH else algebra.zext(32, result, 64)


def slot_numbers(insns: Iterable[Insn]) -> list[int]:
    """The slot at which each instruction starts, and one more entry: the number of slots of them all."""
    starts = [0]
    for insn in insns:
        starts.append(starts[-1] + (2 if insn.opcode == WIDE_OPCODE else 1))
    return starts
