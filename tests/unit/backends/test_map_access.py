"""What programs may do with maps that are read-only or write-only to them, here and in the kernel."""

from __future__ import annotations

from errno import EACCES, EINVAL

import pytest

import bpfc
from bpfc.testing.kernel import create_map, load_program
from ir.asm import assemble
from ir.diagnostics import DiagnosticError
from ir.kinds import MapFlag, MapType, ProgramType
from ir.object import Map
from runtime.bpf_syscall import KernelError

FD = 3
VALUE = "r1 = map_value(3, 8)\n"
KEY = "*(u32 *)(r10 - 4) = 0\n*(u64 *)(r10 - 16) = 0\nr1 = map_fd(3)\nr2 = r10\nr2 += -4\n"
FOUND = KEY + "call 1\nif r0 == 0 goto +1\n"
LISTED = "*(u64 *)(r10 - 8) = 1\nr1 = map_fd(3)\nr2 = r10\nr2 += -8\n"
R, W = MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG
CASES = {
    "load": (MapType.ARRAY, VALUE + "r0 = *(u64 *)(r1 + 0)\nif r0 == 5 goto +1\n", {W}),
    "store": (MapType.ARRAY, VALUE + "*(u64 *)(r1 + 0) = 1\n", {R}),
    "add": (MapType.ARRAY, VALUE + "r2 = 1\nlock *(u64 *)(r1 + 0) += r2\n", {R, W}),
    "load what is found": (MapType.HASH, FOUND + "r0 = *(u64 *)(r0 + 0)\nif r0 == 5 goto +1\n", {W}),
    "store what is found": (MapType.HASH, FOUND + "*(u64 *)(r0 + 0) = 1\n", {R}),
    "lookup": (MapType.HASH, KEY + "call 1\n", set()),
    "update": (MapType.HASH, KEY + "r3 = r10\nr3 += -16\nr4 = 0\ncall 2\n", {R}),
    "delete": (MapType.HASH, KEY + "call 3\n", {R}),
    "push": (MapType.QUEUE, LISTED + "r3 = 0\ncall 87\n", {R}),
    "pop": (MapType.QUEUE, LISTED + "call 88\n", {R}),
    "peek": (MapType.QUEUE, LISTED + "call 89\n", set()),
}


def declared(type: MapType, flags: MapFlag) -> Map:
    sizes = {MapType.ARRAY: (4, 16, 1), MapType.HASH: (4, 8, 4), MapType.QUEUE: (0, 8, 4)}[type]
    return Map("map", type, *sizes, flags)


def errno_here(text: str, map: Map) -> int:
    try:
        with bpfc.assemble(text, type=ProgramType.SOCKET_FILTER, maps={FD: map}).start() as runtime:
            runtime["main"].run(bytes(64))
    except DiagnosticError as error:
        return error.diagnostics[0].errno
    return 0


@pytest.mark.parametrize("flags", [MapFlag(0), R, W], ids=["any", "read-only", "write-only"])
@pytest.mark.parametrize("case", CASES)
def test_an_access_that_the_map_forbids_is_refused(case: str, flags: MapFlag) -> None:
    type, text, refused = CASES[case]
    wanted = EACCES if flags in refused else 0
    assert errno_here(f"{text}r0 = 0\nexit", declared(type, flags)) == wanted


@pytest.mark.kernel
@pytest.mark.parametrize("flags", [MapFlag(0), R, W], ids=["any", "read-only", "write-only"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_refuses_the_same(case: str, flags: MapFlag) -> None:
    type, text, refused = CASES[case]
    map = declared(type, flags)
    with create_map(map) as descriptor:
        code = f"{text}r0 = 0\nexit".replace("map_value(3", f"map_value({descriptor}").replace(
            "map_fd(3)", f"map_fd({descriptor})"
        )
        found = 0
        try:
            with load_program(assemble(code), ProgramType.SOCKET_FILTER):
                pass
        except KernelError as error:
            found = error.errno
    assert found == (EACCES if flags in refused else 0)


@pytest.mark.parametrize(
    ("call", "type"),
    [
        (156, MapType.QUEUE),
        (157, MapType.HASH),
        (130, MapType.ARRAY),
        (51, MapType.HASH),
        (87, MapType.ARRAY),
    ],
)
def test_a_helper_on_a_map_of_a_type_that_it_does_not_take_is_refused(call: int, type: MapType) -> None:
    """Unproved too: what the helper does is written for other memory."""
    text = f"r6 = *(u64 *)(r1 + 0)\nr1 = map_fd(3)\nr2 = r10\nr2 += -8\nr3 = 0\nr4 = 1\nr5 = 0\ncall {call}\nr0 = 0\nexit"
    with bpfc.assemble(text, maps={FD: declared(type, MapFlag(0))}).start() as runtime:
        with pytest.raises(DiagnosticError) as caught:
            runtime["main"].run(bytes(64))
        assert (caught.value.diagnostics[0].code, caught.value.errno) == ("map-type", EINVAL)
