"""Bugs to plant: each makes one function of the compiler or the verifier wrong while it is planted, by wrapping the real one.

A campaign that does not find them proves nothing. `BPFC_PLANT=name` plants one in a campaign's shards.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, final
from unittest.mock import patch

from backends.text import Text
from bpfc.loaded import Loaded
from bpfc.testing import native
from ir import encoding, isa
from ir.isa import WIDE_OPCODE, Insn
from ir.passes import fold_constants, prune_branches
from ir.verify import access, facts
from ir.verify.scalar import Scalar, make
from ir.verify.state import State
from ir.verify.transfer import ScalarAlgebra
from runtime import relocate
from runtime.patch import Patcher

ENVIRONMENT: Final = "BPFC_PLANT"

Operation = Callable[..., Any]


@final
@dataclass(frozen=True, slots=True)
class Plant:
    """`plant` makes the bug until the stack closes; `oracle` is the one that is to find it."""

    name: str
    summary: str
    oracle: str
    plant: Callable[[ExitStack], None]


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug `name` is there meanwhile."""
    with ExitStack() as stack:
        PLANTS[name].plant(stack)
        yield


def _method(owner: Any, name: str, wrap: Callable[[Operation], Operation]) -> Callable[[ExitStack], None]:
    """Wrap an attribute of a class or module."""

    def plant(stack: ExitStack) -> None:
        stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))

    return plant


def _function(owner: Any, name: str, wrap: Callable[[Operation], Operation]) -> Callable[[ExitStack], None]:
    """Wrap a function of the module `owner` under that name in every module that imported it."""

    def plant(stack: ExitStack) -> None:
        real = getattr(owner, name)
        wrapped = wrap(real)
        for module in list(sys.modules.values()):
            if getattr(module, name, None) is real:
                stack.enter_context(patch.object(module, name, wrapped))

    return plant


def _decode(real: Operation) -> Operation:
    """The upper half of a wide immediate is taken for a signed continuation of the lower."""

    def decode(*arguments: Any, **named: Any) -> tuple[Insn, ...]:
        found = real(*arguments, **named)
        return tuple(
            insn._replace(imm=insn.imm | (insn.imm & 0x8000_0000) << 1)
            if insn.opcode == WIDE_OPCODE and not insn.src
            else insn
            for insn in found
        )

    return decode


def _fold(real: Operation) -> Operation:
    """32-bit results are extended by their sign."""

    def compute(row: Any, algebra: Any, x: Any, y: Any) -> Any:
        result = real(row, algebra, x, y)
        return result | 0xFFFF_FFFF << 32 if row.bits == 32 and result >> 31 else result

    return compute


def _prune(real: Operation) -> Operation:
    """Signed comparisons of constants are decided as unsigned ones."""

    def compute(row: Any, algebra: Any, x: Any, y: Any) -> Any:
        unsigned = isa.ROW_BY_NAME.get(row.name.replace("js", "j", 1))
        return real(unsigned if row.name.startswith("js") and unsigned else row, algebra, x, y)

    return compute


def _text_div(real: Operation) -> Operation:
    """Unsigned 64-bit division is emitted as signed."""
    return lambda self, bits, x, y: self.sdiv(bits, x, y) if bits == 64 else real(self, bits, x, y)


def _text_arsh(real: Operation) -> Operation:
    """Arithmetic shifts of 32 bits are emitted as logical ones."""
    return lambda self, bits, x, y: self.lshr(bits, x, y) if bits == 32 else real(self, bits, x, y)


def _text_movsx(real: Operation) -> Operation:
    """Bytes are extended without their sign."""
    return lambda self, bits, x, to: self.zext(bits, x, to) if bits == 8 else real(self, bits, x, to)


def _bounded(
    change: Callable[[int, Scalar, tuple[Any, ...]], tuple[int, int]],
) -> Callable[[Operation], Operation]:
    """A transfer function whose result has the unsigned bounds that `change` says."""

    def wrap(real: Operation) -> Operation:
        def transfer(self: Any, bits: int, *operands: Any) -> Scalar:
            result: Scalar = real(self, bits, *operands)
            if not result.mask:
                return result
            umin, umax = change(bits, result, operands)
            if umin <= result.umin and umax >= result.umax:
                return result
            top = 1 << bits
            # The mistake is in one bound; what else is known is rebuilt from the bits.
            made = make(bits, result.value, result.mask, umin, umax, -(top >> 1), (top >> 1) - 1)
            return made or result

        return transfer

    return wrap


def _and(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(min(operands[0].umax, operands[1].umax) - 1, result.umin)


def _or(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(operands[0].umax, operands[1].umax)


def _mul(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, min(operands[0].umax * operands[1].umax, (1 << bits) - 1) >> 1


def _shl(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, result.umax >> 1


def _add(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return min(operands[0].umin + operands[1].umin, (1 << bits) - 1), result.umax


def _sub(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(operands[0].umax - operands[1].umin, 0)


def _xor(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(operands[0].umax, operands[1].umax)


def _lshr(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(result.umax - 1, result.umin)


def _udiv(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(result.umax - 1, result.umin)


def _urem(bits: int, result: Scalar, operands: tuple[Any, ...]) -> tuple[int, int]:
    return result.umin, max(operands[1].umax - 2, 0)


def _packet_bounds(stack: ExitStack) -> None:
    """A byte more than was compared with the end is thought to be there."""

    def wrap(real: Operation) -> Operation:
        def pointer_room(state: Any, pointer: Any) -> int | None:
            found: int | None = real(state, pointer)
            return found if found is None else found + 1

        return pointer_room

    _method(access, "pointer_room", wrap)(stack)
    _method(facts, "pointer_room", wrap)(stack)


def _spill(real: Operation) -> Operation:
    """Stores of less than 8 bytes leave what is known of a slot."""

    def kill_stack(self: State, low: int, high: int) -> None:
        if high - low >= 8:
            real(self, low, high)

    return kill_stack


def _poke(real: Operation) -> Operation:
    """Sites that are to be jumps are left as they are when others are to be NOPs, or when they are the only ones."""

    def poke(self: Any, nops: Any = (), jumps: Any = ()) -> int:
        changed: int = real(self, nops, jumps[1:])
        return changed

    return poke


def _relocation(real: Operation) -> Operation:
    """What is found through the table of addresses is the word after it."""

    def apply(self: Any, relocation: Any) -> None:
        is_table = "GOT" in relocation.type
        real(self, relocation._replace(addend=relocation.addend + 8) if is_table else relocation)

    return apply


def _crash(real: Operation) -> Operation:
    """Now and then native code touches memory that is not there."""

    def run_once(runtime: Any, data: bytes) -> Any:
        if len(data) == 14 and data.startswith(b"\xff\xff"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(runtime, data)

    return run_once


def _map_resize(real: Operation) -> Operation:
    """One element too many."""
    return lambda self, name, max_entries: real(self, name, max_entries + 1)


_ALL: Final = (
    Plant("decode", "wide immediates with a wrong bit", "native", _function(encoding, "decode", _decode)),
    Plant("fold", "32-bit constants extended by sign", "passes", _method(fold_constants, "compute", _fold)),
    Plant("prune", "signed tests decided unsigned", "passes", _method(prune_branches, "compute", _prune)),
    Plant("lower-div", "division emitted as signed", "native", _method(Text, "udiv", _text_div)),
    Plant("lower-arsh", "32-bit arsh emitted as rsh", "native", _method(Text, "ashr", _text_arsh)),
    Plant("lower-movsx", "bytes extended by zeros", "native", _method(Text, "sext", _text_movsx)),
    Plant("packet-bounds", "one byte too many proved", "claims", _packet_bounds),
    Plant("spill", "small stores leave slots known", "claims", _method(State, "kill_stack", _spill)),
    Plant("poke", "a jump is not written", "patching", _method(Patcher, "poke", _poke)),
    Plant("relocation", "addends are wrong", "native", _method(relocate._Relocation, "_apply", _relocation)),
    Plant("crash", "native code crashes", "native", _method(native, "run_once", _crash)),
    Plant("map-resize", "a map is larger than it was told", "native", _method(Loaded, "resize", _map_resize)),
    *(
        Plant(
            f"transfer-{name.rstrip('_')}",
            f"{name.rstrip('_')}: a wrong bound",
            "claims",
            _method(ScalarAlgebra, name, _bounded(change)),
        )
        for name, change in (
            ("add", _add),
            ("sub", _sub),
            ("mul", _mul),
            ("and_", _and),
            ("or_", _or),
            ("xor", _xor),
            ("shl", _shl),
            ("lshr", _lshr),
            ("udiv", _udiv),
            ("urem", _urem),
        )
    ),
)
PLANTS: Final[Mapping[str, Plant]] = {plant.name: plant for plant in _ALL}
