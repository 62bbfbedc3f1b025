"""Calls through registers: which functions a load from a table may give, and what a call of any of them needs.

    r2 &= 3; r2 <<= 3; r3 = table ll; r3 += r2      table + 0, 8, 16 or 24
    r4 = *(u64 *)(r3 + 0)                           one of the functions of these four words
    callx r4                                        each of them is walked with the caller's state

The pointer must be as it was loaded, the functions static and without tail calls, and none may be running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ir.algebra import Integers, signed
from ir.callees import functions_taken, named_function
from ir.core import Alu, Call, Const, Function, Inst, Load, Module, Terminator, Value, operands
from ir.isa import Callee, compute
from ir.verify.refusal import Refused
from ir.verify.scalar import Scalar
from ir.verify.state import State
from ir.verify.subject import Subject
from ir.verify.values import AreaKind, Pointer, start_of

if TYPE_CHECKING:
    from ir.verify.explore import Walk

_WORD: Final = 8
_MOST_WORDS: Final = 256
_MOST_INNER: Final = 16
_TAIL_CALL: Final = 12


def load_function(subject: Subject, state: State, pointer: Pointer, load: Value) -> Pointer | None:
    """What an 8-byte load from read-only data gives, when that is surely a function or NULL."""
    map_ = pointer.area.map
    assert isinstance(load, Load)
    assert map_ is not None
    places = _places(subject, state, pointer, load)
    table = next((t for t in map_.tables if places and t.start <= places[0] < t.end), None)
    if table is None or places[-1] >= table.end:
        return None
    by_place = {word.offset: word.token for word in table.words}
    starts = {info.start: info.name for info in subject.program.functions}
    names: set[str] = set()
    is_nullable = False
    for place in places:
        slot = subject.program.tokens.get(by_place.get(place, 0))
        if slot is not None:
            names.add(starts[slot])
        elif place not in by_place and not any((map_.initial or b"")[place : place + _WORD]):
            is_nullable = True
        else:
            return None
    return start_of(subject.function_area(sorted(names)), is_nullable) if names else None


def asked_with_tables(inst: Inst | Terminator) -> tuple[Value, ...]:
    """The values that are asked about at `inst`: its operands, and what the place is computed from where a word is loaded."""
    if type(inst) is Load and type(inst.base) is Alu and inst.row.size == _WORD:
        return (*operands(inst), *_inner_values(inst.base))
    return operands(inst)


def _places(subject: Subject, state: State, pointer: Pointer, load: Load) -> list[int]:
    """Every byte that is loaded from, in order; none when some are not aligned, or they are too many to tell."""
    span, offset = pointer.span, load.offset
    low, high = span.smin + offset, span.smax + offset
    if high - low >= _WORD * _MOST_WORDS:
        return []
    strides = _strides(subject, state, load.base) if span.mask else None
    if strides is not None:
        found = sorted({place + offset for place in strides if span.contains(place)})
    else:
        found = [place for place in range(low, high + 1) if span.contains(place - offset)]
    return [] if any(place % _WORD for place in found) else found


def _strides(subject: Subject, state: State, base: Value) -> set[int] | None:
    """The offsets of `base` for each value that the one index in it may have, such as i * 40; None when that is not seen.

    Ranges and known bits tell multiples of powers of two alone.
    """
    for index in _inner_values(base):
        known = state.of(index)
        if not isinstance(known, Scalar) or known.umax - known.umin >= _MOST_WORDS:
            continue
        numbers = [number for number in range(known.umin, known.umax + 1) if known.contains(number)]
        found = {_offset(subject, state, base, index, number) for number in numbers}
        places = {place for place in found if place is not None}
        if len(places) == len(found):
            return places
    return None


def _inner_values(base: Value) -> list[Value]:
    """The values that `base` is computed from, those furthest away first."""
    found: dict[Value, None] = {}
    work = [base]
    while work and len(found) < _MOST_INNER:
        value = work.pop(0)
        if isinstance(value, Alu):
            work += [value.x, value.y]
        if value is not base and not isinstance(value, Const):
            found[value] = None
    return list(reversed(found))


def _offset(subject: Subject, state: State, value: Value, index: Value, number: int) -> int | None:
    """`value`, of a pointer its offset, when `index` is `number`; None when that depends on more."""
    if value is index:
        return number
    if isinstance(value, Const):
        return value.value
    known = state.of(value)
    if isinstance(known, Pointer) and not known.span.mask:
        return known.span.value
    if not isinstance(value, Alu):
        return None
    x, y = (_offset(subject, state, part, index, number) for part in (value.x, value.y))
    if x is None or y is None:
        return None
    result: int = compute(value.row, Integers(subject.program.big_endian), x, y)
    return signed(64, result)


def find_functions(subject: Subject, state: State, call: Call) -> list[Function]:
    """The functions that `callx` may call. Raises Refused when that may be anything else."""
    assert not isinstance(call.target, int | str)
    known = state.of(call.target)
    if type(known) is not Pointer or known.area.kind is not AreaKind.FUNCTION:
        hint = (
            "load the pointer whole, from a table in read-only data at a proved index, and leave it as it is"
        )
        raise Refused(
            "indirect-call", "call through what is not surely a function's address", call.target, hint
        )
    if known.is_nullable:
        hint = "compare the pointer with NULL before the call"
        raise Refused(
            "indirect-call", f"call through a pointer to {known.area} that may be NULL", call.target, hint
        )
    functions = [subject.module.functions[name] for name in subject.functions_in(known.area)]
    for function in functions:
        _check_callee(subject.module, function, call)
    return functions


def _check_callee(module: Module, function: Function, call: Call) -> None:
    """Refuse what may not be called through a register."""
    name = function.name
    if function is module.main or function.info.is_global:
        said = f"'{name}' is a global function; only static ones are called through registers"
        raise Refused("indirect-call", said)
    if _tail_calls(module, function):
        raise Refused("indirect-call", f"'{name}', which is called through a register, may tail-call")
    read = {register for register in _reads(module, function, {name}) if register > len(call.args)}
    if read:
        said = f"'{name}', which is called through a register, reads r{min(read)}, which is not set"
        raise Refused("uninitialized-register", said)


def _tail_calls(module: Module, function: Function) -> bool:
    """Whether a tail call may run because of `function`."""
    seen = {function.name}
    work = [function]
    while work:
        found = work.pop()
        for inst in found.insts():
            if isinstance(inst, Call) and inst.callee is Callee.HELPER and inst.target == _TAIL_CALL:
                return True
            name = named_function(inst)
            if name and name not in seen:
                seen.add(name)
                work.append(module.functions[name])
    return False


def _reads(module: Module, function: Function, seen: set[str]) -> set[int]:
    """The argument registers that a function reads, or hands on to one that may read them."""
    registers: dict[Value, int] = {param: param.register for param in function.params}
    read: set[int] = set()
    for block in function.blocks:
        for item in (*block.insts, block.terminator):
            if not isinstance(item, Call) or item.callee is not Callee.INDIRECT:
                read.update(registers[value] for value in operands(item) if value in registers)
                continue
            handed = {number: registers.get(value) for number, value in enumerate(item.args, 1)}
            for name in functions_taken(module):
                if name not in seen:
                    seen.add(name)
                    further = _reads(module, module.functions[name], seen)
                    read.update(handed[one] or 0 for one in further if one in handed)
        read.update(registers[arg] for edge in block.edges() for arg in edge.args if arg in registers)
    return read - {0}


def call_any(walk: Walk, state: State, call: Call) -> list[State]:
    """The states after a call of whatever function the register holds."""
    after: list[State] = []
    functions = find_functions(walk.explorer.subject, state, call)
    for function in functions:
        if walk.explorer.subject.frame_of(function) in (walk.steps.frame, *walk.frames):
            raise Refused("recursion", f"function '{function.name}' calls itself through a register")
        walk.explorer.through.setdefault(call, {})[function.name] = None
        inside = state.copy() if len(functions) > 1 else state
        after += [walk.resume(call, done) for done in walk.enter_function(inside, function, list(call.args))]
    return after
