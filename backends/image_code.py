"""Native code of images and of what they share; needs LLVM, so it is imported only when the cache has none."""

from __future__ import annotations

from typing import final

from backends.image_shape import Shape
from backends.machine import Level, Machine
from backends.native_code import NativeCode
from backends.object_reader import parse_object
from backends.target import Target
from backends.trampoline import trampoline_text


@final
class ImageCompiler:
    """Compiles for one target. The text is as it should be run, so LLVM's passes are left out. One thread at a time."""

    def __init__(self, target: Target, cpu: str | None) -> None:
        self._machine = Machine(target, Level.DEFAULT, cpu)

    def image(self, shape: Shape) -> NativeCode:
        """The image of a shape."""
        return self._compile(trampoline_text(shape))

    def text(self, text: str) -> NativeCode:
        """Text that is neither an image nor for one alone."""
        return self._compile(text)

    def _compile(self, text: str) -> NativeCode:
        module = self._machine.parse(text)
        return parse_object(self._machine.emit_object(module), self._machine.target)
