"""What a target is: one frozen value with everything the linker and the patcher need to know of a machine.

Nothing here runs machine code or knows an address: encodings are functions from distances to bytes,
relocations are rows. A new target is one file in `backends/targets/` and one line in `backends/registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, final


class Base(Enum):
    """What a relocation's value is made of, in the letters of the psABI documents.

    S symbol, A addend, P place, G the symbol's global-offset-table entry; `page` clears the low 12 bits.
    """

    ABSOLUTE = "S + A"
    RELATIVE = "S + A - P"
    BRANCH = "S + A - P, where S may be a veneer"
    GOT = "G + A - P"
    PAGE = "page(S + A) - page(P)"
    GOT_PAGE = "page(G + A) - page(P)"
    GOT_LOW = "(G + A) mod 4096"
    PAIRED = "the low part of the value of the relocation at S"
    ADD = "what stands at P, plus S + A"
    SUBTRACT = "what stands at P, minus S + A"
    HINT = "nothing: a hint to linkers that shorten code"


@final
@dataclass(frozen=True, slots=True)
class RelocationType:
    """How one kind of relocation is applied: `size` bytes at P become `encode(old word, value)`.

    The value must be in [`low`, `high`); `relax` may rewrite an access through the global offset table into a
    direct one.
    """

    base: Base
    size: int
    low: int
    high: int
    encode: Callable[[int, int], int]
    relax: Relaxation | None = None


@final
@dataclass(frozen=True, slots=True)
class Relaxation:
    """An access through the global offset table that has a direct form: `before` bytes ahead of P and `size`
    at P.

    `direct(emitted bytes, S + A - P)` is the direct form, or None when these bytes have none. Both forms have
    the same length and end at the same place, so a return address is right for both.
    """

    before: int
    size: int
    direct: Callable[[bytes, int], bytes | None]
    is_call: Callable[[bytes], bool]


@final
@dataclass(frozen=True, slots=True)
class Veneer:
    """A branch to anywhere: `code`, which loads the 64-bit literal at `literal` (8-byte aligned) and jumps to
    it.
    """

    code: bytes
    literal: int

    @property
    def size(self) -> int:
        return self.literal + 8


@final
@dataclass(frozen=True, slots=True)
class StaticSite:
    """How a static branch is laid out in the NOPs that a patchpoint leaves.

    LLVM is asked for `region` bytes; the patched instruction is `length` bytes and lies inside one naturally
    aligned word of `unit` bytes, the store that changes it. `fill(n)` gives n bytes that do nothing, for the
    rest of the region.
    """

    region: int
    length: int
    unit: int
    fill: Callable[[int], bytes]


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A machine, as far as code for it is emitted, linked and patched.

    `nop`, `jump(distance)` and `call(distance)` are the forms of a patched instruction; distances count from
    its first byte and are in [`near_low`, `near_high`), else the forms do not exist. `entry` is the NOP put
    before every patchable function. `poison` fills code memory that must not run. `needs_cache_flush`: stores
    to code need a cache operation.
    """

    name: str
    triple: str
    machine: int  # e_machine of its ELF objects
    byte_order: Literal["little", "big"]
    cpu: str
    features: str
    abi: str
    nop: bytes
    jump: Callable[[int], bytes]
    call: Callable[[int], bytes]
    near_low: int
    near_high: int
    entry: bytes
    static_site: StaticSite
    veneer: Veneer
    poison: bytes
    needs_cache_flush: bool
    relocations: Mapping[int, str] = field(repr=False)  # official names by number
    types: Mapping[str, RelocationType] = field(repr=False)  # how to apply them, by official name
    function_alignment: int = 16

    def is_near(self, distance: int) -> bool:
        """Whether a branch can span `distance` bytes, counted from its first byte."""
        return self.near_low <= distance < self.near_high

    @property
    def prologue(self) -> str:
        """The LLVM text that puts the entry slot before a function: `prologue <{ i8, ... }> <{ i8 15, ...
        }>`.
        """
        types = ", ".join("i8" for _ in self.entry)
        values = ", ".join(f"i8 {byte}" for byte in self.entry)
        return f"prologue <{{ {types} }}> <{{ {values} }}>"
