"""Programs made to be hard on who reads, lifts and proves them, of any size: `python -m bpfc.testing.hostile [NAME...]`.

Each shape is one way in which a program can be large or tangled; what comes of it is an object file. The command
verifies each in a process of its own, and prints the CPU time and the most memory that it took, and the verdict.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from bpfc.testing.elf_writer import ALLOCATED, OBJECT, WRITE, Part, Reloc, Sym, code, write_elf
from ir.encoding import encode
from ir.isa import Insn

_CALL, _EXIT, _JA, _WIDE = 0x85, 0x95, 0x05, 0x18
_MOV, _ADD, _MOV_REG, _ADD_REG = 0xB7, 0x07, 0xBF, 0x0F
_JEQ, _JGT, _JSGT, _JLT, _JNE = 0x15, 0x25, 0x65, 0xA5, 0x55
_LOAD, _LOAD_BYTE, _STORE, _STORE_REG = 0x79, 0x71, 0x7A, 0x7B
_RANDOM: Final = Insn(_CALL, imm=7)
_END: Final = (Insn(_MOV), Insn(_EXIT))
_MOST_CPU: Final = 120
_TEXT, _MAP = 10, 1  # R_BPF_64_32, R_BPF_64_64
_SUBPROGRAM = 1
_FAR = 0x06  # gotol


def straight(count: int) -> bytes:
    """One instruction after the other."""
    return _object([Insn(_MOV), *(Insn(_ADD, imm=i & 0xFFFF) for i in range(count - 2)), Insn(_EXIT)])


def stores(count: int) -> bytes:
    """Every slot of the stack written and read, again and again."""
    body: list[Insn] = []
    for i in range(count // 2):
        body += Insn(_STORE, 10, 0, -8 * (i % 64 + 1), i), Insn(_LOAD, 1 + i % 5, 10, -8 * (i % 64 + 1))
    return _object([*body, *_END])


def ladder(count: int) -> bytes:
    """Branches that meet again at once."""
    body = [_RANDOM]
    for i in range(count // 2):
        body += Insn(_JSGT, 0, 0, 1, i % 1000), Insn(_ADD, 0, 0, 0, 1)
    return _object([*body, *_END])


def ladder_of_sums(count: int) -> bytes:
    """A ladder whose ways differ in a sum, which is then used where not all of them may go."""
    body = [Insn(_MOV, 6)]
    for i in range(count // 3):
        body += _RANDOM, Insn(_JSGT, 0, 0, 1, 5), Insn(_ADD, 6, 0, 0, 1 << i % 20)
    body += Insn(_MOV_REG, 1, 10), Insn(_ADD_REG, 1, 6), Insn(_LOAD_BYTE, 0, 1, -1)
    return _object([*body, *_END])


def ladder_of_stores(count: int) -> bytes:
    """A ladder whose ways leave different numbers in every slot of the stack, one of which is an offset."""
    body = [Insn(_STORE, 10, 0, -8 * slot, 0) for slot in range(1, 61)]
    for i in range(count // 3):
        body += _RANDOM, Insn(_JSGT, 0, 0, 1, 5), Insn(_STORE, 10, 0, -8 * (i % 60 + 1), i)
    body += Insn(_LOAD, 6, 10, -8), Insn(_MOV_REG, 1, 10), Insn(_ADD_REG, 1, 6), Insn(_LOAD_BYTE, 0, 1, -1)
    return _object([*body, *_END])


def unwritten(count: int) -> bytes:
    """A register that one way leaves unwritten, read where it meets the other, again and again."""
    body: list[Insn] = []
    for _ in range(count // 4):
        body += _RANDOM, Insn(_JSGT, 0, 0, 1, 5), Insn(_MOV, 5), Insn(_MOV_REG, 6, 5)
    return _object([*body, *_END])


def exits(count: int) -> bytes:
    """Branches that all leave for one exit."""
    body = [_RANDOM]
    for i in range(count):
        left = count - i
        body += (Insn(_JEQ, 0, 0, min(left - 1, 32000), i),)
    return _object([*body, *_END])


def switch(count: int) -> bytes:
    """A number compared with each of many, and as many cases that meet at the end, each with a result of its own."""
    cases = count // 4
    tests = [Insn(0xB4, 6), _RANDOM]
    for i in range(cases):
        # if r0 != i goto +1; gotol case
        tests += Insn(_JNE, 0, 0, 1, i), Insn(_FAR, imm=2 * (cases - 1 - i) + 2 * i + 1)
    tests += (Insn(_FAR, imm=2 * cases),)
    for i in range(cases):
        tests += Insn(_MOV, 6, imm=i), Insn(_FAR, imm=2 * (cases - 1 - i))
    return _object([*tests, *_END])


def nest(count: int) -> bytes:
    """Loops in each other, all over one counter."""
    loops = min(count // 2, 30_000)
    body = [Insn(_MOV, 6), *(Insn(_MOV, 7, imm=i) for i in range(loops)), Insn(_ADD, 6, imm=1)]
    for i in range(loops):
        body += (Insn(_JLT, 6, 0, -(2 + 2 * i), 1000),)
    return _object([*body, *_END])


def latches(count: int) -> bytes:
    """One loop with as many ways back."""
    body = [Insn(_MOV, 6), _RANDOM, Insn(_ADD, 6, imm=1)]
    for i in range(min(count, 32000)):
        body += (Insn(_JEQ, 0, 0, -(2 + len(body) - 3 + 1), i),)
    return _object([*body, *_END])


def loops(count: int) -> bytes:
    """Loops one after the other, of which the last never ends."""
    body: list[Insn] = []
    for _ in range(count // 3):
        body += Insn(_MOV, 6), Insn(_ADD, 6, imm=1), Insn(_JLT, 6, 0, -2, 1000)
    return _object([*body, _RANDOM, Insn(_JNE, 0, 0, -2), *_END])


def endless(count: int) -> bytes:
    """A loop that may go on for ever, around many branches."""
    body: list[Insn] = [Insn(_MOV, 6), _RANDOM]
    for i in range(min(count // 2, 16000)):
        body += Insn(_JSGT, 0, 0, 1, i), Insn(_ADD, 6, imm=1)
    return _object([*body, _RANDOM, Insn(_JNE, 0, 0, -len(body)), *_END])


def count_down(count: int) -> bytes:
    """Two loops in each other that have to be gone round, more often than anybody will."""
    del count
    body = [Insn(_MOV, 6), Insn(_MOV, 8), _RANDOM, Insn(_ADD_REG, 6, 0), Insn(_JNE, 6, 0, -3, 7)]
    body += Insn(_ADD, 8, imm=1), Insn(_JNE, 8, 0, -5, 100_000)
    return _object([*body, *_END])


def tangle(count: int) -> bytes:
    """Blocks that jump anywhere, with no loop that has a head."""
    chance = random.Random(1)
    blocks = count // 3
    body: list[Insn] = []
    for i in range(blocks):
        body += (_RANDOM,)
        for _ in range(2):
            here = len(body) + 1
            low, high = max(0, here - 32000), min(3 * blocks, here + 32000)
            body += (Insn(_JSGT, 0, 0, chance.randrange(low // 3, high // 3) * 3 - here, i),)
    return _object([*body, *_END])


def calls(count: int) -> bytes:
    """Functions in eight layers, each of which calls all of the next."""
    wide = min(count, 252) // 7
    layers = [[f"f{layer}_{i}" for i in range(wide)] for layer in range(7)]
    functions: dict[str, Sequence[str]] = {"main": layers[0]}
    for layer, names in enumerate(layers):
        functions |= {name: layers[layer + 1] if layer < 6 else [] for name in names}
    return _functions(functions)


def chain(count: int) -> bytes:
    """Functions each of which calls the next."""
    names = ["main", *(f"f{i}" for i in range(min(count, 255)))]
    return _functions(
        {name: [after] if after else [] for name, after in zip(names, [*names[1:], ""], strict=True)}
    )


def callers(count: int) -> bytes:
    """Functions each of which is called by all before it."""
    names = ["main", *(f"f{i}" for i in range(min(count, 255)))]
    return _functions({name: names[i + 1 :] for i, name in enumerate(names)})


def fan(count: int) -> bytes:
    """One function that calls all others, several times, each with a ladder in it."""
    names = [f"f{i}" for i in range(255)]
    bodies = [_RANDOM]
    for i in range(count // 510):
        bodies += Insn(_JSGT, 0, 0, 1, i), Insn(_ADD, 0, imm=1)
    return _functions({"main": names * 3, **{name: [] for name in names}}, bodies)


def acquired(count: int) -> bytes:
    """References taken on some ways and not on others, so that all ways hold different things."""
    body = [Insn(_MOV_REG, 6, 1), Insn(_STORE, 10, 0, -8), Insn(_STORE, 10, 0, -16)]
    for _ in range(min(count, 30)):
        body += _RANDOM, Insn(_JSGT, 0, 0, 7, 5)
        body += Insn(_MOV_REG, 1, 6), Insn(_MOV_REG, 2, 10), Insn(_ADD, 2, imm=-16), Insn(_MOV, 3, imm=12)
        body += Insn(_MOV, 4, imm=-1), Insn(_MOV, 5), Insn(_CALL, imm=84)
    return _object([*body, *_END], section="tc")


def maps(count: int) -> bytes:
    """Many maps, each looked up."""
    body: list[Insn] = [Insn(_STORE, 10, 0, -8)]
    relocations: list[Reloc] = []
    count = min(count, 20_000)
    for i in range(count):
        relocations.append(Reloc(8 * (len(body) + i), _MAP, f"m{i}"))
        body += Insn(_WIDE, 1), Insn(_MOV_REG, 2, 10), Insn(_ADD, 2, imm=-8), Insn(_CALL, imm=1)
    declared = b"".join(
        (1).to_bytes(4, "little") + bytes((8, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0)) + bytes(4)
        for _ in range(count)
    )
    parts = [code("tc", encode([*body, *_END]), *relocations), Part("maps", declared, ALLOCATED | WRITE)]
    symbols = [Sym("main", "tc", 0, 8 * (len(body) + count + 2))]
    symbols += [Sym(f"m{i}", "maps", 20 * i, 20, OBJECT) for i in range(count)]
    return write_elf(parts, symbols)


def values(count: int) -> bytes:
    """Many numbers and pointers alive at once, on many ways."""
    body = [Insn(_MOV_REG, 6, 1)]
    for slot in range(1, 61):
        body += _RANDOM, Insn(_STORE_REG, 10, 0, -8 * slot)
    for i in range(count // 4):
        slot = -8 * (i % 60 + 1)
        body += (
            Insn(_LOAD, 1, 10, slot),
            Insn(_JGT, 1, 0, 2, i),
            Insn(_ADD, 1, imm=i),
            Insn(_STORE_REG, 10, 1, slot),
        )
    for slot in range(1, 61):
        body += (
            Insn(_LOAD, 1, 10, -8 * slot),
            Insn(_MOV_REG, 2, 10),
            Insn(_ADD_REG, 2, 1),
            Insn(_LOAD_BYTE, 0, 2),
        )
    return _object([*body, *_END])


def _object(insns: Sequence[Insn], section: str = "socket") -> bytes:
    text = encode(insns)
    return write_elf(
        [code(section, text), Part("license", b"GPL\0", ALLOCATED)], [Sym("main", section, 0, len(text))]
    )


def _functions(called: dict[str, Sequence[str]], before: Iterable[Insn] = ()) -> bytes:
    """Functions by name, the first the program; each calls those that it names."""
    texts: dict[str, list[Insn]] = {".text": [], "socket": []}
    relocations: dict[str, list[Reloc]] = {".text": [], "socket": []}
    symbols: list[Sym] = []
    for name, callees in called.items():
        section = "socket" if name == "main" else ".text"
        text, start = texts[section], len(texts[section])
        text += before if name != "main" else ()
        for callee in callees:
            relocations[section].append(Reloc(8 * len(text), _TEXT, callee))
            text += (Insn(_CALL, src=_SUBPROGRAM, imm=-1),)
        text += _END
        symbols.append(Sym(name, section, 8 * start, 8 * (len(text) - start)))
    parts = [code(name, encode(text), *relocations[name]) for name, text in texts.items()]
    return write_elf([*parts, Part("license", b"GPL\0", ALLOCATED)], symbols)


SHAPES: Final[dict[str, Callable[[int], bytes]]] = {
    shape.__name__: shape
    for shape in (
        *(straight, stores, ladder, ladder_of_sums, ladder_of_stores, unwritten, exits, switch),
        *(nest, latches, loops, endless),
        *(count_down, tangle, calls, chain, callers, fan, acquired, maps, values),
    )
}
SIZES: Final = (1_000, 30_000, 999_000)


@final
@dataclass(frozen=True, slots=True)
class Took:
    """What a process took: seconds of CPU, the most memory in MB, its exit code and the last line it said."""

    cpu: float
    memory: float
    code: int
    said: str


def run(arguments: Sequence[str]) -> Took:
    """Run `bpfc` with these arguments in a process of its own."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "bpfc", *arguments],
            stdout=out,
            stderr=out,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU, _MOST_CPU)),
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
    said = next((line for line in lines if "error" in line), lines[-1] if lines else "")
    return Took(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, child.returncode, said)


def main(arguments: Sequence[str]) -> int:
    """Verify each shape (all, unless some are named) at each size, and print what that took."""
    sizes = [int(each) for each in arguments if each.isdecimal()] or SIZES
    names = [each for each in arguments if not each.isdecimal()] or SHAPES
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for size in sizes:
                path = Path(folder, f"{name}.o")
                path.write_bytes(SHAPES[name](size))
                took = run(["verify", str(path)])
                said = took.said.removeprefix(str(path))
                figures = f"{took.cpu:7.2f} s {took.memory:6.0f} MB  {took.code:3}"
                sys.stdout.write(f"{name:17} {size:8} {figures}  {said[:110]}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
