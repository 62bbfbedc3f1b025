"""Functions of random prototypes, compiled from C: programs see what was passed, the function gets it, its result comes back.

BPFC_PROTOTYPES=400 pytest tests/property/test_native_prototypes.py       that many functions, more seeds: BPFC_SEED=7
"""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import pytest

import bpfc
from tests.shared_objects import build_text

if TYPE_CHECKING:
    from bpfc.running import Runtime

FUNCTIONS: Final = int(os.environ.get("BPFC_PROTOTYPES", "10"))
SEED: Final = int(os.environ.get("BPFC_SEED", "1"))
MOST_SLOTS: Final = 12
OBJECTS: Final = Path(__file__).parent.parent / "objects"
WORD: Final = 8


@final
@dataclass(frozen=True, slots=True)
class Type:
    """A C type: how it is declared, its size, and how values of it are seen: signed, unsigned, float, or bytes."""

    text: str
    size: int
    sort: str


NUMBERS: Final = (
    Type("signed char", 1, "signed"),
    Type("unsigned char", 1, "unsigned"),
    Type("short", 2, "signed"),
    Type("unsigned short", 2, "unsigned"),
    Type("int", 4, "signed"),
    Type("unsigned", 4, "unsigned"),
    Type("long", 8, "signed"),
    Type("unsigned long", 8, "unsigned"),
    Type("enum negative", 4, "signed"),
    Type("enum positive", 4, "unsigned"),
    Type("float", 4, "float"),
    Type("double", 8, "float"),
)
STRUCTS: Final = {
    "s1": "char a;",
    "s3": "char a[3];",
    "s4": "short a, b;",
    "s5": "char a[5];",
    "s6": "short a[3];",
    "s8": "int a, b;",
    "s9": "char a[9];",
    "s12": "int a[3];",
    "s16": "long a; unsigned b, c;",
    "s16l": "unsigned long a, b;",
}
SIZES: Final = {name: int(name[1:].rstrip("l")) for name in STRUCTS}
TYPES: Final = (*NUMBERS, *(Type(f"struct {name}", size, "bytes") for name, size in SIZES.items()))
HEAD: Final = """
enum negative { MINUS = -5, SOME = 3 };
enum positive { FEW = 1, MANY = 70000 };
unsigned long got[64];
#define PUT(at, value) __builtin_memcpy((char *)got + (at), &(value), sizeof(value))
"""


@final
@dataclass(frozen=True, slots=True)
class Case:
    """A function: its types, and for each argument the bytes that are passed."""

    name: str
    arguments: tuple[Type, ...]
    result: Type
    given: tuple[bytes, ...]
    answer: bytes

    def source(self) -> str:
        """The function, and another that calls it with the values. What arrived is put into `got`, word after word."""
        declared = ", ".join(f"{type.text} a{n}" for n, type in enumerate(self.arguments)) or "void"
        puts, at = [], 0
        for number, type in enumerate(self.arguments):
            puts.append(f"  PUT({at}, a{number});")
            at += -(-type.size // WORD) * WORD
        values = [
            f"  static volatile unsigned char v{n}[] = {{ {', '.join(map(str, data))} }}; {type.text} x{n}; "
            f"for (unsigned i = 0; i < sizeof(x{n}); i++) ((char *)&x{n})[i] = v{n}[i];"
            for n, (type, data) in enumerate(zip(self.arguments, self.given, strict=True))
        ]
        answer = ", ".join(map(str, self.answer))
        passed = ", ".join(f"x{n}" for n in range(len(self.arguments)))
        return "\n".join(
            [
                f"__attribute__((noinline)) {self.result.text} {self.name}({declared})",
                "{",
                *puts,
                f"  static volatile unsigned char answer[] = {{ {answer} }}; {self.result.text} r;",
                "  for (unsigned i = 0; i < sizeof(r); i++) ((char *)&r)[i] = answer[i];",
                "  return r;",
                "}",
                f"void call_{self.name}(void)",
                "{",
                *values,
                f"  {self.result.text} r = {self.name}({passed});",
                f"  PUT({WORD * MOST_SLOTS}, r);",
                "}",
            ]
        )

    def slots(self) -> list[int]:
        """What programs see of the arguments."""
        return [
            word for type, data in zip(self.arguments, self.given, strict=True) for word in seen(type, data)
        ]


def seen(type: Type, data: bytes) -> list[int]:
    """A value as 64-bit words: numbers extended, structures cut into words."""
    if type.sort == "signed":
        return [int.from_bytes(data, "little", signed=True) % (1 << 64)]
    words = range(0, len(data), WORD)
    return [int.from_bytes(data[start : start + WORD], "little") for start in words]


def draw(random_: random.Random, number: int) -> Case:
    """A function whose arguments fill at most 12 slots."""
    arguments: list[Type] = []
    left = random_.randint(0, MOST_SLOTS)
    while True:
        type = random_.choice(TYPES)
        left -= -(-type.size // WORD)
        if left < 0:
            break
        arguments.append(type)
    result = random_.choice(NUMBERS)
    given = tuple(random_.randbytes(type.size) for type in arguments)
    return Case(f"f{number}", tuple(arguments), result, given, random_.randbytes(result.size))


@pytest.fixture(scope="module")
def tracers() -> Iterator[Runtime]:
    with bpfc.load(OBJECTS / "tracers.o").start() as runtime:
        yield runtime


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])
def test_arguments_and_results_pass_through_hooks(tmp_path: Path, tracers: Runtime, compiler: str) -> None:
    drawn = random.Random(f"{SEED} {compiler}")
    cases = [draw(drawn, number) for number in range(FUNCTIONS)]
    structs = "\n".join(f"struct {name} {{ {members} }};" for name, members in STRUCTS.items())
    text = "\n".join([structs, HEAD, *(case.source() for case in cases)])
    lib = build_text(
        tmp_path, "prototypes", text, compiler, "-fpatchable-function-entry=16", "-falign-functions=16"
    )
    got = (ctypes.c_uint64 * 64).in_dll(lib, "got")
    for case in cases:
        target = bpfc.native(lib, case.name)
        call = getattr(lib, f"call_{case.name}")
        for program, how in (("all_at_entry", "fentry"), ("all_slots", "fexit"), (None, "")):
            ctypes.memset(got, 0, ctypes.sizeof(got))
            if program is None:
                call()
            else:
                with getattr(tracers[program], f"attach_{how}")(target):
                    call()
            arrived = bytes(got)
            at = 0
            for type, data in zip(case.arguments, case.given, strict=True):
                assert arrived[at : at + type.size] == data, (case, how)
                at += -(-type.size // WORD) * WORD
            answered = arrived[WORD * MOST_SLOTS : WORD * MOST_SLOTS + case.result.size]
            assert answered == case.answer, (case, how)
            if program is None:
                continue
            slots = tracers.globals["slots"]
            assert isinstance(slots, list)
            wanted = case.slots()
            assert list(slots)[: len(wanted)] == wanted, (case, how)
            assert tracers.globals["count"] == len(wanted), (case, how)
            if how == "fexit":
                (word,) = seen(case.result, case.answer)
                assert tracers.globals["result"] == word, (case, how)
