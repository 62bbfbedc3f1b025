"""Where an access to the context really goes: into the image behind the header, or to a packet pointer.

program sees    *(u32 *)(ctx + offset of data)   *(u32 *)(ctx + 12)
memory holds    header: 64-bit pointer           ctx + HEADER + 12
"""

from __future__ import annotations

from ir.context import HEADER, ContextLayout, Pointer
from ir.segments import AccessError

SKB_NET, SKB_LINK = -0x10_0000, -0x20_0000  # SKF_NET_OFF, SKF_LL_OFF (include/uapi/linux/filter.h)
ETHERNET_HEADER = 14


def translate_access(layout: ContextLayout, offset: int, size: int, is_store: bool) -> tuple[int, int]:
    """The offset and size, in our memory, of an access at `offset` of the user's structure.

    Raises AccessError when the structure has no such field, it is not writable, or it is part of a packet
    pointer.
    """
    what = f"{size}-byte {'store' if is_store else 'load'} at offset {offset} of {layout.name}"
    if offset + size > layout.size:
        raise AccessError("bad-context-access", f"{what} is beyond its {layout.size} bytes")
    if is_store:
        if not layout.is_writable(offset, size):
            raise AccessError("bad-context-access", f"{what} is not allowed")
        return HEADER + offset, size
    pointer = _pointer_at(layout, offset, size)
    if pointer is None:
        return HEADER + offset, size
    if size != 4 or offset not in layout.pointers:
        raise AccessError("bad-context-access", f"{what} splits a packet pointer")
    return pointer.value, 8


def find_in_packet(index: int, size: int, start: int, end: int) -> int | None:
    """The address of `size` bytes at `index` of the packet [start, end); None when not all inside.

    A negative index counts from a header, as in classic BPF: from SKB_NET the network's, SKB_LINK the link's.
    """
    address = start + index
    if SKB_NET <= index < 0:
        address = start + ETHERNET_HEADER + index - SKB_NET
    elif SKB_LINK <= index < SKB_NET:
        address = start + index - SKB_LINK
    return address if start <= address <= end - size else None


def _pointer_at(layout: ContextLayout, offset: int, size: int) -> Pointer | None:
    for start, pointer in layout.pointers.items():
        if start < offset + size and offset < start + 4:
            return pointer
    return None
