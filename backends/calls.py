"""Lowering of calls: subprograms, helpers (native or on the host), kfuncs, calls through a value and tail calls.

A helper that has a native emitter is called (and usually inlined) as an LLVM function; any other is the external symbol
`helper.<id>`, which the linker resolves to a host callback, so that an override needs nothing but another address.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EINVAL
from typing import TYPE_CHECKING, Final, Protocol, final

from backends import abi
from backends.calls_through import emit_indirect
from backends.map_arguments import emit_for_map
from ir.context import HEADER
from ir.core import Call, Const, Value
from ir.helper_maps import map_problem
from ir.helpers import HELPERS, Argument, ArgumentKind, Helper, helper_by_id
from ir.hook_objects import XDP_BUFF
from ir.isa import Callee
from ir.kfuncs import KFUNCS
from ir.kinds import MapFlag
from ir.object import POISON_HELPER, Map
from ir.region import RegionKind

if TYPE_CHECKING:
    from backends.function import FunctionLowering

_CHANGES: Final = frozenset({"map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem"})
EACCES: Final = 13
TAIL_CALL: Final = 12
_MEMORY: Final = (
    ArgumentKind.MEMORY,
    ArgumentKind.MAP_KEY,
    ArgumentKind.MAP_VALUE,
    ArgumentKind.CONST_STRING,
    ArgumentKind.SPIN_LOCK,
    ArgumentKind.TIMER,
    ArgumentKind.DYNPTR,
    ArgumentKind.ITERATOR,
)
_FIXED_SIZES: Final = {
    ArgumentKind.SPIN_LOCK: 4,
    ArgumentKind.TIMER: 16,
    ArgumentKind.DYNPTR: 16,
    ArgumentKind.CONST_STRING: 1,
}


@final
@dataclass(frozen=True, slots=True)
class NativeHelper:
    """An LLVM function that does a helper's work: `symbol(run, arguments...)`, returning `result` ('i64' or 'ptr').

    `may_trap`: it can set the run's trap code, so callers must look.
    """

    symbol: str
    result: str = "i64"
    may_trap: bool = False


class Natives(Protocol):
    """Where native helpers come from; `find` notes what was asked for so that its definition can be added."""

    def find(self, helper: Helper, map: Map | None) -> NativeHelper | None: ...


@final
class NoNatives:
    """Every helper is a host callback."""

    def find(self, helper: Helper, map: Map | None) -> NativeHelper | None:
        return None


def emit_call(lowering: FunctionLowering, call: Call) -> str:
    """Append the call; its result as an operand of the type that the regions give it."""
    match call.callee:
        case Callee.SUBPROGRAM:
            result = _subprogram(lowering, call)
        case Callee.HELPER if call.target == TAIL_CALL:
            result = _tail_call(lowering, call)
        case Callee.HELPER:
            return _helper(lowering, call)
        case Callee.KFUNC if call.target in KFUNCS:
            assert isinstance(call.target, str)
            return _known(lowering, call, KFUNCS[call.target], f"kfunc.{call.target}")
        case Callee.KFUNC:
            symbol = lowering.unit.declare(f"kfunc.{call.target}", "i64", "ptr, ...")
            result = lowering.text.emit(f"call i64 (ptr, ...) {symbol}({_arguments(lowering, call)})")
            lowering.propagate_trap()
        case Callee.INDIRECT:
            result = emit_indirect(lowering, call)
    return _own(lowering, call, result)


def _own(lowering: FunctionLowering, call: Call, result: str) -> str:
    """An i64 result as the type that the value has."""
    return (
        lowering.text.emit(f"inttoptr i64 {result} to ptr") if lowering.regions.is_pointer(call) else result
    )


def _arguments(lowering: FunctionLowering, call: Call) -> str:
    given = [lowering.argument(arg, lowering.type_of(arg)) for arg in call.args]
    return ", ".join(["ptr %run", *given])


def _subprogram(lowering: FunctionLowering, call: Call) -> str:
    assert isinstance(call.target, str)
    callee = lowering.module.functions[call.target]
    for number, (param, arg) in enumerate(zip(callee.params, call.args, strict=True), 1):
        if lowering.checker.gets_context(callee, param):
            _check_context(lowering, call, arg, f"argument {number} of '{callee.name}'")
    given = [
        lowering.argument(arg, lowering.type_of(param))
        for param, arg in zip(callee.params, call.args, strict=True)
    ]
    given += [f"ptr {origin}" for origin in lowering.origins_of(callee.params, call.args)]
    lowering.spill_fuel()
    result = lowering.text.emit(
        f"call i64 @{lowering.quoted(call.target)}({', '.join(['ptr %run', *given])})"
    )
    lowering.reload_fuel()
    if call.target in lowering.unit.may_trap or lowering.unit.is_replaceable(call.target):
        lowering.propagate_trap()
    return result


def _helper(lowering: FunctionLowering, call: Call) -> str:
    assert isinstance(call.target, int)
    helper = helper_by_id(call.target, lowering.module.program.type)
    if call.target == POISON_HELPER and call.at in lowering.module.program.poisoned:
        lowering.refuse(lowering.module.program.poisoned[call.at], call.at)
        return "0"
    if helper is None:
        lowering.problem("unknown-helper", f"there is no helper {call.target}", call.at, EINVAL)
        return "0"
    return _known(lowering, call, helper, f"helper.{helper.id}")


def _known(lowering: FunctionLowering, call: Call, helper: Helper, host_symbol: str) -> str:
    """Call a helper or kfunc whose prototype is known: its native form, else the host's under `host_symbol`."""
    return emit_for_map(lowering, call, helper, lambda map_: _on(lowering, call, helper, host_symbol, map_))


def _on(lowering: FunctionLowering, call: Call, helper: Helper, host_symbol: str, map_: Map | None) -> str:
    """Call a helper or kfunc on a map, if it has one; the result as an operand of the type that the regions give it."""
    _check_arguments(lowering, call, helper, map_)
    native = lowering.unit.natives.find(helper, map_)
    given = ["ptr %run"]
    kinds = ["ptr"]
    if len(call.args) < len(helper.arguments):
        said = f"{helper.full_name} takes {len(helper.arguments)} arguments, r{len(call.args) + 1} is not set"
        lowering.problem("uninitialized-register", said, call.at, EACCES)
        return "0"
    passed = call.args if helper.is_variadic else call.args[: len(helper.arguments)]
    for number, arg in enumerate(passed):
        kind = "ptr" if _is_pointer(helper, number) else "i64"
        kinds.append(kind)
        operand = lowering.as_own(arg, kind)
        if kind == "i64" and _is_image(lowering, arg):
            operand = lowering.text.add(64, operand, str(HEADER))
        given.append(f"{kind} {operand}")
    lowering.spill_fuel()
    if native is not None:
        pointer = native.result == "ptr"
        result = lowering.text.emit(
            f"call {native.result} @{lowering.quoted(native.symbol)}({', '.join(given)})"
        )
        if native.may_trap:
            lowering.propagate_trap()
    else:
        pointer = False
        given += ["i64 0"] * (6 - len(given))
        signature = "ptr" + ", i64" * 5
        numbers = [given[0], *(_as_i64(lowering, item) for item in given[1:])]
        symbol = lowering.unit.declare(host_symbol, "i64", signature)
        result = lowering.text.emit(f"call i64 {symbol}({', '.join(numbers)})")
        lowering.propagate_trap()
    lowering.reload_fuel()
    wanted = lowering.regions.is_pointer(call)
    if wanted == pointer:
        return result
    return lowering.text.emit(f"inttoptr i64 {result} to ptr" if wanted else f"ptrtoint ptr {result} to i64")


def _is_image(lowering: FunctionLowering, value: Value) -> bool:
    """Whether a value is an address in the context, whose fields stand HEADER bytes further on than programs see them."""
    return lowering.regions.of(value).kind is RegionKind.CONTEXT and not lowering.module.context.is_raw


def _as_i64(lowering: FunctionLowering, item: str) -> str:
    kind, operand = item.split(" ", 1)
    return item if kind == "i64" else f"i64 {lowering.text.emit(f'ptrtoint ptr {operand} to i64')}"


def _is_pointer(helper: Helper, number: int) -> bool:
    if number >= len(helper.arguments):
        return False
    return helper.arguments[number].kind not in (
        ArgumentKind.ANYTHING,
        ArgumentKind.SIZE,
        ArgumentKind.ALLOC_SIZE,
    )


def _check_arguments(lowering: FunctionLowering, call: Call, helper: Helper, map_: Map | None) -> None:
    """Check what the prototype asks of each argument; `map_` is the map argument, if there is one."""
    if map_ is not None and not lowering.facts.is_proved(call):
        problem = map_problem(helper, map_)
        if problem:
            lowering.problem("map-type", problem, call.at, EINVAL)
    if map_ is not None and map_.flags & MapFlag.RDONLY_PROG and helper.name in _CHANGES:
        said = f"{helper.full_name} changes map '{map_.name}', which programs may only read"
        lowering.problem("read-only-map", said, call.at)
    for number, (argument, value) in enumerate(zip(helper.arguments, call.args, strict=False)):
        region = lowering.regions.of(value)
        match argument.kind:
            case ArgumentKind.CONTEXT:
                _check_context(lowering, call, value, f"argument {number + 1} of {helper.full_name}")
            case ArgumentKind.FUNCTION:
                if region.kind is not RegionKind.FUNCTION or not region.name:
                    said = f"argument {number + 1} of {helper.full_name} must be a function"
                    lowering.problem("helper-argument", said, call.at)
            case ArgumentKind.BTF_POINTER if argument.btf == XDP_BUFF and lowering.module.context.objects:
                is_one = region.kind is RegionKind.OBJECT and region.name == XDP_BUFF
                if not is_one or lowering.regions.offset(value) != (region.origin, 0):
                    said = f"argument {number + 1} of {helper.full_name} must be the struct xdp_buff of the context"
                    lowering.problem("helper-argument", said, call.at)
            case kind if kind in _MEMORY:
                _check_memory(lowering, call, argument, number, map_)
            case _:
                pass


def _check_context(lowering: FunctionLowering, call: Call, value: Value, what: str) -> None:
    """What is the context on some ways, or comes from where its origin is not known, is compared with it at run time."""
    checker, text = lowering.checker, lowering.text
    if checker.is_context(value):
        return
    start = checker.context()
    places = lowering.regions.context_offsets(value)
    if (
        lowering.regions.of(value).kind is not RegionKind.CONTEXT
        or start is None
        or (places and 0 not in places)
    ):
        lowering.problem("helper-argument", f"{what} must be the context", call.at)
        return
    same = text.eq(64, lowering.as_int(value), lowering.as_int(start))
    lowering.trap_unless(same, abi.Trap.MEMORY, call.at)


def _check_memory(
    lowering: FunctionLowering, call: Call, argument: Argument, number: int, map_: Map | None
) -> None:
    size: str | None = None
    constant: int | None = argument.size or _FIXED_SIZES.get(argument.kind)
    if argument.kind in (ArgumentKind.MAP_KEY, ArgumentKind.MAP_VALUE):
        if map_ is None:
            return
        constant = map_.key_size if argument.kind is ArgumentKind.MAP_KEY else map_.value_size
    elif constant is None:
        given = call.args[number + 1]
        size = lowering.as_int(given)
        constant = given.value if isinstance(given, Const) else None
    value = call.args[number]
    lowering.checker.argument(
        call, value, size or str(constant), constant, argument.writes, argument.is_nullable
    )


def _tail_call(lowering: FunctionLowering, call: Call) -> str:
    """Jump to the program in the table, or go on with r0 = -1 (in the kernel: whatever r0 was) when there is none."""
    helper = HELPERS[TAIL_CALL]
    return emit_for_map(lowering, call, helper, lambda map_: _tail_call_by(lowering, call, helper, map_))


def _tail_call_by(lowering: FunctionLowering, call: Call, helper: Helper, map_: Map | None) -> str:
    _check_arguments(lowering, call, helper, map_)
    native = lowering.unit.natives.find(helper, map_)
    text = lowering.text
    context, table, index = call.args
    if native is None:
        find = lowering.unit.declare(f"helper.{TAIL_CALL}", "i64", "ptr" + ", i64" * 5)
        numbers = [f"i64 {lowering.as_int(value)}" for value in (context, table, index)]
        given = ", ".join(["ptr %run", *numbers, "i64 0", "i64 0"])
        target = text.emit(f"inttoptr i64 {text.emit(f'call i64 {find}({given})')} to ptr")
    else:
        given = f"ptr %run, ptr {lowering.as_ptr(context)}, ptr {lowering.as_ptr(table)}, i64 {lowering.as_int(index)}"
        target = text.emit(f"call ptr @{lowering.quoted(native.symbol)}({given})")
    missing = text.emit(f"icmp eq ptr {target}, null")
    jump, on = text.name("tail"), text.name(lowering.label.split(".")[0] + ".")
    text.do(f"br i1 {missing}, label %{on}, label %{jump}")
    lowering.start_block(jump)
    lowering.spill_fuel()
    lowering.leave_frame()
    # The 32 that may follow each other nest where LLVM, which makes a jump of it, finds no register for the target.
    how = "notail" if lowering.is_narrow else "tail"
    result = text.emit(f"{how} call i64 {target}(ptr %run, {lowering.argument(context, 'ptr')})")
    text.do(f"ret i64 {result}")
    lowering.start_block(on)
    return text.const(64, -1)
