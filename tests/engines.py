"""What can run a program on raw memory: tests that take an `engine` run once for each of these.

Each emulated target is an engine too, which skips where its emulator is not installed. One machine serves all
programs of a session: to make one takes longer than to run one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from importlib.util import find_spec
from shutil import which
from typing import Final

import pytest

from bpfc.compile import compile_program
from bpfc.conformance import ENGINES as PLUGIN_ENGINES
from bpfc.conformance import Engine
from bpfc.loaded import from_insns
from bpfc.options import Options
from ir.context import RAW
from ir.isa import Insn
from ir.object import Object
from runtime.execution import Execution
from runtime.limits import Limits
from runtime.linker import link
from runtime.platform import Platform
from runtime.world import World

__all__ = ["EMULATED", "ENGINES", "LITTLE_ENDIAN", "Engine"]

EMULATED: Final = ("x86_64", "aarch64", "riscv64", "s390x", "ppc64le")


@cache
def world_of(name: str) -> World:
    """A world without maps on the emulated machine `name`, for the whole session."""
    from bpfc.emulation import platform_of

    empty = Object("tests", {}, {})
    platform: Platform = platform_of(empty, name, Limits(), counts=False)
    return World(empty, cpus=1, platform=platform)


def require_emulator(target: str) -> None:
    """Skip, with the reason, where the emulator of a target is not installed."""
    if target == "ppc64le":
        if not (which("qemu-ppc64le") or which("qemu-ppc64le-static")):
            pytest.skip("qemu-ppc64le (Debian's qemu-user) is not installed")
    elif find_spec("unicorn") is None:
        pytest.skip("the extra 'emu' is not installed")


def run_emulated(target: str, insns: tuple[Insn, ...], memory: bytearray) -> int:
    """r0 of a program on raw memory, which it changes, by an emulated machine; raises TrapError."""
    require_emulator(target)
    world = world_of(target)
    platform = world.platform
    program = from_insns(insns, big_endian=platform.target.byte_order == "big").program("main")
    code = compile_program(program, {}, Options(cache=False, level="O1"), target=platform.target).code
    with link(code, world.resolve, world.pool) as image:
        execution = Execution(RAW, (), program.big_endian, Limits(), platform.allocate)
        with world.entered(execution):
            result = execution.run(platform.function(image.address_of("main")), bytes(memory), {})
    memory[:] = result.data
    return result.ret


ENGINES: Final[Mapping[str, Engine]] = {
    **PLUGIN_ENGINES,
    **{f"emulated-{name}": partial(run_emulated, name) for name in EMULATED},
}
LITTLE_ENDIAN: Final = tuple(name for name in ENGINES if not name.endswith("s390x"))
