"""What an eBPF object is once read: programs, maps and types, independent of any host.

An Object is deterministic and complete: subprograms are already appended to the programs that call them (as
libbpf does), every relocated word is named by a Reference, and nothing depends on addresses or on the
machine that reads it.
"""

from __future__ import annotations

import marshal
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, final

from ir.diagnostics import Diagnostic, Location, SourceLine
from ir.isa import Insn, Row, row_of, slot_numbers
from ir.kinds import AttachType, MapType, ProgramType

if TYPE_CHECKING:
    from ir.btf import Btf
    from ir.btf_ext import CoreRelocation


@final
@dataclass(frozen=True, slots=True)
class Symbol:
    """An ELF symbol: `section` '' when undefined, `offset` and `size` in bytes."""

    name: str
    section: str
    offset: int
    size: int
    is_global: bool
    is_function: bool
    is_weak: bool = False
    is_hidden: bool = False


@final
@dataclass(frozen=True, slots=True)
class Relocation:
    """An ELF relocation by its official name (R_BPF_64_64, ...), at byte `offset` of `section`.

    It stands for byte `target_offset` (the symbol's value and the addend) of section `target`, which is
    '' when the symbol is undefined.
    """

    section: str
    offset: int
    type: str
    symbol: str
    addend: int
    target: str = ""
    target_offset: int = 0


@final
@dataclass(frozen=True, slots=True)
class Extern:
    """A name that the object leaves to the loader, in `section` .kconfig or .ksyms ('' if unknown to BTF).

    `offset` is where its value lies in the .kconfig map.
    """

    name: str
    section: str
    is_weak: bool = False
    is_function: bool = False
    btf_id: int = 0
    offset: int = 0


_HASHED_AT_ONCE = 1 << 16
LOCKS = ("bpf_spin_lock", "bpf_res_spin_lock")
POISON_HELPER = 0xBAD2310
"""The helper that stands where control must not get: where a CO-RE relocation could not be resolved (libbpf:
195896080, "bad relo"), or before an instruction that reads a register that nobody wrote."""


class ReferenceKind(Enum):
    """What a relocated instruction refers to."""

    MAP = "map"  # wide load: the map itself
    MAP_VALUE = "map-value"  # wide load: byte `offset` of the one value of a global-data map
    FUNCTION = "function"  # wide load: address of the function starting at slot `offset` of this program
    KSYM = "ksym"  # wide load: a kernel variable
    KFUNC = "kfunc"  # call: a kernel function


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """What the instruction at a slot refers to, by name.

    `is_weak`: may stay unresolved (then it reads as 0). `btf_id`: the declared type of a kernel symbol,
    0 when it has none. `parameters`: how many a kernel function has by its type, None when that is not known.
    """

    kind: ReferenceKind
    name: str
    offset: int = 0
    is_weak: bool = False
    btf_id: int = 0
    parameters: int | None = None


@final
@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function of a program: `start` and `slots` count 8-byte slots, `btf_id` is 0 when it has no type.

    It came from byte `offset` of ELF section `section`, '' when from no object. `parameters` are those of its type: callers
    of a global function pass them all, for it may be replaced by one that reads more of them.
    """

    name: str
    start: int
    slots: int
    is_global: bool
    btf_id: int = 0
    section: str = ""
    offset: int = 0
    parameters: int = 0


FUNCTION_TOKENS = 0x6100_0000_0000_0000
"""Token of the first function that read-only data points at; the next one's is 8 more, and so on."""


@final
@dataclass(frozen=True, slots=True)
class FunctionWord:
    """A word at byte `offset` of a map's value that points at the function at byte `place` of `section`.

    Each program has its own copy of the function, so the word holds a `token`, the same for all of them.
    """

    offset: int
    token: int
    section: str
    place: int


@final
@dataclass(frozen=True, slots=True)
class FunctionTable:
    """Bytes [start, end) of a map's value, a variable of read-only data, some words of which point at functions."""

    start: int
    end: int
    words: tuple[FunctionWord, ...]


@final
@dataclass(frozen=True, slots=True)
class Map:
    """A map as the object declares it; sizes in bytes, `flags` the BPF_F_* bits.

    `initial` is the content of a global-data section (one value). `slots` names what fills a prog array
    or a map of maps at load, by index; for struct_ops, the program at each byte of the value. `inner`
    is the template of a map of maps. `is_read_only`: frozen before the program is compiled (.rodata,
    .kconfig). `offset` is where the map is declared in `section`. `relocated` are the words of `initial`
    (offset, size) that hold an address: what stands there before linking is not their value; `tables` has
    those of them that point at functions. `special` are the bytes (offset, size, kind) of a value that are no data:
    locks, timers, kernel pointers (ir/verify/fields.py).
    """

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    key_btf_id: int = 0
    value_btf_id: int = 0
    initial: bytes | None = None
    is_read_only: bool = False
    is_pinned: bool = False
    section: str = ""
    offset: int = 0
    inner: Map | None = None
    slots: tuple[tuple[int, str], ...] = ()
    extra: int = 0
    numa_node: int | None = None
    relocated: tuple[tuple[int, int], ...] = ()
    tables: tuple[FunctionTable, ...] = ()
    special: tuple[tuple[int, int, str], ...] = ()

    @property
    def lock(self) -> int | None:
        """Where the bpf_spin_lock of a value is, if it has one."""
        return next((offset for offset, _, kind in self.special if kind in LOCKS), None)


@final
@dataclass(frozen=True)
class Program:
    """An entry program with every subprogram it can reach appended, main first.

    `references`, `core` and `lines` are keyed by the slot of the instruction they are about.
    `poisoned` says why an instruction must not be reached: its CO-RE relocation could not be resolved.
    `tokens`: the slot of each function that it may find in read-only data and call, by token.
    """

    name: str
    section: str
    type: ProgramType
    insns: tuple[Insn, ...]
    functions: tuple[FunctionInfo, ...]
    attach_type: AttachType | None = None
    attach_target: str = ""
    is_sleepable: bool = False
    autoload: bool = True
    has_frags: bool = False
    references: Mapping[int, Reference] = field(default_factory=dict)
    core: Mapping[int, CoreRelocation] = field(default_factory=dict)
    lines: Mapping[int, SourceLine] = field(default_factory=dict)
    poisoned: Mapping[int, Diagnostic] = field(default_factory=dict)
    tokens: Mapping[int, int] = field(default_factory=dict)
    file: str = ""
    big_endian: bool = False

    @cached_property
    def starts(self) -> list[int]:
        """The slot of each instruction, and the number of slots at the end."""
        return slot_numbers(self.insns)

    @cached_property
    def rows(self) -> list[Row]:
        """The row of each instruction."""
        return [row_of(insn) for insn in self.insns]

    @cached_property
    def digest(self) -> bytes:
        """A digest of all that the program's native code depends on.

        Readers of objects ask for it once, so that finding code in a cache need not go through the instructions.
        """
        references, tokens = sorted(self.references.items()), sorted(self.tokens.items())
        said = (self.type.value, self.big_endian, self.functions, references, tokens)
        found = blake2b(repr(said).encode())
        for first in range(0, len(self.insns), _HASHED_AT_ONCE):
            opcodes, dsts, srcs, *rest = zip(*self.insns[first : first + _HASHED_AT_ONCE], strict=True)
            found.update(bytes(opcodes) + bytes(dsts) + bytes(srcs) + marshal.dumps(rest, 2))
        return found.digest()

    @cached_property
    def _line_slots(self) -> list[int]:
        return sorted(self.lines)

    @cached_property
    def _function_starts(self) -> list[int]:
        return [function.start for function in self.functions]

    def function_at(self, slot: int) -> FunctionInfo | None:
        """The function that slot `slot` is in, None when `functions` is empty."""
        number = bisect_right(self._function_starts, slot) - 1
        return self.functions[number] if number >= 0 else None

    def slot_of(self, section: str, offset: int) -> int | None:
        """The slot that byte `offset` of an ELF section became, None when it is not in this program."""
        for function in self.functions:
            if function.section == section and 0 <= offset - function.offset < 8 * function.slots:
                return function.start + (offset - function.offset) // 8
        return None

    def location(self, slot: int) -> Location:
        """Where slot `slot` is, with the C line that covers it when there is one."""
        function = self.function_at(slot)
        name, begin = (function.name, function.start) if function is not None else (self.name, 0)
        number = bisect_right(self._line_slots, slot) - 1
        source = None
        if number >= 0 and self._line_slots[number] >= begin:
            source = self.lines[self._line_slots[number]]
        return Location(file=self.file, section=self.section, function=name, insn=slot, source=source)


@final
@dataclass(frozen=True)
class Object:
    """Everything an eBPF object file says. `warnings` holds what was odd but usable.

    `relocations` are those of data: sections of maps, globals and static keys (those of code became
    references); `data` holds the bytes of such sections that are no map (.static_keys, *.static_branch,
    .struct_ops).
    """

    name: str
    programs: Mapping[str, Program]
    maps: Mapping[str, Map]
    license: str = ""
    big_endian: bool = False
    btf: Btf | None = None
    kernel_version: int = 0
    symbols: tuple[Symbol, ...] = ()
    externs: tuple[Extern, ...] = ()
    relocations: tuple[Relocation, ...] = ()
    data: Mapping[str, bytes] = field(default_factory=dict)
    warnings: tuple[Diagnostic, ...] = ()
