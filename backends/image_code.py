"""Native code of images and of what they share; needs LLVM, so it is imported only when the cache has none."""

from __future__ import annotations

from functools import cached_property
from typing import final

from backends.image_shape import Shape
from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.target import Target
from backends.trampoline import trampoline_text


@final
class ImageCompiler:
    """Compiles for one target. The text is as it should be run, so LLVM's passes are left out. One thread at a time.

    An image of many programs is little more than calls, and there is a new one with each that is attached: LLVM takes its
    quick way through it, which is 1 ms in place of 10.
    """

    def __init__(self, target: Target, cpu: str | None) -> None:
        self._target, self._cpu = target, cpu

    def image(self, shape: Shape) -> NativeCode:
        """The image of a shape."""
        return _compile(self._careful if shape.is_inline else self._quick, trampoline_text(shape))

    def text(self, text: str) -> NativeCode:
        """Text that is neither an image nor for one alone."""
        return _compile(self._careful, text)

    @cached_property
    def _careful(self) -> Machine:
        return Machine(self._target, Level.DEFAULT, self._cpu)

    @cached_property
    def _quick(self) -> Machine:
        return Machine(self._target, Level.NONE, self._cpu)


def _compile(machine: Machine, text: str) -> NativeCode:
    return parse_object(machine.emit_object(machine.parse(text)), machine.target)
