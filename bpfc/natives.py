"""Native functions to attach programs to, by library and name."""

from __future__ import annotations

from errno import EINVAL

from ir.diagnostics import Diagnostic, Location, RejectedError
from ir.function_model import Model
from runtime.hook import attach_lock
from runtime.imports import import_slots, imported_address
from runtime.imports import imported as hook_imports
from runtime.libraries import Library, NativeSymbol, library, library_at
from runtime.native_entry import NativeFunction, model_of_prototype
from runtime.patchable import entry_hook_of


def native(
    of: object, function: str, prototype: object = None, *, may_override: bool = False
) -> NativeFunction:
    """Function `function` of a loaded library, hooked at its entry: every call is seen, whoever makes it.

    It must have been compiled with -fpatchable-function-entry=N, or with -pg -mfentry -mnop-mcount -mrecord-mcount.
    `of` is a ctypes.CDLL, or the library's file name or the beginning of it; `prototype` is what ctypes.CFUNCTYPE makes,
    if not the library's debug information shall say what the function takes. Raises RejectedError: ENOENT, EINVAL.
    """
    found = library(of)
    symbol = found.function(function)
    model = prototype_model(found, symbol) if prototype is None else model_of_prototype(function, prototype)
    with attach_lock():
        hook = entry_hook_of(found, symbol)
    return NativeFunction(function, model, hook, may_override, symbol.address)


def imported(
    of: object, function: str, prototype: object = None, *, may_override: bool = False
) -> NativeFunction:
    """Function `function` of whatever library has it, as the loaded library `of` calls it.

    Nothing has to be compiled in any way: the pointers are changed by which `of` calls it. Calls by others, and the
    defining library's own, are not seen. Raises as `native`.
    """
    caller = library(of)
    import_slots(caller, function)
    if prototype is not None:
        return hook_imports(of, function, model_of_prototype(function, prototype), may_override)
    address = imported_address(caller, function)
    home = library_at(address)
    symbol = home.function_at(address) if home is not None else None
    if home is None or symbol is None:
        raise _no_prototype(caller, function)
    return hook_imports(of, function, prototype_model(home, symbol), may_override)


def prototype_model(library: Library, symbol: NativeSymbol) -> Model:
    """What a function takes, by its library's DWARF. Raises RejectedError (EINVAL)."""
    from bpfc.elf.dwarf import model_by_dwarf  # late: pyelftools

    model = model_by_dwarf(library.data, str(library.path), symbol.name, symbol.address - library.base)
    if model is None:
        raise _no_prototype(library, symbol.name)
    return model


def _no_prototype(library: Library, function: str) -> RejectedError:
    said = f"'{library.path.name}' does not say what '{function}' takes and returns"
    note = "compile it with -g, or give a prototype: ctypes.CFUNCTYPE(result, *arguments)"
    at = Location(function=function)
    return RejectedError([Diagnostic("no-prototype", said, at, notes=(note,), errno=EINVAL)])
