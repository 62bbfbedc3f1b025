"""64-bit words in memory that code of either byte order reads: ctypes types that convert."""

from __future__ import annotations

import ctypes
from typing import Literal


def word_type(order: Literal["little", "big"]) -> type[ctypes.c_uint64]:
    """A u64 whose bytes are in `order`."""
    return ctypes.c_uint64.__ctype_le__ if order == "little" else ctypes.c_uint64.__ctype_be__
