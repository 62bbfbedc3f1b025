"""What all images of one machine share: memory near each other, threads' blocks, records, code by shape.

    pool    | images ... | shared parts |     | threads' blocks | records |

Each space (`runtime/space`) has one.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

from backends.image_parts import parts_text
from backends.image_shape import Shape
from backends.native_code import NativeCode
from backends.target import Target
from backends.thread_parts import THREAD_GONE
from backends.trampoline import trampoline_text
from runtime.cache import ObjectCache, toolchain
from runtime.layout import Layout, layout_of
from runtime.linker import LinkedImage, link
from runtime.memory import Pool
from runtime.records import LinkRecord, Records
from runtime.threads import Threads

if TYPE_CHECKING:
    from backends.image_code import ImageCompiler


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """What all images of a shape have in common."""

    code: NativeCode
    layout: Layout
    is_counted: bool


@final
class HookSpace:
    """Owns what images share, for as long as its pool lives. Callers hold `attach_lock`.

    `external`: the addresses of C functions that code may call; `cpu` to compile for, None for just this host's.
    """

    def __init__(
        self, target: Target, pool: Pool, external: Callable[[str], int | None], cpu: str | None
    ) -> None:
        self.target, self.pool, self._external, self._cpu = target, pool, external, cpu
        self.is_hosted = cpu is None
        self.threads = Threads(pool, target.byte_order)
        self.records = Records(pool, target.byte_order)
        self._prepared: dict[Shape, Prepared] = {}
        self._links: weakref.WeakSet[LinkRecord] = weakref.WeakSet()
        self._is_timed = False

    @cached_property
    def parts(self) -> LinkedImage:
        """The functions that images call."""
        text = parts_text(self.is_hosted, self.target.word)
        code = self._cached(text, lambda: self._compiler.text(text))
        found = self.threads.symbols
        made = link(code, lambda name: found.get(name) or self._external(name), self.pool)
        if self.is_hosted:
            self.threads.watch_ends(made.address_of(THREAD_GONE))
        return made

    @cached_property
    def shared(self) -> dict[str, int]:
        """The symbols that all images are bound to."""
        parts = {symbol.name: symbol.address for symbol in self.parts.functions}
        return {**parts, **self.threads.symbols}

    def prepare(self, shape: Shape) -> Prepared:
        """Images of a shape: their code was made before, is in the object cache, or is compiled."""
        found = self._prepared.get(shape)
        if found is None:
            code = self._cached(trampoline_text(shape), lambda: self._compiler.image(shape))
            found = self._prepared[shape] = Prepared(code, layout_of(code, self.target), shape.is_counted)
        return found

    def link(self, prepared: Prepared, symbols: Mapping[str, int]) -> LinkedImage:
        """An image, bound to what it calls and reads."""
        return link(prepared.code, symbols, self.pool, layout=prepared.layout)

    def link_record(self, cookie: int) -> LinkRecord:
        """A new record for a link."""
        record = LinkRecord(self.records, cookie)
        self._links.add(record)
        record.time(self._is_timed)
        return record

    def time_runs(self, on: bool) -> None:
        """Whether runs are counted and timed."""
        self._is_timed = on
        for record in self._links:
            record.time(on)

    @cached_property
    def _compiler(self) -> ImageCompiler:
        from backends.image_code import ImageCompiler  # late: it needs llvmlite

        return ImageCompiler(self.target, self._cpu)

    def _cached(self, text: str, compile: Callable[[], NativeCode]) -> NativeCode:
        said = (*toolchain(), self.target.name, self._cpu or "", text)
        key = hashlib.sha256("\0".join(said).encode()).digest()
        store = ObjectCache.default()
        code = store.get(key)
        if code is None:
            code = compile()
            store.put(key, code)
        return code
