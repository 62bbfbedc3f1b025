"""Lowering of calls through registers: to what a value is the address, the token or the number of.

    switch target [ token of f: call f ... ]      functions in tables of read-only data (ir/object, FunctionWord)
    target == @g: call g                          functions whose address the program takes
    target == 7: call helper 7                    helpers, by their numbers
    else: trap

So nothing is ever jumped to that is not a function of the program, proved or not, and LLVM may inline what is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends import abi
from ir.core import Call, Const, Load, Value
from ir.helpers import HELPERS, ArgumentKind, Helper, ResultKind
from ir.region import RegionKind, map_named

if TYPE_CHECKING:
    from backends.function import FunctionLowering


def emit_indirect(lowering: FunctionLowering, call: Call) -> str:
    """`callx`: to the function whose address or token the value is, or the helper whose number it is; else a trap."""
    assert not isinstance(call.target, int | str)
    text = lowering.text
    target = lowering.as_int(call.target)
    done = text.name("called")
    lowering.spill_fuel()
    arms: list[tuple[str, str]] = []
    _switch_tokens(lowering, call, target, done, arms)
    is_from_table = _is_from_table(lowering, call.target)
    for name in lowering.unit.entry_taken if not is_from_table else ():
        address = text.emit(f"ptrtoint ptr @{lowering.quoted(name)} to i64")
        yes, no = text.name("is"), text.name(lowering.label.split(".")[0] + ".")
        text.do(f"br i1 {text.eq(64, target, address)}, label %{yes}, label %{no}")
        lowering.start_block(yes)
        _call_taken(lowering, call, name, done, arms)
        lowering.start_block(no)
    for helper in HELPERS.values() if not is_from_table else ():
        simple = all(argument.kind is ArgumentKind.ANYTHING for argument in helper.arguments)
        if simple and helper.result.kind is ResultKind.INTEGER and helper.id in lowering.unit.callx_helpers:
            _indirect_helper(lowering, call, target, helper, done, arms)
    lowering.trap_unless("false", abi.Trap.CALL, call.at)
    text.do("unreachable")
    lowering.start_block(done)
    result = (
        text.emit(f"phi i64 {', '.join(f'[ {value}, %{label} ]' for value, label in arms)}") if arms else "0"
    )
    lowering.reload_fuel()
    lowering.propagate_trap()
    return result


def _is_from_table(lowering: FunctionLowering, target: Value) -> bool:
    """Whether the value was loaded from read-only data with tables of functions: it is a token or nothing to call."""
    if not isinstance(target, Load):
        return False
    region = lowering.regions.of(target.base)
    found = map_named(lowering.module, region.name) if region.kind is RegionKind.MAP_VALUE else None
    return found is not None and bool(found.tables)


def _switch_tokens(
    lowering: FunctionLowering, call: Call, target: str, done: str, arms: list[tuple[str, str]]
) -> None:
    """Go to the function that the token in `target` stands for; what is no token goes on below."""
    text, tokens = lowering.text, lowering.unit.tokens
    if not tokens:
        return
    labels = {token: text.name("is") for token in tokens}
    other = text.name(lowering.label.split(".")[0] + ".")
    cases = " ".join(f"i64 {token}, label %{label}" for token, label in labels.items())
    text.do(f"switch i64 {target}, label %{other} [ {cases} ]")
    for token, name in tokens.items():
        lowering.start_block(labels[token])
        _call_taken(lowering, call, name, done, arms)
    lowering.start_block(other)


def _call_taken(
    lowering: FunctionLowering, call: Call, name: str, done: str, arms: list[tuple[str, str]]
) -> None:
    """Call a function that was found by its address or token, one level deeper; then on to `done`."""
    text = lowering.text
    place = lowering.run_field(abi.DEPTH)
    left = text.emit(f"load i64, ptr {place}, align 8")
    lowering.trap_unless(text.emit(f"icmp ne i64 {left}, 0"), abi.Trap.DEPTH, call.at)
    text.do(f"store i64 {text.sub(64, left, '1')}, ptr {place}, align 8")
    given = ["ptr %run"]
    for number, param in enumerate(lowering.module.functions[name].params):
        kind = lowering.type_of(param)
        value: Value = call.args[number] if number < len(call.args) else Const(0)
        given.append(lowering.argument(value, kind))
    result = text.emit(f"call i64 @{lowering.quoted(name)}({', '.join(given)})")
    text.do(f"store i64 {left}, ptr {place}, align 8")
    arms.append((result, lowering.label))
    text.do(f"br label %{done}")


def _indirect_helper(
    lowering: FunctionLowering,
    call: Call,
    target: str,
    helper: Helper,
    done: str,
    arms: list[tuple[str, str]],
) -> None:
    text = lowering.text
    yes, no = text.name("is"), text.name(lowering.label.split(".")[0] + ".")
    text.do(f"br i1 {text.eq(64, target, str(helper.id))}, label %{yes}, label %{no}")
    lowering.start_block(yes)
    given = [f"i64 {lowering.as_int(arg)}" for arg in call.args[: len(helper.arguments)]]
    native = lowering.unit.natives.find(helper, None)
    if native is not None:
        given += ["i64 0"] * (len(helper.arguments) - len(given))
        symbol = f"@{lowering.quoted(native.symbol)}"
    else:
        given += ["i64 0"] * (5 - len(given))
        symbol = lowering.unit.declare(f"helper.{helper.id}", "i64", "ptr" + ", i64" * 5)
    result = text.emit(f"call i64 {symbol}({', '.join(['ptr %run', *given])})")
    arms.append((result, lowering.label))
    text.do(f"br label %{done}")
    lowering.start_block(no)
