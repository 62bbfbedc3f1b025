"""Which map a helper is given, where that is only seen at run time: each map that it may be has code of its own.

    r1 = a ll                           same = r1 == @map.a
    if r6 == 0 goto +2                  br same, lookup in a, else
    r1 = b ll                           lookup in a:  x = a's own, inlined
    call bpf_map_lookup_elem            else:         y = b's own, once r1 == @map.b, or that was proved
                                        result = phi x, y

A map found in a map has no address that is known: it comes last, for whatever is none of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from backends import abi
from ir.core import Address, Call, Value
from ir.helpers import ArgumentKind, Helper
from ir.object import Map, ReferenceKind
from ir.region import INNER, Region, RegionKind, map_named

if TYPE_CHECKING:
    from backends.function import FunctionLowering

EINVAL: Final = 22


def emit_for_map(
    lowering: FunctionLowering, call: Call, helper: Helper, emit: Callable[[Map | None], str]
) -> str:
    """What `emit` appends, given the map that the helper works on, None for none; its result.

    Where it may be one of several, `emit` is done for each; where it may be none, the run traps.
    """
    place = next((n for n, one in enumerate(helper.arguments) if one.kind is ArgumentKind.MAP), None)
    if place is None or place >= len(call.args):
        return emit(None)
    value = call.args[place]
    names = _names_of(lowering, lowering.regions.of(value), call)
    if names is None:
        said = f"argument {place + 1} of {helper.full_name} must be a map"
        lowering.problem("helper-argument", said, call.at)
        return emit(None)
    if not lowering.facts.is_proved(call):
        _check_inner(lowering, call, value, names)
    return _emit_each(lowering, call, value, names, emit)


def _names_of(lowering: FunctionLowering, region: Region, call: Call) -> list[str] | None:
    """The maps that a value in `region` may be, those found in maps last; None when it may be anything else."""
    if region.kind is RegionKind.MAP:
        return [region.name]
    if region.kind is not RegionKind.UNKNOWN:
        return None
    if region.parts and all(kind is RegionKind.MAP for kind, _ in region.parts):
        names = [name for _, name in region.parts]
    elif lowering.facts.is_proved(call):
        names = list(lowering.module.maps)
    else:
        return None
    found = {name: map_named(lowering.module, name) for name in sorted(names, key=_order)}
    inner = [name for name in found if name.endswith(INNER)]
    if len({_likeness(found[name]) for name in inner}) > 1:
        said = (
            f"may be a map found in {' or '.join(name.removesuffix(INNER) for name in inner)}, which differ"
        )
        lowering.problem("helper-argument", said, call.at, EINVAL)
    return [name for name in found if name not in inner[1:]] or None


def _order(name: str) -> tuple[bool, str]:
    return name.endswith(INNER), name


def _likeness(map: Map | None) -> tuple[object, ...]:
    return () if map is None else (map.type, map.key_size, map.value_size, map.flags)


def _check_inner(lowering: FunctionLowering, call: Call, value: Value, names: list[str]) -> None:
    """A map found in a map is used as it was found, and only when it was found."""
    if not names[-1].endswith(INNER):
        return
    root, offset = lowering.regions.offset(value)
    if root is not lowering.regions.of(value).origin or offset:
        lowering.problem("helper-argument", "a map found in a map must be passed on as it was found", call.at)
        return
    found = lowering.text.emit(f"icmp ne ptr {lowering.operands[root]}, null")
    lowering.trap_unless(found, abi.Trap.MEMORY, call.at)


def _emit_each(
    lowering: FunctionLowering, call: Call, value: Value, names: list[str], emit: Callable[[Map | None], str]
) -> str:
    text, module = lowering.text, lowering.module
    given = lowering.as_ptr(value)
    done = text.name("map.done")
    arms: list[tuple[str, str]] = []
    for name in names[:-1]:
        one, other = text.name("map.one"), text.name(lowering.label.split(".")[0] + ".")
        text.do(f"br i1 {_is_map(lowering, given, name)}, label %{one}, label %{other}")
        lowering.start_block(one)
        arms.append((emit(map_named(module, name)), lowering.label))
        text.do(f"br label %{done}")
        lowering.start_block(other)
    last = names[-1]
    if not (lowering.facts.is_proved(call) or last.endswith(INNER) or _is_itself(lowering, value)):
        lowering.trap_unless(_is_map(lowering, given, last), abi.Trap.MEMORY, call.at)
    result = emit(map_named(module, last))
    if not arms:
        return result
    arms.append((result, lowering.label))
    text.do(f"br label %{done}")
    lowering.start_block(done)
    return text.emit(
        f"phi {lowering.type_of(call)} {', '.join(f'[ {was}, %{label} ]' for was, label in arms)}"
    )


def _is_map(lowering: FunctionLowering, given: str, name: str) -> str:
    """An i1: `given` is the address of a declared map."""
    return lowering.text.emit(f"icmp eq ptr {given}, {lowering.unit.symbol(f'map.{name}')}")


def _is_itself(lowering: FunctionLowering, value: Value) -> bool:
    """Whether a value is a map's address as the program loaded it."""
    root, offset = lowering.regions.offset(value)
    return isinstance(root, Address) and root.reference.kind is ReferenceKind.MAP and not offset
