"""Functions: called, called back by a helper, called by address; and one of the kernel's."""

from __future__ import annotations

from typing import Final

from bpfc.testing.author import STACK_SIZE, Author
from bpfc.testing.shapes.numbers import alu
from ir.isa import R1, R2, R3, R4, R5, R6, R7, R8, R9, R10
from ir.object import Reference, ReferenceKind

LOOP: Final = 181
KFUNC: Final = "bpfc_campaign_mix"
KSYM: Final = "bpfc_campaign_variable"


def call(author: Author, depth: int) -> None:
    """Call the subprogram with a pointer into this frame and a number."""
    if not author.in_main:
        alu(author, depth)
        return
    random = author.random
    author.put("mov64 reg", R1, R6)
    if author.is_raw:
        author.put("mov64 reg", R2, R7)
    else:
        author.put("mov64 reg", R2, random.choice((R8, R9)))
    _point_to_word(author, R3)
    author.put("mov64 reg", R4, random.choice((R8, R9)))
    author.aim("call subprogram", "callee")
    author.fill()


def loop_helper(author: Author, depth: int) -> None:
    """Have a helper call the callback a few times, with a word of this frame."""
    random = author.random
    if random.random() < 0.5:
        author.put("mov64 imm", R1, imm=random.choice((0, 1, 2, 5, 8)))
    else:
        author.put("mov64 reg", R1, random.choice((R8, R9)))
        author.put("and64 imm", R1, imm=random.choice((3, 7)))
    author.aim("lddw func", "callback", R2)
    _point_to_word(author, R3)
    author.put("mov64 imm", R4, imm=int(random.random() < 0.05))
    author.put("call helper", imm=LOOP)
    author.fill()


def indirect(author: Author, depth: int) -> None:
    """Call the callback by its address."""
    author.put("mov64 reg", R1, author.random.choice((R8, R9)))
    _point_to_word(author, R2)
    author.aim("lddw func", "callback", R5)
    author.put("callx", R5)
    author.fill()


def kernel_function(author: Author, depth: int) -> None:
    """Call a function of the kernel's with two numbers."""
    for register in (R1, R2):
        author.put("mov64 reg", register, author.random.choice((R8, R9)))
    author.references[author.slots] = Reference(ReferenceKind.KFUNC, KFUNC)
    author.put("call kfunc")
    author.fill()


def kernel_variable(author: Author, depth: int) -> None:
    """The address of a variable of the kernel's, as a number."""
    author.references[author.slots] = Reference(ReferenceKind.KSYM, KSYM)
    author.put("lddw btf_id", author.number())


def _point_to_word(author: Author, register: int) -> None:
    author.put("mov64 reg", register, R10)
    author.put("add64 imm", register, imm=-8 * author.random.randint(1, STACK_SIZE // 8))
