"""Native functions that can be hooked: those called through a pointer in memory that we may change.

ctypes function     the pointer that its object holds: calls through this object are seen
any pointer         a table of functions, a global offset table's entry: calls through this pointer

Whoever calls a function by another pointer calls it unhooked.
"""

from __future__ import annotations

import ctypes
from _ctypes import CFuncPtr
from collections.abc import Sequence
from errno import EINVAL
from functools import cached_property
from typing import Final, final

from ir.diagnostics import Diagnostic, RejectedError
from ir.function_model import UNKNOWN_MODEL, Model, Value, check_model
from runtime.hook import Hook
from runtime.memory import CodeBlock
from runtime.space import Space, host_space
from runtime.words import word_type

_WORD: Final = 8


@final
class PointerEntry:
    """64-bit pointers to one function; aiming one elsewhere is one aligned store.

        pointer ──► veneer: jmp *literal ──► image          a caller may keep what it loaded for long

    So pointers only ever lead to the function or to the veneer, which stays; what is hooked stands in its literal.
    """

    def __init__(self, addresses: Sequence[int], owner: object, space: Space) -> None:
        self._space = space
        self._type = word_type(space.target.byte_order)
        self.look(addresses, owner)

    def look(self, addresses: Sequence[int], owner: object) -> None:
        """Take the function that the pointers lead to now, when nothing is hooked, for the one to hook."""
        for address in addresses:
            if address % _WORD:
                said = f"a pointer at {address:#x} is not aligned, so it can't be changed while it is used"
                raise RejectedError([Diagnostic("unaligned-pointer", said, errno=EINVAL)])
        self._owner = owner  # keeps the memory of a ctypes object alive
        # Safe because the caller says that pointers are there, and `owner` keeps them there.
        self._words = [self._type.from_address(address) for address in addresses]
        self.body = self._words[0].value

    def arm(self, target: int, *, is_direct: bool = False) -> None:
        """Send calls through the pointers to `target`, through the veneer."""
        block, literal = self._veneer
        literal.value = target
        for word in self._words:
            word.value = block.address

    def disarm(self) -> None:
        """Send them to the function again."""
        self._veneer[1].value = self.body
        for word in self._words:
            word.value = self.body

    @cached_property
    def _veneer(self) -> tuple[CodeBlock, ctypes.c_uint64]:
        veneer = self._space.target.veneer
        block = self._space.pool.allocate_code(veneer.size)
        block.write(0, veneer.code)
        # Safe because the block is never closed, and its writable alias stays as long.
        literal = self._type.from_address(block.alias + veneer.literal)
        self._space.patcher.publisher.publish([block])
        return block, literal


@final
class NativeFunction:
    """A function of this process that programs can be attached to. `may_override`: fmod_ret may replace its result."""

    def __init__(
        self, name: str, model: Model, hook: Hook, may_override: bool = False, address: int | None = None
    ) -> None:
        self.name, self.may_override, self.hook = name, may_override, hook
        self.model = check_model(name, model)
        self.address = hook.entry.body if address is None else address


def function_of(thing: object, may_override: bool = False) -> NativeFunction:
    """The native function that a ctypes function object calls, with the prototype that it declares.

    Without `argtypes` it has five u64. Raises RejectedError (EINVAL) for anything else.
    """
    if not isinstance(thing, CFuncPtr):
        said = f"programs are attached to running programs and ctypes functions, not to {thing!r}"
        raise RejectedError([Diagnostic("not-a-function", said, errno=EINVAL)])
    name = str(getattr(thing, "__name__", "function"))
    declared = thing.argtypes
    model = UNKNOWN_MODEL
    if declared is not None:
        model = Model(tuple(_value(name, kind) for kind in declared), _value(name, thing.restype))
    hook = hook_at(name, (ctypes.addressof(thing),), thing)
    return NativeFunction(name, model, hook, may_override)


def function_at_pointer(
    name: str,
    pointer: int,
    model: Model = UNKNOWN_MODEL,
    may_override: bool = False,
    space: Space | None = None,
) -> NativeFunction:
    """The function that the 64-bit pointer at address `pointer` names; the pointer must stay there.

    `space` is where it runs: in this process, if not said.
    """
    return NativeFunction(name, model, hook_at(name, (pointer,), None, space), may_override)


def model_of_prototype(name: str, prototype: object) -> Model:
    """The model of a ctypes function type, `ctypes.CFUNCTYPE(result, *arguments)`. RejectedError (EINVAL)."""
    if not isinstance(prototype, type) or not issubclass(prototype, CFuncPtr):
        said = f"wanted a prototype for '{name}' that ctypes.CFUNCTYPE makes, not {prototype!r}"
        raise RejectedError([Diagnostic("bad-prototype", said, errno=EINVAL)])
    arguments = prototype._argtypes_  # type: ignore[attr-defined]  # what CFUNCTYPE stores
    result = prototype._restype_  # type: ignore[attr-defined]  # as above
    return Model(tuple(_value(name, kind) for kind in arguments), _value(name, result))


def is_hooked(pointer: int) -> bool:
    """Whether programs are attached to the pointer at an address."""
    found = host_space().pointers.get(pointer)
    return found is not None and not found[0].is_idle


def hook_at(name: str, pointers: Sequence[int], owner: object, space: Space | None = None) -> Hook:
    """The hook of the pointers at these addresses, which `owner` keeps there."""
    space = space or host_space()
    hook, entry = space.pointers.get(pointers[0], (None, None))
    if hook is None or entry is None:
        entry = PointerEntry(pointers, owner, space)
        hook = Hook(name, entry, space)
        space.pointers[pointers[0]] = hook, entry
    elif hook.is_idle:
        entry.look(pointers, owner)
        hook.name = name
    return hook


def _value(function: str, kind: object) -> Value:
    if kind is None:
        return Value(0)
    if not isinstance(kind, type) or not issubclass(
        kind, ctypes._SimpleCData | ctypes._Pointer | CFuncPtr | ctypes.Structure | ctypes.Union
    ):
        said = f"argument type {kind!r} of '{function}' says no layout"
        raise RejectedError([Diagnostic("bad-prototype", said, errno=EINVAL)])
    size = ctypes.sizeof(kind)
    if issubclass(kind, ctypes.Structure | ctypes.Union):
        if _has_floats(kind):
            said = f"'{function}' takes a struct with floating-point members by value"
            raise RejectedError([Diagnostic("bad-prototype", said, errno=EINVAL)])
        return Value(size, is_struct=True)
    if issubclass(kind, ctypes.c_longdouble):
        said = f"'{function}' passes a long double, which travels in registers of its own"
        raise RejectedError([Diagnostic("bad-prototype", said, errno=EINVAL)])
    if issubclass(kind, _FLOATS):
        return Value(size, is_float=True)
    return Value(size, is_signed=issubclass(kind, _SIGNED))


def _has_floats(kind: type) -> bool:
    """Whether a ctypes type is a floating-point number, or has one in it."""
    if issubclass(kind, ctypes.Array):
        item: type = kind._type_  # type: ignore[assignment]  # typeshed has the type of an array of any
        return _has_floats(item)
    if issubclass(kind, ctypes.Structure | ctypes.Union):
        return any(_has_floats(field[1]) for field in getattr(kind, "_fields_", ()))
    return issubclass(kind, (*_FLOATS, ctypes.c_longdouble))


_FLOATS: Final = (ctypes.c_float, ctypes.c_double)
_SIGNED: Final = (ctypes.c_byte, ctypes.c_short, ctypes.c_int, ctypes.c_long, ctypes.c_longlong)
