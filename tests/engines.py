"""What can run a program on raw memory: tests that take an `engine` run once for each of these.

Each emulated target is an engine too, which skips where its emulator is not installed. One machine serves all
programs of a session: to make one takes longer than to run one. `on_machine` lets whole objects run there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Final

import pytest

import bpfc.loaded
from bpfc.compile import compile_program
from bpfc.conformance import ENGINES as PLUGIN_ENGINES
from bpfc.conformance import Engine
from bpfc.loaded import Loaded, Source, from_insns
from bpfc.options import Options
from bpfc.running import Runtime
from bpfc.running_program import RunningProgram
from ir.context import RAW
from ir.encoding import decode
from ir.environment import Environment
from ir.interpreter import Machine as Interpreter
from ir.isa import Insn
from ir.kinds import MapFlag
from ir.object import Object, Reference, ReferenceKind
from ir.segments import Memory, Segment, make_segment
from ir.self_compares import lower_self_compares
from runtime.epoch import epochs
from runtime.execution import Execution, RunResult
from runtime.limits import Limits
from runtime.linker import link
from runtime.maps.live import LiveMap
from runtime.platform import Platform
from runtime.space import Space, host_space
from runtime.world import World

__all__ = ["EMULATED", "ENGINES", "LITTLE_ENDIAN", "Engine"]

EMULATED: Final = ("x86_64", "aarch64", "riscv64", "s390x", "ppc64le", "i386", "armv7")
BIG_ENDIAN: Final = ("s390x",)
HOST: Final = "host"
INTERPRETER: Final = "interpreter"
_START: Final = Loaded.start
_KEPT: Final = ExitStack()


@cache
def machine_of(name: str) -> Platform:
    """The emulated machine `name`, for the whole session."""
    return _KEPT.enter_context(bpfc.emulate(name))


@cache
def world_of(name: str) -> World:
    """A world without maps on the emulated machine `name`, for the whole session."""
    return World(Object("tests", {}, {}), cpus=1, platform=machine_of(name))


@contextmanager
def on_machine(name: str) -> Iterator[Space]:
    """While inside, objects start on the machine `name` where nothing else is said: `HOST`, the interpreter, or an emulated one.

    Programs that tests assemble are then in its byte order, and NAME.o is NAME.eb.o on big-endian ones.
    """
    if name == HOST:
        yield host_space()
        return
    if name == INTERPRETER:
        with on_interpreter() as space:
            yield space
        return
    require_emulator(name)
    machine = machine_of(name)
    is_big = machine.target.byte_order == "big"

    def start(loaded: Loaded, *arguments: Any, **named: Any) -> Runtime:
        return _START(loaded, *arguments, **{"target": machine, **named})

    def load(source: Source, name: str = "") -> Loaded:
        if is_big and isinstance(source, Path):
            source = source.with_name(source.name.replace(".o", ".eb.o").replace(".eb.eb", ".eb"))
        return bpfc.loaded.load(source, name)

    def insns(insns: tuple[Insn, ...], *arguments: Any, **named: Any) -> Loaded:
        return from_insns(insns, *arguments, **{"big_endian": is_big, **named})

    def assemble(text: str, *arguments: Any, **named: Any) -> Loaded:
        return bpfc.loaded.assemble(text, *arguments, **{"big_endian": is_big, **named})

    def code(code: bytes, *arguments: Any, **named: Any) -> Loaded:
        lowered = lower_self_compares(code, False) if named.pop("self_compares", False) else code
        return insns(decode(lowered, False), *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loaded, "start", start)
        for name, function in {
            "load": load,
            "from_insns": insns,
            "assemble": assemble,
            "from_bytes": code,
        }.items():
            patch.setattr(bpfc, name, function)
        yield machine.space
    epochs().drain(10)


@contextmanager
def on_interpreter() -> Iterator[Space]:
    """While inside, runs are interpreted: on the memory, maps and host helpers of the compiled program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunningProgram, "run", _interpret)
        yield host_space()


def _interpret(
    running: RunningProgram, data: object = b"", ctx: Mapping[str, int] | None = None
) -> RunResult:
    world, program = running.runtime.world, running.program
    execution = running._execution()

    def interpreted(run: int, *arguments: int) -> int:
        big_endian = program.big_endian
        segments = [
            make_segment(live.address, live.block.view, name, None if not _is_constant(live) else False)
            for name, live in world.live.items()
        ]
        segments.append(_host_segment(execution._packet, "the packet"))
        context = _host_segment(execution._context, "the context")
        machine = Interpreter(
            program,
            Memory([*segments, context], big_endian),
            Environment({1: lookup, 7: lambda *_: 7}, resolve=resolve),
            None if execution.layout.is_raw else context,
        )
        return machine.run(*arguments).ret

    def resolve(reference: Reference) -> int:
        kind = "map" if reference.kind is ReferenceKind.MAP else "value"
        address = world.resolve(f"{kind}.{reference.name}")
        assert address is not None
        return address + (reference.offset if kind == "value" else 0)

    def lookup(machine: Interpreter, map: int, key: int, *_: int) -> int:
        view = world.map_at(map)
        assert view is not None
        return view.live.locate(bytes(machine.memory.view(key, view.live.key_size)))

    with world.entered(execution):
        return execution.run(interpreted, bytes(data), ctx or {})  # type: ignore[call-overload]  # as RunningProgram.run


def _is_constant(live: LiveMap) -> bool:
    return bool(live.declared.flags & MapFlag.RDONLY_PROG)


def _host_segment(memory: ctypes.Array[Any], name: str) -> Segment:
    address, size = ctypes.addressof(memory), ctypes.sizeof(memory)
    # Safe because the run that owns the memory outlives the interpreter's.
    return make_segment(address, (ctypes.c_uint8 * size).from_address(address), name)


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
