"""The host's map operations as native code; needs LLVM, so it is imported only when the cache has none."""

from __future__ import annotations

from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.target import Target


def generate(text: str, target: Target, cpu: str | None = None) -> NativeCode:
    """Native code of IR text for `target`; `cpu` as Machine takes it."""
    machine = Machine(target, Level.DEFAULT, cpu)
    module = machine.parse(text)
    machine.optimize(module)
    return parse_object(machine.emit_object(module), target)
