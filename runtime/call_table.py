"""The call table of an object: a 64-bit pointer a function, retargeted by one store under running callers.

    table     | entry 0: main | entry 1 | entry 2 | ...          u64 each, 8-byte aligned, near the code
    a call    call *entry(%rip)                                  bound by the linker (`runtime/linker`, slots)

Programs can read the table and not write it: it is in code memory, and only its alias is writable. Entry i is
the native entry of subprogram i. A caller that has loaded the old pointer may still go there: free the old
function after a grace period (`runtime/epoch`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self, final

from ir.diagnostics import Diagnostic, RejectedError
from runtime.memory import Pool, near_pool

MOST_FUNCTIONS: Final = 256  # main included, as in the kernel
ENTRY_SIZE: Final = 8


@final
class CallTable:
    """The pointers to an object's functions, by index and by name. Owns their memory; a context manager."""

    def __init__(self, names: Sequence[str], pool: Pool | None = None) -> None:
        if len(names) > MOST_FUNCTIONS:
            message = f"{len(names)} functions, wanted at most {MOST_FUNCTIONS}"
            raise RejectedError([Diagnostic("too-many-functions", message, errno=errno.E2BIG)])
        self.names = tuple(names)
        self._indices = {name: index for index, name in enumerate(names)}
        size = ENTRY_SIZE * max(len(names), 1)
        self._block = (pool or near_pool()).allocate_code(size)
        self._block.write(0, bytes(size))
        self._entries = self._block.words("Q")

    @property
    def address(self) -> int:
        """Where entry 0 is."""
        return self._block.address

    @property
    def slots(self) -> Mapping[str, int]:
        """The address of each function's entry by its name, as `link` takes them."""
        return {name: self.address + ENTRY_SIZE * index for name, index in self._indices.items()}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, function: int | str) -> int:
        """The native entry that the table holds for a function; 0 while it has none."""
        return int(self._entries[self._index(function)])

    def __setitem__(self, function: int | str, address: int) -> None:
        """Retarget a function: calls that load the entry from now on go to `address`.

        One aligned 8-byte store (`CodeBlock.words`): callers see the old pointer or the new one. It is data,
        so nothing has to be published.
        """
        self._entries[self._index(function)] = address

    def close(self) -> None:
        """Free the table; nobody may call through it any more."""
        self._entries.release()
        self._block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self, function: int | str) -> int:
        """The index of a function; RejectedError (EINVAL) when it is not in the table."""
        index = self._indices.get(function, -1) if isinstance(function, str) else function
        if not 0 <= index < len(self.names):
            message = f"no function {function!r} in a call table of {len(self.names)}"
            raise RejectedError([Diagnostic("not-in-call-table", message, errno=errno.EINVAL)])
        return index
