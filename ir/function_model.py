"""What a function takes and returns, as far as hooks care: how its arguments fill slots of 64 bits.

    int f(short a, struct { u64 x, y; } s, void *p)      slots   | a | s.x | s.y | p |      result: 4 bytes, signed

Models come from BTF (BPF functions) or from whoever knows a native function's prototype. A function without a
reliable prototype is taken as five u64 that returns a u64.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EINVAL
from typing import Final, final

from ir.btf import Btf
from ir.btf_types import Enum, Float, Function, Int, Linkage, Pointer, Prototype, Struct, Void
from ir.diagnostics import Diagnostic, RejectedError

MOST_ARGUMENTS: Final = 12
MOST_STRUCT: Final = 16
SLOT: Final = 8


@final
@dataclass(frozen=True, slots=True)
class Value:
    """An argument or a result of `size` bytes; 0 for void."""

    size: int
    is_signed: bool = False
    is_struct: bool = False
    is_float: bool = False

    @property
    def slots(self) -> int:
        """How many 64-bit slots it takes."""
        return max(1, -(-self.size // SLOT))


@final
@dataclass(frozen=True, slots=True)
class Model:
    """The arguments in order, and the result."""

    arguments: tuple[Value, ...]
    result: Value

    @property
    def slots(self) -> int:
        """How many slots the arguments take together."""
        return sum(argument.slots for argument in self.arguments)


U64: Final = Value(8)
UNKNOWN_MODEL: Final = Model((U64,) * 5, U64)


def check_model(name: str, model: Model, is_variadic: bool = False) -> Model:
    """`model`, when hooks can be made for it. Raises RejectedError (EINVAL): the table of 3.6 in the specification."""
    said = ""
    if is_variadic:
        said = "takes a variable number of arguments"
    elif len(model.arguments) > MOST_ARGUMENTS:
        said = f"has {len(model.arguments)} arguments, at most {MOST_ARGUMENTS} can be passed on"
    elif model.slots > MOST_ARGUMENTS:
        said = f"has arguments of {model.slots} slots, at most {MOST_ARGUMENTS} can be passed on"
    elif any(argument.size == 0 for argument in model.arguments):
        said = "has a parameter without a size"
    elif any(argument.size > MOST_STRUCT for argument in model.arguments):
        said = f"has an argument of more than {MOST_STRUCT} bytes"
    elif model.result.is_struct:
        said = "returns a struct"
    if said:
        raise RejectedError(
            [Diagnostic("bad-prototype", f"'{name}' can't be hooked: it {said}", errno=EINVAL)]
        )
    return model


def model_of(btf: Btf | None, function_id: int, name: str) -> Model:
    """The model of a BPF function by its BTF; without one, UNKNOWN_MODEL. Raises RejectedError (EINVAL)."""
    prototype = prototype_of(btf, function_id)
    if btf is None or prototype is None:
        return UNKNOWN_MODEL
    arguments = tuple(_value(btf, parameter.type_id) for parameter in prototype.parameters)
    model = Model(arguments, _value(btf, prototype.returns))
    return check_model(name, model, prototype.is_variadic)


def prototype_of(btf: Btf | None, function_id: int) -> Prototype | None:
    """The prototype of a FUNC; None when the type is no function."""
    function = btf.type(function_id) if btf is not None and function_id else None
    if btf is None or not isinstance(function, Function):
        return None
    prototype = btf.type(function.type_id)
    return prototype if isinstance(prototype, Prototype) else None


def points_to(btf: Btf, type_id: int) -> str:
    """The name of the structure that a type points to, '' for other types."""
    pointer = btf.type(btf.strip(type_id))
    pointed = btf.type(btf.strip(pointer.type_id)) if isinstance(pointer, Pointer) else None
    return pointed.name if isinstance(pointed, Struct) else ""


def is_global(btf: Btf, function_id: int) -> bool:
    """Whether BTF says that a function has global linkage."""
    function = btf.type(function_id)
    return isinstance(function, Function) and function.linkage is Linkage.GLOBAL


def _value(btf: Btf, type_id: int) -> Value:
    match btf.type(btf.strip(type_id)):
        case Int(size=size, is_signed=is_signed) | Enum(size=size, is_signed=is_signed):
            return Value(size, is_signed)
        case Pointer():
            return U64
        case Struct(size=size):
            return Value(size, is_struct=True)
        case Float(size=size):
            return Value(size, is_float=True)
        case Void():
            return Value(0)
        case _:
            return Value(0)
