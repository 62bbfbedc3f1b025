"""Instruction arrays as maps: which instructions a program is asked about, and where they are once it is loaded.

    rt.maps["places"][0] = 5                     instruction 5, before anything uses the map
    rt.maps["places"].freeze()
    rt["filter"]                                 a program that refers to the map is loaded, and the map is its own
    rt.maps["places"][0].jitted_off              where its code is in the program's image

The rules are those of `runtime/insn_set`; programs find the same numbers in the map's memory, and may not write them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import final

from ir.btf import Btf
from ir.maps import UpdateFlag
from runtime.insn_set import VALUE_SIZE, Entry, InsnSet
from runtime.maps.live import LiveMap
from runtime.maps.view import View


@final
class InsnArrayView(View, MutableMapping[int, Entry]):
    """Entries by index. Refused changes raise RejectedError with Linux's errno."""

    def __init__(self, live: LiveMap, btf: Btf | None = None) -> None:
        super().__init__(live, btf)
        declared = live.declared
        self.tracked = InsnSet(declared.max_entries, declared.key_size, declared.value_size, declared.flags)
        self.show()

    def __getitem__(self, index: int) -> Entry:
        if not 0 <= index < len(self):
            raise KeyError(index)
        return replace(self.tracked.entries[index])

    def __setitem__(self, index: int, value: Entry | int) -> None:
        self.update_elem(index, value)

    def __delitem__(self, index: int) -> None:
        self.tracked.delete(index)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self.tracked.entries)

    def update_elem(self, index: int, value: Entry | int, flags: UpdateFlag | int = 0) -> None:
        """Let an entry track an instruction: E2BIG, EEXIST, EINVAL, and EPERM once the map is frozen."""
        self.tracked.update(index, Entry(value) if isinstance(value, int) else value, int(flags))
        self.show()

    def freeze(self) -> None:
        """From now on the loader alone writes; EBUSY when it is frozen already."""
        super().freeze()
        self.tracked.freeze()

    def show(self) -> None:
        """Put the entries into the map's memory."""
        order = "<" if self.live.host.order == "little" else ">"
        start, view = self.live.layout.values_offset, self.live.block.view
        for index, entry in enumerate(self.tracked.entries):
            numbers = (entry.orig_off, entry.xlated_off, entry.jitted_off, 0)
            struct.pack_into(order + "4I", view, start + index * VALUE_SIZE, *numbers)
