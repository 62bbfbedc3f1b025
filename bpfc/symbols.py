"""The symbols of a running program: a native function each, under the names that Linux gives them.

bpf_prog_<tag>_<name>         tag: SHA-1 of the instructions, without what differs from load to load

Names, order and the rules of capacity are those of `bpf_prog_info` (bpf_prog_get_info_by_fd).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from backends.native_code import LineMark
from bpfc.compile import compile_program
from ir.asm import format_insn
from ir.encoding import encode
from ir.functions import called_slot
from ir.isa import WIDE_OPCODE, Kind, row_of
from ir.object import FunctionInfo, Program, ReferenceKind
from runtime.call_table import CallTable
from runtime.debug_file import DebugFunction, DebugImage, DebugLine, symbol_file
from runtime.gdb import Announced
from runtime.perf_map import write_perf_map

if TYPE_CHECKING:
    from bpfc.running_program import RunningProgram

_TAG_BYTES: Final = 8


@final
@dataclass(frozen=True, slots=True)
class ProgramSymbol:
    """A function in memory: `length` bytes at `address`; `tag` in hexadecimal."""

    name: str
    address: int
    length: int
    tag: str


@final
@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What `bpf_prog_info` says of functions: all of their number, and as many of each as were asked for."""

    nr_jited_ksyms: int
    jited_ksyms: tuple[int, ...]
    nr_jited_func_lens: int
    jited_func_lens: tuple[int, ...]
    nr_prog_tags: int
    prog_tags: tuple[str, ...]


def tag_of(program: Program, function: FunctionInfo) -> str:
    """The tag of a function: its instructions, with the numbers of maps zeroed."""
    end = function.start + function.slots
    body = [
        insn._replace(imm=0) if insn.opcode == WIDE_OPCODE and _names_a_map(program, slot) else insn
        for slot, insn in zip(program.starts, program.insns, strict=False)
        if function.start <= slot < end
    ]
    return hashlib.sha1(encode(body, program.big_endian), usedforsecurity=False).digest()[:_TAG_BYTES].hex()


def symbol_name(program: Program, function: FunctionInfo) -> str:
    """`bpf_prog_<tag>_<name>`."""
    return f"bpf_prog_{tag_of(program, function)}_{function.name}"


def symbols_of(running: RunningProgram) -> tuple[ProgramSymbol, ...]:
    """The functions of a running program, main first; one that LLVM inlined everywhere is not among them."""
    native = {symbol.name: symbol for symbol in running.image.functions}
    program = running.program
    return tuple(
        ProgramSymbol(
            symbol_name(program, info),
            native[info.name].address,
            native[info.name].length,
            tag_of(program, info),
        )
        for info in program.functions
        if info.name in native
    )


def program_info(running: RunningProgram, capacity: int) -> ProgramInfo:
    """The table of functions, `capacity` of them copied."""
    symbols = symbols_of(running)
    count, copied = len(symbols), symbols[: max(capacity, 0)]
    return ProgramInfo(
        count,
        tuple(symbol.address for symbol in copied),
        count,
        tuple(symbol.length for symbol in copied),
        count,
        tuple(symbol.tag for symbol in copied),
    )


def call_table(running: RunningProgram) -> CallTable:
    """A table of the program's functions by number, main being 0; the caller closes it.

    An entry is where calls of the function and pointers to it go, 0 for one that LLVM inlined everywhere.
    """
    native = {symbol.name: symbol.address for symbol in running.image.functions}
    names = [info.name for info in running.program.functions]
    table = CallTable(names, running.runtime.world.pool)
    for name in names:
        table[name] = native.get(name, 0)
    return table


def line_marks(running: RunningProgram) -> tuple[LineMark, ...]:
    """Which instruction each piece of a running program's code is for.

    A program that was compiled without lines is compiled once more with them; none, in case that gives other code.
    """
    code, world = running.compiled.code, running.runtime.world
    if code.lines:
        return code.lines
    options, target = replace(running.runtime.options, lines=True), world.space.compile_target
    lined = compile_program(running.program, world.declared, options, running.overridden, target=target).code
    parts, same = ({n: s for n, s in enumerate(c.sections) if s.is_executable} for c in (lined, code))
    if [*parts.values()] != [*same.values()]:
        return ()
    numbers = dict(zip(parts, same, strict=True))
    return tuple(mark._replace(section=numbers[mark.section]) for mark in lined.lines)


def list_calls(program: Program, addresses: dict[str, int] | None = None) -> Iterator[str]:
    """Each instruction; a call as Linux's tools print it, its distance in 32 bits.

        12: call pc+40#bpf_prog_1234567890abcdef_helper

    `addresses` of functions instead of their symbols, where there are no names; an empty dict: the distance alone.
    """
    by_start = {info.start: info for info in program.functions}
    for slot, insn in zip(program.starts, program.insns, strict=False):
        target = called_slot(insn, slot) if row_of(insn).kind is Kind.CALL else None
        if target is None:
            yield f"{slot:4}: {format_insn(insn)}"
            continue
        info = by_start[target]
        said = f"#{symbol_name(program, info)}"
        if addresses is not None:
            said = f"#{addresses[info.name]:#x}" if info.name in addresses else ""
        yield f"{slot:4}: call pc{target - slot - 1:+}{said}"


def call_index(program: Program, slot: int) -> int:
    """The number of the function that the call at a slot calls, main being 0: what Linux shows as its imm."""
    insn = program.insns[program.starts.index(slot)]
    target = called_slot(insn, slot)
    return next(number for number, info in enumerate(program.functions) if info.start == target)


def name_for_perf(running: RunningProgram, path: Path | None = None) -> None:
    """Add the program's functions to /tmp/perf-PID.map, under their symbols."""
    names = {info.name: symbol_name(running.program, info) for info in running.program.functions}
    write_perf_map(running.image, lambda name: names.get(name, name), path)


def name_for_gdb(running: RunningProgram) -> Announced:
    """Show gdb the program: its functions under their symbols, lines of C, and how frames unwind, if it has lines.

    To be closed before the program is: `with name_for_gdb(rt["filter"]): ...`. Start with `Options(lines=True)`.
    """
    image, program = running.image, running.program
    code, sections = image.code, image.layout.sections
    names = {info.name: symbol_name(program, info) for info in program.functions}
    native = {f.name for f in image.functions}
    functions = [DebugFunction(names.get(f.name, f.name), f.address, f.length) for f in image.functions]
    lines: list[DebugLine] = []
    first = {image.address_of(info.name): info.start for info in program.functions if info.name in native}
    for mark in line_marks(running):
        place = image.address + sections[mark.section] + mark.offset
        slot = first.get(place, mark.slot)
        source = program.location(slot).source if slot >= 0 else None
        lines.append(DebugLine(place, source.file if source else "", source.line if source else 0))
    number = next((n for n, section in enumerate(code.sections) if section.name == ".eh_frame"), None)
    frames, frames_at = b"", 0
    if number is not None:
        frames = image.block.read(sections[number], code.sections[number].size)
        frames_at = image.address + sections[number]
    end = max(f.address + f.length for f in image.functions)
    lines.sort(key=lambda line: line.address)
    shown = DebugImage(image.address, end, functions, lines, frames, frames_at)
    return Announced(symbol_file(shown, image.target))


def _names_a_map(program: Program, slot: int) -> bool:
    reference = program.references.get(slot)
    return reference is not None and reference.kind in (ReferenceKind.MAP, ReferenceKind.MAP_VALUE)
