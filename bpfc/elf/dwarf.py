"""What a native function takes and returns, by the DWARF of its library: DWARF version 5, 3.3 and 5.

Only what decides how arguments travel is read: sizes, signs, structures by value.
"""

from __future__ import annotations

from errno import EINVAL
from typing import Any, Final

from bpfc.elf.file import find_debug_entry, reading_debug
from ir.diagnostics import Diagnostic, RejectedError
from ir.function_model import U64, Model, Value, check_model

_SIGNED: Final = (5, 6, 13)  # DW_ATE_signed, signed_char, signed_fixed
_FLOAT: Final = 4
_COMPLEX: Final = (3, 9)
_BY_REFERENCE: Final = 4  # DW_CC_pass_by_reference
_PLAIN: Final = (
    *("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type"),
    "DW_TAG_atomic_type",
)
_ADDRESSES: Final = (
    *("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type", "DW_TAG_array_type"),
    *("DW_TAG_subroutine_type", "DW_TAG_ptr_to_member_type"),
)
_WORD: Final = 8
_AGGREGATES: Final = ("DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_class_type")
_DEEPEST: Final = 64


def model_by_dwarf(data: bytes, file: str, name: str, address: int) -> Model | None:
    """The model of the function at `address` of an ELF file, None without DWARF for it.

    RejectedError (EINVAL) when it can't be hooked; UnreadableError for broken DWARF.
    """
    with reading_debug(file):
        entry = find_debug_entry(data, address)
        if entry is None:
            return None
        parameters = []
        is_variadic = False
        for child in _described(entry).iter_children():
            if child.tag == "DW_TAG_formal_parameter":
                parameters.append(_value(name, child))
            is_variadic |= child.tag == "DW_TAG_unspecified_parameters"
        model = Model(tuple(parameters), _value(name, entry))
    return check_model(name, model, is_variadic)


def _described(entry: Any) -> Any:  # a DIE of pyelftools, as below
    """What an entry stands for: a concrete function refers to its declaration or its abstract form."""
    for _ in range(_DEEPEST):
        if entry.has_children and any(
            child.tag == "DW_TAG_formal_parameter" for child in entry.iter_children()
        ):
            return entry
        named = next(
            (at for at in ("DW_AT_abstract_origin", "DW_AT_specification") if at in entry.attributes), ""
        )
        if not named:
            return entry
        entry = entry.get_DIE_from_attribute(named)
    raise _refused("DWARF entries that refer to each other in a circle")


def _type(entry: Any) -> Any:
    """The type of an entry without qualifiers and names; None for void."""
    for _ in range(_DEEPEST):
        while "DW_AT_type" not in entry.attributes:
            named = next(
                (at for at in ("DW_AT_abstract_origin", "DW_AT_specification") if at in entry.attributes), ""
            )
            if not named:
                return None
            entry = entry.get_DIE_from_attribute(named)
        entry = entry.get_DIE_from_attribute("DW_AT_type")
        if entry.tag not in _PLAIN:
            return entry
    raise _refused("DWARF entries that refer to each other in a circle")


def _value(name: str, entry: Any) -> Value:
    type = _type(entry)
    if type is None:
        return Value(0)
    if type.tag in _ADDRESSES or _number(type, "DW_AT_calling_convention") == _BY_REFERENCE:
        return U64
    size = _number(type, "DW_AT_byte_size")
    if type.tag == "DW_TAG_base_type":
        encoding = _number(type, "DW_AT_encoding")
        if encoding in _COMPLEX or (encoding == _FLOAT and size not in (4, 8)):
            raise _refused(f"'{name}' passes a {_text(type)}, which travels in registers of its own")
        return Value(size, encoding in _SIGNED, is_float=encoding == _FLOAT)
    if type.tag == "DW_TAG_enumeration_type":
        return Value(size, _is_signed_enum(type))
    if type.tag not in _AGGREGATES:
        raise _refused(f"'{name}' passes a {_text(type)}, which nothing is known of")
    if _travels_apart(type, 0):
        said = f"'{name}' passes a {_text(type)} by value, with members that are no integers of up to 8 bytes"
        raise _refused(said)
    return Value(size, is_struct=True)


def _is_signed_enum(type: Any) -> bool:
    under = _type(type)
    if under is not None:
        return _number(under, "DW_AT_encoding") in _SIGNED
    return any(_number(child, "DW_AT_const_value") < 0 for child in type.iter_children())


def _travels_apart(type: Any, depth: int) -> bool:
    """Whether a structure has floating-point members, vectors, or members of 16 bytes: it may travel in other registers
    than words do, or be aligned otherwise on the stack.
    """
    if type is None or type.tag in ("DW_TAG_pointer_type", "DW_TAG_enumeration_type"):
        return False
    if type.tag == "DW_TAG_base_type":
        return (
            _number(type, "DW_AT_encoding") in (_FLOAT, *_COMPLEX) or _number(type, "DW_AT_byte_size") > _WORD
        )
    if type.tag == "DW_TAG_array_type":
        return "DW_AT_GNU_vector" in type.attributes or _travels_apart(_type(type), depth + 1)
    if depth > _DEEPEST:
        raise _refused("structures nest too deep in DWARF")
    if _number(type, "DW_AT_alignment") > _WORD:
        return True
    members = (
        child for child in type.iter_children() if child.tag in ("DW_TAG_member", "DW_TAG_inheritance")
    )
    return any(_travels_apart(_type(member), depth + 1) for member in members)


def _number(entry: Any, attribute: str) -> int:
    found = entry.attributes.get(attribute)
    return found.value if found is not None and isinstance(found.value, int) else 0


def _text(type: Any) -> str:
    found = type.attributes.get("DW_AT_name")
    return found.value.decode(errors="replace") if found is not None else "value without a name"


def _refused(message: str) -> RejectedError:
    return RejectedError([Diagnostic("bad-prototype", message, errno=EINVAL)])
