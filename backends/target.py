"""What a target is: one frozen value with everything the linker and the patcher need to know of a machine.

Nothing here runs machine code or knows an address: encodings are functions from distances to bytes,
relocations are rows. A new target is one file in `backends/targets/` and one line in `backends/registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, final


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
    TABLE = "S + A - B, B being the base of the table of contents"
    GOT_TABLE = "G + A - B"
    PAIRED = "the low part of the value of the relocation at S"
    ADD = "what stands at P, plus S + A"
    SUBTRACT = "what stands at P, minus S + A"
    HINT = "nothing: a hint to linkers that shorten code"


ANY_32: Final = (-(2**32), 2**32)  # 32-bit addresses wrap: one is as far as the other way round
ANY_64: Final = (-(2**63), 2**64)
SIGNED_32: Final = (-(2**31), 2**31)


def put_32(_: int, value: int) -> int:
    """A word that is all value: its low 32 bits."""
    return value & 0xFFFFFFFF


def put_64(_: int, value: int) -> int:
    """A double word that is all value."""
    return value & 0xFFFFFFFFFFFFFFFF


def stored_32(word: int) -> int:
    """The addend that stands in a word, where relocations have none of their own."""
    return (word ^ 0x80000000) - 0x80000000


@final
@dataclass(frozen=True, slots=True)
class RelocationType:
    """How one kind of relocation is applied: `size` bytes at P become `encode(old word, value)`.

    The value must be in [`low`, `high`); `relax` may rewrite an access through the global offset table into a
    direct one. Where objects keep addends in the words to relocate, `addend` reads them.
    """

    base: Base
    size: int
    low: int
    high: int
    encode: Callable[[int, int], int]
    relax: Relaxation | None = None
    addend: Callable[[int], int] | None = None


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
    """A branch to anywhere: `code`, which loads the 64-bit literal at `literal` (8-byte aligned) and jumps to it.

    `sets_up`: functions of other images are only entered through one, near or not, because it sets what they
    expect; the instruction behind the call, `restore[0]`, then becomes `restore[1]`.
    """

    code: bytes
    literal: int
    sets_up: bool = False
    restore: tuple[bytes, bytes] = (b"", b"")

    @property
    def size(self) -> int:
        return self.literal + 8


@final
@dataclass(frozen=True, slots=True)
class Hooking:
    """Where functions need more than a jump to be left and entered by code of other images, because a register has
    what belongs to an image.

    `veneer` is what entry sites jump to instead of the plain one. `size` bytes `body(to the table base, to the body)`,
    given distances from their first byte, stand for the body of a function.
    """

    veneer: Veneer
    size: int
    body: Callable[[int, int], bytes]


@final
@dataclass(frozen=True, slots=True)
class FarBranch:
    """A static branch further than a site's jump reaches: `prefix(distance)` stands before the site for good, and `jump` uses
    what it computes, in a register that no other code of ours uses. Distances are from the site, in [`low`, `high`).

    LLVM leaves `region` bytes for both in programs so large that some branch may want them.
    """

    region: int
    prefix: Callable[[int], bytes]
    jump: Callable[[int], bytes]
    low: int
    high: int


@final
@dataclass(frozen=True, slots=True)
class Patching:
    """How an instruction is changed while threads run through it: one aligned store of `unit` bytes.

    A patch site is `length` bytes: `nop(distance)` or `jump(distance)`, for a distance from its first
    byte that is in [`near_low`, `near_high`). The two differ only inside the naturally aligned word of
    `unit` bytes that holds the byte at `unit_offset` of the site. For a static branch LLVM leaves
    `region` bytes of NOPs, in which a site can always be placed so; `fill(n)` is n bytes that do
    nothing, for the rest. `entry` is what stands before a patchable function. `canary` are two
    functions, returning 1 and 2, that one such store apart.
    """

    length: int
    unit: int
    unit_offset: int
    region: int
    nop: Callable[[int], bytes]
    jump: Callable[[int], bytes]
    fill: Callable[[int], bytes]
    near_low: int
    near_high: int
    entry: bytes
    canary: tuple[bytes, bytes]
    needs_cache_flush: bool
    sleds: Sleds
    far: FarBranch | None = None

    def is_near(self, distance: int) -> bool:
        """Whether a site's jump can span `distance` bytes."""
        return self.near_low <= distance < self.near_high

    def branch_forms(self, distance: int, before: bytes) -> tuple[bytes, bytes] | None:
        """A static branch's NOP and its jump over `distance` bytes, given the code before the site; None out of reach."""
        if self.is_near(distance):
            return self.nop(distance), self.jump(distance)
        far = self.far
        if far is None or not far.low <= distance < far.high or not before.endswith(far.prefix(distance)):
            return None
        return self.nop(distance), far.jump(distance)

    def fits(self, offset: int) -> bool:
        """Whether one aligned store can change a site at this offset from an aligned place."""
        return self.unit < self.length or offset % self.unit + self.length <= self.unit


@final
@dataclass(frozen=True, slots=True)
class Sleds:
    """The NOPs that C compilers leave at entries of functions, for a jump to be put there later.

    `lengths(code)` are those of the NOPs that `code` starts with; before them one of `pads` may stand. Threads may
    be between two NOPs when a jump replaces both: `quiet(address)` yields distances, best first, of jumps there that
    are entered in their middle as if they were NOPs, and lead to multiples of 8.
    """

    lengths: Callable[[bytes], tuple[int, ...]]
    quiet: Callable[[int], Iterator[int]]
    pads: tuple[bytes, ...] = ()


def uniform_sleds(nop: bytes, reach: int, pads: tuple[bytes, ...] = ()) -> Sleds:
    """The sleds of a machine with one NOP, as long as a patch site: no jump replaces two."""

    def lengths(code: bytes) -> tuple[int, ...]:
        count = 0
        while code[count * len(nop) :].startswith(nop):
            count += 1
        return (len(nop),) * count

    def quiet(address: int) -> Iterator[int]:
        step = min(reach // 64, 1 << 24)
        for place in range(step, reach - step, step):
            for distance in (place, -place):
                yield distance - (address + distance) % 8

    return Sleds(lengths, quiet, pads)


def flag_words(order: Literal["little", "big"]) -> Patching:
    """Static branches as words in memory, 0 or 1, that code tests: for machines that LLVM leaves no NOPs on."""

    def word(value: int) -> Callable[[int], bytes]:
        return lambda _: value.to_bytes(4, order)

    return Patching(
        length=4,
        unit=4,
        unit_offset=0,
        region=0,
        nop=word(0),
        jump=word(1),
        fill=bytes,
        near_low=-1,
        near_high=1,
        entry=b"",
        canary=(b"", b""),
        needs_cache_flush=False,
        sleds=uniform_sleds(b"", 0),
    )


class Pairs(Enum):
    """How a structure of two words travels that has no floating-point members and none aligned to more than a word."""

    UNKNOWN = "in ways that depend on more than its size"
    TOGETHER = "in two registers, or as a whole in memory when fewer are left"
    WORDS = "as two words, wherever an array of them goes"
    REFERENCE = "as a pointer to a copy"


@final
@dataclass(frozen=True, slots=True)
class Calling:
    """How functions are called, in the names of the registers: what an emulator needs to call one and be called.

    `link` holds the return address; where it is empty, it is on the stack. The caller leaves `save_area` bytes
    at the stack pointer to the callee; further arguments follow them. `ret` is the instruction that returns.
    LLVM makes a jump of a tail call with up to `tail_words` integer arguments.
    On 32-bit machines `result_high` has the upper half of a 64-bit result; with `aligns_pairs` 64-bit arguments start at
    even registers and multiples of 8.
    """

    arguments: tuple[str, ...]
    result: str
    stack: str
    link: str
    save_area: int
    ret: bytes
    tail_words: int = 0
    pairs: Pairs = Pairs.UNKNOWN
    result_high: str = ""
    aligns_pairs: bool = False


@final
@dataclass(frozen=True, slots=True)
class Emulation:
    """How Unicorn calls the machine: architecture, mode, the prefix of its registers' names, registers to set.

    `thread` are the registers that hold the thread pointer, each as many bits as `thread_bits`, high part first; or it is
    the base of the segment that the register `segment` selects.
    """

    architecture: str
    mode: str
    prefix: str
    thread: tuple[str, ...]
    thread_bits: int = 64
    state: tuple[tuple[str, int], ...] = ()
    segment: str = ""


@final
@dataclass(frozen=True, slots=True)
class UserMode:
    """How qemu-user runs the machine: the program's name, two functions in code, numbers of system calls.

    `syscall(number, six arguments)`; `enter(function, six arguments, stack pointer)` calls on another stack.
    """

    program: str
    syscall: bytes
    enter: bytes
    read: int
    write: int
    mmap: int
    munmap: int
    openat: int
    close: int
    exit: int
    flags: int = 0  # e_flags of its executables


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A machine, as far as code for it is emitted, linked and patched.

    `machine` is e_machine of its ELF objects; `abi`, `cpu` and `features` are LLVM's words for what to emit
    when it is not the host, `disassembly` capstone's for how to read it. `poison` fills code memory that must
    not run. `emulation` is None where Unicorn has no such machine, `user_mode` where qemu-user is not needed.
    `table_base` names the base of the table of contents, and `hooking` is for machines that have one. `numbers`
    gives relocations their official names, `relocations` says how each is applied. `most_programs` is how many may be
    attached to one function (BPF_MAX_TRAMP_LINKS in linux/bpf.h). `word` is the size of a pointer in bytes. `flags` is how
    static branches are switched where they are words in memory that code tests. `can_hurry`: LLVM's quick way to allocate
    registers finds enough of them. `tools` begins the names of its GNU tools where the triple does not say it.
    `llvm_options` are said to LLVM, once and for the whole process, before it compiles for this machine.
    """

    name: str
    triple: str
    machine: int
    byte_order: Literal["little", "big"]
    cpu: str
    features: str
    abi: str
    disassembly: tuple[str, str]
    patching: Patching
    veneer: Veneer
    poison: bytes
    calling: Calling
    emulation: Emulation | None
    numbers: Mapping[int, str] = field(repr=False)
    relocations: Mapping[str, RelocationType] = field(repr=False)
    table_base: str = ""
    hooking: Hooking | None = None
    user_mode: UserMode | None = None
    most_programs: int = 38
    word: int = 8
    flags: Patching | None = None
    can_hurry: bool = True
    tools: str = ""
    llvm_options: tuple[str, ...] = ()

    @property
    def branches(self) -> Patching:
        """How static branches are switched."""
        return self.flags or self.patching

    @property
    def entry_veneer(self) -> Veneer:
        """What the entry sites of functions jump to."""
        return self.hooking.veneer if self.hooking is not None else self.veneer

    @property
    def prologue(self) -> str:
        """LLVM text that puts the entry NOP before a function: `prologue <{ i8, ... }> <{ i8 15, ... }>`."""
        entry = self.patching.entry
        types = ", ".join("i8" for _ in entry)
        values = ", ".join(f"i8 {byte}" for byte in entry)
        return f"prologue <{{ {types} }}> <{{ {values} }}>"
