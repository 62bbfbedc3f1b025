"""The plugin side of the public bpf_conformance suite: run one program, print r0.

    plugin [--program HEX] [MEMORY] [--engine NAME] [--debug] [--elf]  <program in hex  >r0 in hex

MEMORY is hex with spaces wherever the caller likes them; r1 is its address and r2 its length (RFC 9669 has
no say in this, the suite has). A program that is refused or traps says so on stderr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO, final

from ir.diagnostics import Diagnostic, DiagnosticError, UnreadableError
from ir.encoding import decode
from ir.isa import Insn
from ir.kinds import ProgramType
from ir.object import Program

Engine = Callable[[tuple[Insn, ...], bytearray], int]

MEMORY_BASE: Final = 0x1000_0000
HELPERS: Final[Mapping[int, Callable[..., int]]] = {5: lambda *_: time.monotonic_ns()}  # the one it calls

EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNREADABLE = 0, 1, 2, 3


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What the plugin is asked to do; hexadecimal text is not decoded yet. `program` None: it is on stdin."""

    program: str | None
    memory: str
    engine: str
    is_elf: bool


def interpret(insns: tuple[Insn, ...], memory: bytearray, big_endian: bool = False) -> int:
    """r0 of a program on raw memory, by the reference interpreter; raises TrapError."""
    from ir.environment import Environment
    from ir.interpreter import Machine  # late: the other engine does without
    from ir.segments import Memory, make_segment

    program = Program("main", "", ProgramType.UNSPEC, insns, (), big_endian=big_endian)
    segments = [make_segment(MEMORY_BASE, memory, "the memory")] if memory else []
    machine = Machine(program, Memory(segments, big_endian), Environment(HELPERS))
    return machine.run(MEMORY_BASE if memory else 0, len(memory)).ret


def run_native(insns: tuple[Insn, ...], memory: bytearray) -> int:
    """r0 of a program on raw memory, which it changes, by native code; raises TrapError."""
    from bpfc.loaded import from_insns  # late: the interpreter starts without the compiler

    with from_insns(insns).start() as runtime:
        result = runtime["main"].run(memory)
    memory[:] = result.data
    return result.ret


ENGINES: Final[Mapping[str, Engine]] = {"native": run_native, "interpreter": interpret}


def run_plugin(
    argv: Sequence[str],
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
    engines: Mapping[str, Engine] | None = None,
) -> int:
    """Serve one run of the plugin protocol; the exit code. The first of `engines` is the default."""
    engines = engines or ENGINES
    request = _parse(argv, next(iter(engines)))
    if isinstance(request, str) or request.engine not in engines:
        problem = (
            request
            if isinstance(request, str)
            else f"no engine '{request.engine}', only {', '.join(engines)}"
        )
        stderr.write(f"{problem}\n")
        return EXIT_USAGE
    try:
        code = read_hex(stdin.read() if request.program is None else request.program, "program")
        memory = bytearray(read_hex(request.memory, "memory"))
        insns = _code_of(code) if request.is_elf else decode(code)
        stdout.write(f"{engines[request.engine](insns, memory):x}\n")
    except DiagnosticError as error:
        stderr.write(f"{error}\n")
        return EXIT_UNREADABLE if isinstance(error, UnreadableError) else EXIT_REFUSED
    return EXIT_OK


def read_hex(text: str, what: str) -> bytes:
    """The bytes of hexadecimal `text`: digits in pairs, or one between spaces; raises UnreadableError."""
    words = [word if len(word) % 2 == 0 else f"0{word}" for word in text.split()]
    try:
        return bytes.fromhex("".join(words))
    except ValueError as error:
        raise UnreadableError([Diagnostic("not-hex", f"the {what} is not hexadecimal: {error}")]) from error


def _parse(argv: Sequence[str], engine: str) -> Request | str:
    """The request, or what is wrong with it."""
    words = list(argv)
    program, memory, is_elf = None, "", False
    if words[:1] == ["--program"]:
        if len(words) < 2:
            return "--program needs the program in hexadecimal"
        program = words[1]
        del words[:2]
    if words and not words[0].startswith("--"):
        memory = words.pop(0)
    while words:
        option, is_long, value = words.pop(0).partition("=")
        if option == "--engine" and (is_long or words):
            engine = value if is_long else words.pop(0)
        elif option == "--elf":
            is_elf = True
        elif option not in ("--debug", ""):
            return f"unexpected argument '{option}'"
    return Request(program, memory, engine, is_elf)


def _code_of(data: bytes) -> tuple[Insn, ...]:
    """The insns of an object's only code section, whole: the suite calls into it without naming functions."""
    from bpfc.elf.file import read_elf  # late: pyelftools, and most requests are raw bytecode

    file = read_elf(data, "stdin")
    sections = [section for section in file.sections if section.is_code]
    if len(sections) != 1:
        said = f"the object has {len(sections)} sections of code, wanted one"
        raise UnreadableError([Diagnostic("not-one-program", said)])
    return decode(sections[0].data, file.big_endian, file.at(sections[0]))
