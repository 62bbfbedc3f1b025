"""libbpf as a loader of whole objects: what the running kernel says to each of their programs. Nothing is attached.

Safe because the library's handles stay within one `opened` block, and the logs it is given outlive it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from re import findall
from typing import Final

from ir.kinds import MapType

STATISTICS: Final = 4
"""The log level that tells what a verification took, and no instruction."""
LOG_SIZE: Final = 1 << 20

FEW_ENTRIES: Final = 8
MOST_ENTRIES: Final = 1 << 16
RING_SIZE: Final = 1 << 16
STACK_SIZE: Final = 8 * 127
_COUNTED: Final = frozenset({MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
_RINGS: Final = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF})
_OF_DESCRIPTORS: Final = frozenset({MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY})
_COUNTLESS: Final = frozenset(
    {
        MapType.PERF_EVENT_ARRAY,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
        MapType.CGROUP_STORAGE,
        MapType.PERCPU_CGROUP_STORAGE,
        MapType.STRUCT_OPS,
        MapType.ARENA,
    }
)
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_QUIET = _PRINT(lambda level, text, arguments: 0)


class Said(Enum):
    """What the kernel says. Undecided: its verifier was not asked, as when a map cannot be made or a function is not there."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of the running kernel: `reason` is its last line, `ns` and `steps` are what it says that it took."""

    said: Said
    reason: str = ""
    ns: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    """A map as it was made: with as many entries, and a key and a value of as many bytes, as an application would set."""

    max_entries: int
    key_size: int
    value_size: int


@cache
def libbpf() -> ctypes.CDLL:
    """The library, or that which the environment's LIBBPF names; OSError where it is not installed."""
    library = ctypes.CDLL(os.environ.get("LIBBPF", "libbpf.so.1"))
    library.libbpf_set_print(_QUIET)
    for call in ("bpf_object__open_mem", "bpf_object__next_program", "bpf_object__next_map"):
        getattr(library, call).restype = ctypes.c_void_p
    for call in ("bpf_program__name", "bpf_program__section_name", "bpf_map__name"):
        getattr(library, call).restype = ctypes.c_char_p
    library.bpf_program__insn_cnt.restype = ctypes.c_size_t
    for call in ("bpf_map__max_entries", "bpf_map__key_size", "bpf_map__value_size"):
        getattr(library, call).restype = ctypes.c_uint32
    return library


def is_installed() -> bool:
    """Whether there is a library to load with."""
    try:
        libbpf()
    except OSError:
        return False
    return True


def program_names(data: bytes) -> dict[str, int]:
    """Each program of an object as libbpf sees it, with its instructions before subprograms are added."""
    with _opened(data) as handle:
        return {name: libbpf().bpf_program__insn_cnt(one) for name, one in _programs(handle)}


def can_open(data: bytes) -> bool:
    """Whether libbpf can make sense of an object."""
    library = libbpf()
    handle = library.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
    if handle:
        library.bpf_object__close(ctypes.c_void_p(handle))
    return bool(handle)


def sized_maps(data: bytes) -> dict[str, Size]:
    """The maps that `judged` makes with other sizes than an object says, because it says none or far too many."""
    with _opened(data) as handle:
        return {name: size for name, _, said, size in _sizes(handle) if said != size}


@contextmanager
def loaded(data: bytes, name: str) -> Iterator[int | None]:
    """The descriptor of one program of an object, loaded into the kernel; None when it is refused."""
    library = libbpf()
    with _opened(data) as handle:
        chosen = _choose(handle, name)
        yield None if library.bpf_object__load(handle) else library.bpf_program__fd(chosen)


def judged(data: bytes, name: str, type: int = 0) -> Verdict:
    """What the running kernel says to one program of an object, whose maps are made as `sized_maps` says.

    `type` is that of the program where libbpf cannot tell it from the section's name.
    """
    library = libbpf()
    log = ctypes.create_string_buffer(LOG_SIZE)
    with _opened(data) as handle:
        chosen = _choose(handle, name)
        if not library.bpf_program__type(chosen):
            library.bpf_program__set_type(chosen, type)
        for _, map_, said, size in _sizes(handle):
            if said != size:
                library.bpf_map__set_max_entries(map_, size.max_entries)
                library.bpf_map__set_key_size(map_, size.key_size)
                library.bpf_map__set_value_size(map_, size.value_size)
        library.bpf_program__set_log_level(chosen, STATISTICS)
        library.bpf_program__set_log_buf(chosen, log, ctypes.c_size_t(len(log)))
        is_refused = library.bpf_object__load(handle)
    return _read(bool(is_refused), log.value.decode(errors="replace"))


def _read(is_refused: bool, log: str) -> Verdict:
    """The verdict that a log tells."""
    said = Said.REFUSED if is_refused else Said.ACCEPTED
    reasons = [
        line
        for line in log.splitlines()
        if line.strip() and not line.startswith(("processed ", "verification time ", "stack depth "))
    ]
    steps, took = findall(r"(?m)^processed (\d+)", log), findall(r"(?m)^verification time (\d+)", log)
    if is_refused and not reasons:
        said = Said.UNDECIDED  # nothing was said, or all was well with the program
    numbers = [int(found[-1]) if found else 0 for found in (took, steps)]
    return Verdict(said, reasons[-1] if reasons and is_refused else "", 1000 * numbers[0], numbers[1])


def _choose(handle: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
    """The program called `name`, which is the only one that will be loaded; no map will be pinned."""
    library = libbpf()
    chosen = None
    for each, program in _programs(handle):
        library.bpf_program__set_autoload(program, each == name)
        chosen = program if each == name else chosen
    for map_ in _following(library.bpf_object__next_map, handle):
        library.bpf_map__set_pin_path(map_, None)
    assert chosen is not None, name
    return chosen


def _sizes(handle: ctypes.c_void_p) -> Iterator[tuple[str, ctypes.c_void_p, Size, Size]]:
    """Each map by its name: its sizes as the object says them, and as it is made."""
    library = libbpf()
    for map_ in _following(library.bpf_object__next_map, handle):
        sizes = (library.bpf_map__max_entries, library.bpf_map__key_size, library.bpf_map__value_size)
        said = Size(*(size(map_) for size in sizes))
        kind = library.bpf_map__type(map_)
        entries, key, value = said.max_entries, said.key_size, said.value_size
        if kind in _RINGS:
            entries = RING_SIZE
        elif kind in _COUNTED:
            entries = min(entries or FEW_ENTRIES, MOST_ENTRIES)
        elif not entries and kind not in _COUNTLESS:
            entries = FEW_ENTRIES
        if kind == MapType.STACK_TRACE and not value:
            value = STACK_SIZE
        if kind in _OF_DESCRIPTORS:
            key = value = 4
        yield library.bpf_map__name(map_).decode(), map_, said, Size(entries, key, value)


@contextmanager
def _opened(data: bytes) -> Iterator[ctypes.c_void_p]:
    library = libbpf()
    handle = library.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
    assert handle, "libbpf can't read the object"
    try:
        yield ctypes.c_void_p(handle)
    finally:
        library.bpf_object__close(ctypes.c_void_p(handle))


def _programs(handle: ctypes.c_void_p) -> Iterator[tuple[str, ctypes.c_void_p]]:
    library = libbpf()
    for program in _following(library.bpf_object__next_program, handle):
        yield library.bpf_program__name(program).decode(), program


def _following(step: Callable[..., int | None], handle: ctypes.c_void_p) -> Iterator[ctypes.c_void_p]:
    found = step(handle, None)
    while found:
        yield ctypes.c_void_p(found)
        found = step(handle, ctypes.c_void_p(found))
