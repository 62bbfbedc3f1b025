"""Structures that programs around functions find behind their context.

What such a program sees where a kernel has a struct xdp_buff is the header of the XDP program's own context:

    header    0       8          16          24                40        64
              | data  | data_end | data_meta | packet_start |  | rxq     | image of struct xdp_md
    rxq       0       8
              | dev   | queue_index 4 |
    dev       | ifindex 4 |

Only these members exist. Programs are fitted to them (CO-RE), so it does not matter where their own headers have them.
A session's cookie is one word that its program has from entry to exit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True)
class HookObject:
    """A structure of `size` bytes; `members` are (offset, size), `pointers` the structures that some point to."""

    size: int
    members: Mapping[str, tuple[int, int]]
    pointers: Mapping[int, str]
    is_writable: bool = False


XDP_BUFF: Final = "xdp_buff"
RXQ_OFFSET: Final = 40  # in the header
OBJECTS: Final[Mapping[str, HookObject]] = {
    XDP_BUFF: HookObject(
        48,
        {
            "data": (0, 8),
            "data_end": (8, 8),
            "data_meta": (16, 8),
            "data_hard_start": (24, 8),
            "rxq": (40, 8),
        },
        {RXQ_OFFSET: "xdp_rxq_info"},
    ),
    "xdp_rxq_info": HookObject(16, {"dev": (0, 8), "queue_index": (8, 4)}, {0: "net_device"}),
    "net_device": HookObject(4, {"ifindex": (0, 4)}, {}),
}
SESSION_COOKIE: Final = "session cookie"
WITHOUT_TYPE: Final[Mapping[str, HookObject]] = {SESSION_COOKIE: HookObject(8, {}, {}, is_writable=True)}


def object_named(name: str) -> HookObject:
    """The structure that a region names."""
    return OBJECTS.get(name) or WITHOUT_TYPE[name]
