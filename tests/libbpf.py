"""libbpf as a loader of whole objects: what is written for it must load wherever what was read did. Nothing is attached."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_QUIET = _PRINT(lambda level, text, arguments: 0)


@cache
def libbpf() -> ctypes.CDLL:
    """The library; skips where it is not installed."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("libbpf.so.1 is not installed")
    library.libbpf_set_print(_QUIET)
    for name in ("bpf_object__open_mem", "bpf_object__next_program", "bpf_object__next_map"):
        getattr(library, name).restype = ctypes.c_void_p
    library.bpf_program__name.restype = ctypes.c_char_p
    library.bpf_program__insn_cnt.restype = ctypes.c_size_t
    return library


def program_names(data: bytes) -> dict[str, int]:
    """Each program of an object as libbpf sees it, with its instructions before subprograms are added."""
    with _opened(data) as handle:
        return {name: libbpf().bpf_program__insn_cnt(ctypes.c_void_p(one)) for name, one in _programs(handle)}


def can_open(data: bytes) -> bool:
    """Whether libbpf can make sense of an object."""
    library = libbpf()
    handle = library.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
    if handle:
        library.bpf_object__close(ctypes.c_void_p(handle))
    return bool(handle)


@contextmanager
def loaded(data: bytes, name: str) -> Iterator[int | None]:
    """The descriptor of one program of an object, loaded into the kernel; None when it is refused."""
    library = libbpf()
    with _opened(data) as handle:
        chosen = None
        for each, program in _programs(handle):
            library.bpf_program__set_autoload(ctypes.c_void_p(program), each == name)
            chosen = program if each == name else chosen
        for map_ in _following(library.bpf_object__next_map, handle):
            library.bpf_map__set_pin_path(ctypes.c_void_p(map_), None)
        assert chosen is not None, name
        if library.bpf_object__load(ctypes.c_void_p(handle)):
            yield None
        else:
            yield library.bpf_program__fd(ctypes.c_void_p(chosen))


@contextmanager
def _opened(data: bytes) -> Iterator[int]:
    library = libbpf()
    handle = library.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), None)
    assert handle, "libbpf can't read the object"
    try:
        yield handle
    finally:
        library.bpf_object__close(ctypes.c_void_p(handle))


def _programs(handle: int) -> Iterator[tuple[str, int]]:
    library = libbpf()
    for program in _following(library.bpf_object__next_program, handle):
        yield library.bpf_program__name(ctypes.c_void_p(program)).decode(), program


def _following(step: ctypes._CFuncPtr, handle: int) -> Iterator[int]:
    found = step(ctypes.c_void_p(handle), None)
    while found:
        yield found
        found = step(ctypes.c_void_p(handle), ctypes.c_void_p(found))
