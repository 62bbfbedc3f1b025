"""Many cases as one: compiled, linked and run together on emulated machines, for what a case costs alone is hardly its own.

cases ─► lowered once for each order of bytes ─► one LLVM module ─► each target: one object, one image
         maps of one shape ─────────────────────────────────────► in place once, made new for each case
         inputs ────────────────────────────────────────────────► one call of native code for all of a case
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, final

from backends import abi
from backends.machine import Machine
from backends.object_reader import parse_object
from backends.registry import target_named
from backends.target import Target
from bpfc.codegen import LEVELS, front_of, lowered_text
from bpfc.options import Options
from bpfc.testing.case import LICENSE, Case
from bpfc.testing.native import machine_of
from bpfc.testing.reference import FUEL, Observed, Outcome
from ir.context import ContextLayout, layout_of
from ir.diagnostics import Location, RejectedError
from ir.kinds import MapType
from ir.object import Map, Object
from runtime.execution import Execution, trap_error
from runtime.limits import Limits
from runtime.linker import LinkedImage, link
from runtime.maps.live import LiveMap
from runtime.words import word_type
from runtime.world import World

_ROW: Final = (
    6  # words: function, its three arguments, run state with the random numbers to go on with, result
)
_LIMITS: Final = Limits(fuel=FUEL)
_DRIVER: Final = f"""
define void @drive(ptr %rows, i64 %count) {{
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %goes.on = icmp ult i64 %i, %count
  br i1 %goes.on, label %body, label %done
body:
  %words = mul i64 %i, {_ROW}
  %row = getelementptr i64, ptr %rows, i64 %words
  %function.word = load i64, ptr %row
  %function = inttoptr i64 %function.word to ptr
  %run.at = getelementptr i64, ptr %row, i64 1
  %run.word = load i64, ptr %run.at
  %run = inttoptr i64 %run.word to ptr
  %a.at = getelementptr i64, ptr %row, i64 2
  %a.word = load i64, ptr %a.at
  %b.at = getelementptr i64, ptr %row, i64 3
  %b = load i64, ptr %b.at
  %before.at = getelementptr i64, ptr %row, i64 4
  %before.word = load i64, ptr %before.at
  %before = inttoptr i64 %before.word to ptr
  %random.from = getelementptr i8, ptr %before, i64 {abi.RNG}
  %random = load i64, ptr %random.from
  %random.to = getelementptr i8, ptr %run, i64 {abi.RNG}
  store i64 %random, ptr %random.to
  %result = call i64 %function(ptr %run, i64 %a.word, i64 %b)
  %result.at = getelementptr i64, ptr %row, i64 5
  store i64 %result, ptr %result.at
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""


def observe(cases: Sequence[Case], level: str, targets: Sequence[str]) -> list[dict[str, Observed]]:
    """What each case does on each target, in that one's order of bytes; nothing for cases that are refused."""
    found: list[dict[str, Observed]] = [{} for _ in cases]
    for order in ("little", "big"):
        names = [name for name in targets if target_named(name).byte_order == order]
        if not names:
            continue
        for group in _alike(names):
            company = _Company(cases, level, order == "big", group[0])
            for target in group:
                for number, observed in _bench(target.name).run(company).items():
                    found[number][target.name] = observed
    return found


def _alike(names: Sequence[str]) -> list[list[Target]]:
    """Targets by the size of their pointers, on which the text of a program depends."""
    targets = [target_named(name) for name in names]
    groups = [[each for each in targets if each.word == word] for word in (8, 4)]
    return [group for group in groups if group]


@final
class _Company:
    """Cases as one LLVM module, each with functions of its own names. `cases` are those that were not refused."""

    def __init__(self, cases: Sequence[Case], level: str, big_endian: bool, first: Target) -> None:
        self.level = level
        self.cases: dict[int, Case] = {}
        self._parser = Machine(first, LEVELS[level], first.cpu)
        self._module = self._parser.parse(_DRIVER)
        options = Options(level=level, cache=False, extensible=False)
        for number, case in enumerate(cases):
            assert case.program is not None, "a case of instructions"
            program = replace(case.program, big_endian=big_endian)
            try:
                front = front_of(program, case.maps, options)
                text = lowered_text(front, case.maps, options, first, frozenset(), has_batch=False)[1]
            except RejectedError:
                continue
            self._add(number, text)
            self.cases[number] = replace(case, program=program)

    def _add(self, number: int, text: str) -> None:
        module = self._parser.parse(text)
        for function in module.functions:
            if not function.is_declaration:
                function.name = f"{number}.{function.name}"
        self._module.link_in(module)

    def link(self, target: Target, world: World) -> LinkedImage:
        """The module for a target, in the memory of its maps."""
        machine = Machine(target, LEVELS[self.level], target.cpu)
        module = machine.adopt(self._module)
        if self.level != "O0":
            machine.optimize(module)
        return link(parse_object(machine.emit_object(module), target), world.resolve, world.pool)


@cache
def _bench(name: str) -> _Bench:
    """What cases run in on the target `name`, for as long as this process lives."""
    return _Bench(name)


@final
class _Bench:
    """Maps and run states on one emulated machine."""

    def __init__(self, name: str) -> None:
        self.platform = machine_of(name)
        self._worlds: dict[tuple[object, ...], _Maps] = {}
        self._lanes: dict[tuple[object, int], Execution] = {}
        self._rows = self.platform.allocate(8)

    def run(self, company: _Company) -> dict[int, Observed]:
        """Every case of a company on all of its inputs."""
        found: dict[int, Observed] = {}
        if not company.cases:
            return found
        maps = self._maps(next(iter(company.cases.values())).maps)
        with company.link(self.platform.target, maps.world) as image:
            drive = self.platform.function(image.address_of("drive"), ctypes.c_void_p, ctypes.c_uint64)
            for number, case in company.cases.items():
                assert case.program is not None, "as above"
                maps.reset(case.maps)
                address = image.address_of(f"{number}.{case.program.name}")
                outcomes = self._drive(drive, address, layout_of(case.program.type), case.inputs, maps.world)
                found[number] = Observed(outcomes, maps.contents())
        return found

    def _maps(self, maps: Mapping[str, Map]) -> _Maps:
        key = tuple(replace(map_, initial=None) for map_ in maps.values())
        if key not in self._worlds:
            self._worlds[key] = _Maps(maps, self.platform)
        return self._worlds[key]

    def _drive(
        self, drive: Any, address: int, layout: ContextLayout, inputs: Sequence[bytes], world: World
    ) -> tuple[Outcome, ...]:
        lanes = [self._lane(layout, number, world) for number in range(len(inputs))]
        words = self._words(_ROW * len(inputs))
        before = lanes[0]
        for number, (lane, data) in enumerate(zip(lanes, inputs, strict=True)):
            arguments = (*lane.lay_out(data, {}), 0)[:3]
            words[_ROW * number : _ROW * number + 5] = [address, *arguments, before.run_address]
            before = lane
        drive(ctypes.addressof(words), len(inputs))
        return tuple(
            _outcome(lane, words[_ROW * number + 5], len(data))
            for number, (lane, data) in enumerate(zip(lanes, inputs, strict=True))
        )

    def _lane(self, layout: ContextLayout, number: int, world: World) -> Execution:
        """The memory of the run on input `number`."""
        key = (layout.name, number)
        if key not in self._lanes:
            is_big = self.platform.target.byte_order == "big"
            self._lanes[key] = Execution(layout, world.segments(), is_big, _LIMITS, self.platform.allocate)
        return self._lanes[key]

    def _words(self, count: int) -> Any:
        if len(self._rows) < 8 * count:
            self._rows = self.platform.allocate(8 * count)
        return (word_type(self.platform.target.byte_order) * count).from_buffer(self._rows)


def _outcome(lane: Execution, result: int, length: int) -> Outcome:
    trap = lane.trap()
    if trap is not None:
        return Outcome(trap_error(trap, Location()).diagnostics[0].code, b"")
    start, end = lane.left(length)
    # Safe because the run ended at no check, so what it left is in the lane's own memory.
    return Outcome(result, ctypes.string_at(start, end - start))


@final
class _Maps:
    """The maps of cases that declare the same, but for initial values."""

    def __init__(self, maps: Mapping[str, Map], platform: Any) -> None:
        is_big = platform.target.byte_order == "big"
        self.world = World(Object("together", {}, maps, LICENSE, is_big), platform=platform)
        self._new = {name: bytes(live.block.view) for name, live in self.world.live.items()}

    def reset(self, maps: Mapping[str, Map]) -> None:
        """Make every map new, with the initial values of `maps`."""
        for name, live in self.world.live.items():
            live.block.view[:] = self._new[name]
            initial = maps[name].initial
            if initial is not None:
                start = live.layout.values_offset
                live.block.view[start : start + len(initial)] = initial

    def contents(self) -> dict[str, object]:
        """What is in the maps: bytes of the values in order, or by key."""
        return {name: _content(live) for name, live in self.world.live.items()}


def _content(live: LiveMap) -> object:
    declared, layout = live.declared, live.layout
    if declared.type is not MapType.ARRAY:
        return dict(live.items())
    places = (layout.values_offset + index * layout.value_stride for index in range(declared.max_entries))
    return b"".join(bytes(live.block.view[place : place + declared.value_size]) for place in places)
