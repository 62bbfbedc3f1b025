"""Which functions may run because of another: those it calls, takes the address of, or finds in tables.

call f                      f
r1 = f ll                   f: a helper may call it back
r2 = table[i]; callx r2     every function that a word of read-only data points at, and those above

A word that points at a function holds a token (`ir/object`, FunctionWord): `token_names` says whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ir.core import Address, Call, Function, Inst, Module
from ir.isa import Callee
from ir.object import ReferenceKind


def named_function(inst: Inst) -> str:
    """The function that an instruction calls or takes the address of by name, '' when it does neither."""
    if type(inst) is Call and inst.callee is Callee.SUBPROGRAM and isinstance(inst.target, str):
        return inst.target
    if type(inst) is Address and inst.reference.kind is ReferenceKind.FUNCTION:
        return inst.reference.name
    return ""


def callees_of(module: Module, function: Function) -> list[str]:
    """The functions that may run because of `function`, each once, in order."""
    found: dict[str, None] = {}
    for inst in function.of_types(Call, Address):
        name = named_function(inst)
        if name:
            found[name] = None
        elif isinstance(inst, Call) and inst.callee is Callee.INDIRECT:
            found.update(dict.fromkeys(functions_taken(module)))
    return list(found)


def reached_from(module: Module, names: Iterable[str]) -> set[str]:
    """Functions of these names, and all that may run because of them."""
    found: set[str] = set()
    work = list(names)
    while work:
        name = work.pop()
        if name in module.functions and name not in found:
            found.add(name)
            work += callees_of(module, module.functions[name])
    return found


def functions_taken(module: Module) -> list[str]:
    """The functions whose address the program has: anyone may call them with anything."""
    taken = {
        inst.reference.name
        for function in module.functions.values()
        for inst in function.of_types(Address)
        if isinstance(inst, Address) and inst.reference.kind is ReferenceKind.FUNCTION
    }
    taken.update(token_names(module).values())
    return [name for name in module.functions if name in taken]


def token_names(module: Module) -> Mapping[int, str]:
    """The function that each token in read-only data stands for; those that are gone are left out."""
    tokens = module.program.tokens
    if not tokens:
        return {}
    by_start = {function.info.start: name for name, function in module.functions.items()}
    return {token: by_start[start] for token, start in sorted(tokens.items()) if start in by_start}
