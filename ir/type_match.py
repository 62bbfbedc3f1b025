"""Whether one function may stand for another by their types, as btf_check_type_match of kernel/bpf/btf.c says.

long g(struct xdp_md *, int)    matches    int h(struct xdp_md *, int)      names may differ, and sizes of results
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EFAULT, EINVAL
from typing import Final, TypeGuard, final

from ir.btf import Btf
from ir.btf_c import c_declaration
from ir.btf_types import Enum, Function, Int, Pointer, Prototype, Struct, Type, Void
from ir.diagnostics import Diagnostic, RejectedError, Severity
from ir.function_model import is_global, prototype_of

_NAMES: Final = {
    Int: "an integer",
    Enum: "an enum",
    Pointer: "a pointer",
    Struct: "a struct",
    Void: "nothing",
}


@final
@dataclass(frozen=True, slots=True)
class Match:
    """What is odd but allowed, and the narrower of two results that differ: (bytes, signed)."""

    warnings: tuple[Diagnostic, ...] = ()
    result: tuple[int, bool] = (8, False)


def match_functions(target: tuple[Btf, int], extension: tuple[Btf, int], context: str = "") -> Match:
    """How `extension` replaces `target`, each (BTF, id of the function). `context` is a struct with fields of its own rules.

    Raises RejectedError: EINVAL when they do not match, EFAULT when a function has no prototype.
    """
    (target_btf, target_id), (btf, id) = target, extension
    name, target_name = btf.name(id), target_btf.name(target_id)
    wanted, given = prototype_of(target_btf, target_id), prototype_of(btf, id)
    if wanted is None or given is None:
        nobody = target_name if wanted is None else name
        raise _refused(
            "bad-function-type", f"'{nobody}' has no prototype in its BTF", EFAULT, "compile with -g"
        )
    for side, number, called in ((target_btf, target_id, target_name), (btf, id, name)):
        if not is_global(side, number):
            said = f"'{called}' is static; only global functions replace each other"
            raise _mismatch(name, target_name, said, "define it without `static`")
    note = f"wanted: {c_declaration(target_btf, _prototype_id(target_btf, target_id), name)}"
    if len(wanted.parameters) != len(given.parameters):
        counts = f"{len(given.parameters)} parameters, wanted {len(wanted.parameters)}"
        raise _mismatch(name, target_name, counts, note)
    for number in range(len(wanted.parameters)):
        said = _unmatchable(target_btf, wanted, number)
        if said:
            remedy = f"let '{target_name}' take numbers and pointers to structs only"
            raise _mismatch(name, target_name, f"its parameter {number + 1} is {said}", remedy)
        said = _parameter(target_btf, wanted, btf, given, number, context)
        if said:
            raise _mismatch(name, target_name, f"parameter {number + 1}: {said}", note)
    return _results(target_btf, wanted, btf, given, (name, note))


def _prototype_id(btf: Btf, function_id: int) -> int:
    function = btf.type(function_id)
    assert isinstance(function, Function), "it has a prototype"
    return function.type_id


def _unmatchable(btf: Btf, wanted: Prototype, number: int) -> str:
    """Why nothing can stand for a function with such a parameter; '' when something can."""
    type_ = btf.type(btf.strip(wanted.parameters[number].type_id))
    if isinstance(type_, Int | Enum):
        return ""
    if not isinstance(type_, Pointer):
        return _said(type_)
    pointed = btf.type(btf.strip(type_.type_id))
    return "" if _is_struct(pointed) else "a pointer to something that is no struct"


def _is_struct(type_: Type) -> TypeGuard[Struct]:
    return isinstance(type_, Struct) and not type_.is_union


def _parameter(
    target_btf: Btf, wanted: Prototype, btf: Btf, given: Prototype, number: int, context: str
) -> str:
    """Why a parameter does not match; '' when it does."""
    first = target_btf.strip(wanted.parameters[number].type_id)
    second = btf.strip(given.parameters[number].type_id)
    a, b = target_btf.type(first), btf.type(second)
    if type(a) is not type(b):
        return f"{_said(b)}, wanted {_said(a)}"
    if isinstance(a, Int | Enum) and isinstance(b, Int | Enum):
        return "" if a.size == b.size else f"{b.size} bytes, wanted {a.size}"
    assert isinstance(a, Pointer), "numbers and pointers can be matched"
    assert isinstance(b, Pointer), "they are of one kind"
    first, second = target_btf.strip(a.type_id), btf.strip(b.type_id)
    x, y = target_btf.type(first), btf.type(second)
    assert _is_struct(x), "so it can be matched"
    if not _is_struct(y):
        return f"a pointer to something that is no struct, wanted struct {x.name}"
    if x.name != y.name:
        return f"a pointer to struct {y.name}, wanted struct {x.name}"
    if y.size > x.size and x.name != context:
        return f"a struct {y.name} of {y.size} bytes, callers give {x.size}"
    return ""


def _results(target_btf: Btf, wanted: Prototype, btf: Btf, given: Prototype, names: tuple[str, str]) -> Match:
    name, note = names
    a = target_btf.type(target_btf.strip(wanted.returns))
    b = btf.type(btf.strip(given.returns))
    if type(a) is not type(b):
        raise _mismatch(name, "the target", f"it returns {_said(b)}, wanted {_said(a)}", note)
    if isinstance(a, Int | Enum) and isinstance(b, Int | Enum) and a.size != b.size:
        said = f"'{name}' returns {b.size} bytes where {a.size} are expected"
        narrower = min(a, b, key=lambda type_: type_.size)
        warning = Diagnostic("result-size", said, severity=Severity.WARNING)
        return Match((warning,), (narrower.size, narrower.is_signed))
    return Match()


def _said(type_: Type) -> str:
    return _NAMES.get(type(type_), type(type_).__name__.lower())


def _mismatch(name: str, target: str, why: str, note: str) -> RejectedError:
    return _refused("type-mismatch", f"'{name}' can't replace '{target}': {why}", EINVAL, note)


def _refused(code: str, message: str, errno: int, note: str) -> RejectedError:
    return RejectedError([Diagnostic(code, message, notes=(note,), errno=errno)])
