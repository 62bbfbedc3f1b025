"""The compile driver: a program and its maps in, native code out, through the cache.

    Program -> lift -> passes -> regions, facts -> LLVM IR -> object -> NativeCode

A cache hit needs none of it, nor llvmlite: the stages live in `bpfc.codegen`, which is imported on a miss.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from backends import abi
from backends.native_code import NativeCode
from backends.registry import host, target_named
from backends.target import Target
from bpfc.options import Options
from ir import isa
from ir.context import ContextLayout
from ir.diagnostics import Diagnostic, Location, UnsupportedError
from ir.object import Map, Program
from runtime.cache import ObjectCache, toolchain

if TYPE_CHECKING:
    from bpfc.codegen import Front

FORMAT: Final = 1  # raised when the same input gives other code


@final
@dataclass(frozen=True, slots=True)
class Compiled:
    """Native code for one program, and what the compiler can tell of it."""

    code: NativeCode
    level: str
    from_cache: bool
    ns: int


LARGE: Final = 2048


def effective_level(program: Program, options: Options) -> str:
    """The level that `auto` means for this program."""
    if options.level != "auto":
        return options.level
    return "O1" if len(program.insns) >= LARGE else "O2"


def compile_program(
    program: Program,
    maps: Mapping[str, Map],
    options: Options,
    overridden: frozenset[int] = frozenset(),
    context: ContextLayout | None = None,
    target: Target | None = None,
    front: Callable[[Options], Front] | None = None,
) -> Compiled:
    """Native code of `program` for any processor of `target`, or just for this host when None.

    `overridden` helpers (ids) are called on the host. `context`: what the program starts with, where its type alone
    does not say. `front` gives what several targets share (bpfc/codegen).

    Raises RejectedError, and UnsupportedError for a program in the other byte order.
    """
    before = time.perf_counter_ns()
    level = effective_level(program, options)
    check_byte_order(program, target or host())
    options = replace(options, level=level)
    key = cache_key(program, maps, options, overridden, context, target)
    store = ObjectCache.default() if options.cache else None
    code = store.get(key) if store is not None else None
    hit = code is not None
    if code is None:
        from bpfc.codegen import generate  # late: it needs llvmlite

        shared = front(options) if front is not None else None
        code = generate(program, maps, options, overridden, context, target, shared).code
        if store is not None:
            store.put(key, code)
    return Compiled(code, level, hit, time.perf_counter_ns() - before)


def compile_for(
    program: Program, maps: Mapping[str, Map], options: Options, targets: Iterable[str]
) -> dict[str, Compiled]:
    """Native code of `program` for each of these targets, by their names: it is checked and optimized once for each order
    of bytes. A program of bare instructions can be in either, one of an object is in its own.

    Raises as `compile_program`.
    """
    fronts: dict[bool, Front] = {}
    found: dict[str, Compiled] = {}
    for target in [target_named(name) for name in targets]:
        is_big = target.byte_order == "big"
        meant = program if program.section else replace(program, big_endian=is_big)

        def front(options: Options, meant: Program = meant) -> Front:
            from bpfc.codegen import front_of  # late, as above

            if meant.big_endian not in fronts:
                fronts[meant.big_endian] = front_of(meant, maps, options)
            return fronts[meant.big_endian]

        found[target.name] = compile_program(meant, maps, options, target=target, front=front)
    return found


def check_byte_order(program: Program, target: Target) -> None:
    """The byte order is part of a program. Raises UnsupportedError for a target of the other one."""
    order = "big" if program.big_endian else "little"
    if order != target.byte_order:
        said = f"program '{program.name}' is {order}-endian, {target.name} is {target.byte_order}-endian"
        note = f"run it for a {order}-endian target, or compile the object with -target bpf{'el' if program.big_endian else 'eb'}"
        at = Location(file=program.file, function=program.name)
        raise UnsupportedError([Diagnostic("foreign-byte-order", said, at, notes=(note,))])


def cache_key(
    program: Program,
    maps: Mapping[str, Map],
    options: Options,
    overridden: frozenset[int],
    context: ContextLayout | None = None,
    target: Target | None = None,
) -> bytes:
    """A digest of everything the native code depends on."""
    said = (
        FORMAT,
        *toolchain(),
        _own_version(),
        target.name if target is not None else None,
        sorted(asdict(options).items()),
        sorted(overridden),
        program.digest,
        context,
        sorted((name, _shape(map_, options)) for name, map_ in maps.items()),
    )
    return blake2b(repr(said).encode()).digest()


def _shape(map_: Map, options: Options) -> tuple[object, ...]:
    """What code depends on of a map: all of its declaration, and its content when that is folded."""
    content = None
    if options.fold and map_.is_read_only:
        content = (blake2b(map_.initial or b"").digest(), map_.relocated)
    inner = _shape(map_.inner, options) if map_.inner is not None else None
    sizes = (map_.key_size, map_.value_size, map_.max_entries, map_.flags)
    return (map_.type.value, *sizes, map_.is_read_only, content, inner, map_.special)


@cache
def _own_version() -> str:
    """The newest change of the compiler's own files, so that a changed compiler does not serve old code."""
    newest = total = 0
    folders = [str(Path(str(module.__file__)).parent) for module in (abi, isa)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    newest, total = max(newest, status.st_mtime_ns), total + status.st_size
                elif entry.name != "__pycache__" and entry.is_dir():
                    folders.append(entry.path)
    return f"{newest} {total}"
