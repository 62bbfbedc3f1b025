"""Which types of a BTF section have a name.

A kernel has 130 000 types; to index all their names takes longer than to verify most programs. While few names have
been asked for, each is looked up among the strings instead.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, count
from operator import add
from typing import Final, final

_FEW: Final = 12
_MOST_PLACES: Final = 8
_FLAVOUR: Final = b"___"


@final
class Names:
    """The types of one section by name.

    `offsets`: where each one's name is, from type `first_id` on, 0 for none; `tables`: strings, with the offset of the
    first, those of a base included; `text` gives the string at an offset.
    """

    def __init__(
        self,
        offsets: array[int],
        first_id: int,
        tables: Sequence[tuple[int, bytes]],
        text: Callable[[int], str],
    ) -> None:
        self._offsets, self._first_id, self._tables, self._text = offsets, first_id, tables, text
        self._used, self._bytes = frozenset(offsets), offsets.tobytes()
        self._found: dict[str, Sequence[int]] = {}
        self._index: dict[str, list[int]] | None = None

    def ids(self, name: str) -> Sequence[int]:
        """The types called `name`, lowest first."""
        if self._index is None and len(self._found) < _FEW and name.isidentifier():
            if name not in self._found:
                self._found[name] = self._search(name.encode())
            return self._found[name]
        return self.index().get(name, ())

    def flavours(self, name: str) -> Sequence[str]:
        """The names that are a flavour of `name`: `name___old`."""
        return self._flavours.get(name, ())

    def index(self) -> dict[str, list[int]]:
        """All names: the types called so."""
        if self._index is None:
            by_offset: defaultdict[int, list[int]] = defaultdict(list)
            for id, offset in enumerate(self._offsets, self._first_id):
                by_offset[offset].append(id)
            by_offset.pop(0, None)
            whole = self._whole_strings()
            self._index = {}
            for offset, ids in by_offset.items():
                text = whole.get(offset)
                name = self._text(offset) if text is None else text_of(text)
                found = self._index.setdefault(name, ids)
                if found is not ids:
                    found += ids
                    found.sort()
        return self._index

    def _whole_strings(self) -> dict[int, bytes]:
        """Each string by its offset."""
        whole: dict[int, bytes] = {}
        for first, table in self._tables:
            strings = table.split(b"\0")
            ends = accumulate(map(len, strings), initial=first)
            whole.update(zip(map(add, ends, count()), strings, strict=False))
        return whole

    def _search(self, name: bytes) -> Sequence[int]:
        """One string may be the end of another, so it need not stand behind a zero."""
        places = [place for place in self._places(name + b"\0") if place in self._used]
        if len(places) > _MOST_PLACES:
            return self.index().get(name.decode(), ())
        return sorted(id for place in places for id in self._ids_at(place))

    def _ids_at(self, place: int) -> Iterator[int]:
        """The types whose name is at string offset `place`."""
        word, size = array("I", [place]).tobytes(), self._offsets.itemsize
        at = self._bytes.find(word)
        while at >= 0:
            if at % size == 0:
                yield self._first_id + at // size
            at = self._bytes.find(word, at + 1)

    def _places(self, text: bytes) -> Iterator[int]:
        """The string offsets at which `text` stands."""
        for first, strings in self._tables:
            at = strings.find(text)
            while at >= 0:
                yield first + at
                at = strings.find(text, at + 1)

    @cached_property
    def _flavours(self) -> dict[str, list[str]]:
        used = sorted(self._used)
        full: set[str] = set()
        for first, strings in self._tables:
            end = 0
            while (at := strings.find(_FLAVOUR, end)) >= 0:
                begin, end = strings.rfind(b"\0", end, at) + 1, strings.find(b"\0", at)
                last = strings.rfind(_FLAVOUR, at, end)
                full.update(
                    map(self._text, used[bisect_left(used, first + begin) : bisect_right(used, first + last)])
                )
        flavours: dict[str, list[str]] = {}
        for name in sorted(full):
            flavours.setdefault(essential_name(name), []).append(name)
        return flavours


def text_of(string: bytes) -> str:
    """A string of the section; what is no UTF-8 in it is escaped."""
    return string.decode("utf-8", "backslashreplace")


def essential_name(name: str) -> str:
    """`name` without its flavour: "task_struct___old" is "task_struct"."""
    if "___" not in name:
        return name
    found = re.match(r"(.*[^_])___[^_]", name, re.DOTALL)
    return found[1] if found is not None else name
