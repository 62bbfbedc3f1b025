"""What a case does as native code: of any level, here or on an emulated machine."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Final

from bpfc.batch import Batch
from bpfc.emulation import emulate
from bpfc.loaded import Loaded
from bpfc.options import Options
from bpfc.running import Runtime
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.reference import FUEL, Observed, Outcome, mix
from bpfc.testing.shapes.functions import KFUNC
from ir.diagnostics import TrapError
from ir.encoding import decode, encode
from ir.kinds import MapType
from ir.object import Object
from runtime.limits import Limits
from runtime.platform import Platform

LIMITS: Final = Limits(fuel=FUEL, steps=50_000_000)


@cache
def machine_of(name: str) -> Platform:
    """The emulated machine `name`, for as long as this process lives: to make one takes longer than a case."""
    return _machines().enter_context(emulate(name, LIMITS))


@cache
def _machines() -> ExitStack:
    """Closed while there is still a whole interpreter to do it."""
    machines = ExitStack()
    atexit.register(machines.close)
    return machines


def load(case: Case) -> Loaded:
    """The case as a loaded object: its instructions decoded from bytes, its hash maps made larger and resized."""
    program = case.program
    assert program is not None, "a case of instructions"
    insns = decode(encode(program.insns, program.big_endian), program.big_endian)
    maps = {
        name: replace(map_, max_entries=map_.max_entries + 3) if map_.type is MapType.HASH else map_
        for name, map_ in case.maps.items()
    }
    programs = {program.name: replace(program, insns=insns)}
    loaded = Loaded(Object("case", programs, maps, LICENSE, program.big_endian))
    for name, map_ in case.maps.items():
        if map_.type is MapType.HASH:
            loaded.resize(name, map_.max_entries)
    return loaded


@contextmanager
def started(case: Case, options: Options, target: str | None = None) -> Iterator[Runtime]:
    """The case running, here or on the emulated machine `target`, which this process makes once."""
    machine = machine_of(target) if target is not None else None
    with load(case).start(options, LIMITS, machine) as runtime:
        runtime.kfuncs[KFUNC] = mix
        yield runtime


def run(case: Case, level: str = "O2", hardened: bool = True, target: str | None = None) -> Observed:
    """Every run of a case by native code."""
    options = Options(level=level, hardened=hardened, cache=False)
    with started(case, options, target) as runtime:
        outcomes = tuple(run_once(runtime, data) for data in case.inputs)
        return Observed(outcomes, contents(case, runtime))


def run_batch(case: Case, level: str) -> Observed:
    """Every run of a case in one native loop, over packets without room around them; a trap ends it."""
    packets = [bytearray(data) for data in case.inputs]
    with started(case, Options(level=level, cache=False)) as runtime:
        batch = Batch(packets)
        try:
            rets: Sequence[int | str] = runtime[next(iter(runtime))].run_batch(batch)
        except TrapError as trap:
            first = trap.diagnostics[0]
            rets = (f"{first.code}, {', '.join(first.notes)}",)
        outcomes = tuple(Outcome(ret, bytes(data)) for ret, data in zip(rets, packets, strict=False))
        return Observed(outcomes, contents(case, runtime))


def run_once(runtime: Runtime, data: bytes) -> Outcome:
    """One run of the case's program."""
    program = runtime[next(iter(runtime))]
    try:
        result = program.run(data)
    except TrapError as trap:
        return Outcome(trap.diagnostics[0].code, b"")
    return Outcome(result.ret, result.data)


def contents(case: Case, runtime: Runtime) -> dict[str, object]:
    """What is in the maps: bytes of the values in order, or by key."""
    return {name: _content(runtime.world.live[name]) for name in case.maps}


def _content(live: Any) -> object:
    declared = live.declared
    if declared.type is MapType.ARRAY:
        keys = (index.to_bytes(4, live.host.order) for index in range(declared.max_entries))
        return b"".join(live.lookup(key) for key in keys)
    return dict(live.items())
