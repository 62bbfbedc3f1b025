"""The helpers that have a native form: name (without bpf_) -> how to emit it.

An emitter writes `symbol(ptr run, r1, ..., rN)`, its parameters named run and r1..rN, `ptr` where the
prototype asks for an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backends.helpers.answers import ANSWERS
from backends.helpers.checksum import CHECKSUMS
from backends.helpers.clock import CLOCKS
from backends.helpers.control import CONTROL
from backends.helpers.dynptr import DYNPTRS
from backends.helpers.kfunc import KFUNC_ROWS
from backends.helpers.memory import MEMORY
from backends.helpers.numbers import NUMBERS
from backends.helpers.packet import PACKET
from backends.helpers.redirect import REDIRECTS
from backends.helpers.ring import RINGS
from backends.helpers.row import HelperRow
from backends.helpers.run_state import RUN_STATE
from backends.helpers.skb import SKBS
from backends.helpers.storage import STORAGE
from backends.helpers.strings import STRINGS
from backends.helpers.tail_call import TAIL_CALLS
from backends.helpers.tracing import TRACING
from backends.helpers.user_ring import USER_RINGS

EMITTERS: Final[Mapping[str, HelperRow]] = {
    **ANSWERS,
    **NUMBERS,
    **SKBS,
    **RUN_STATE,
    **CLOCKS,
    **TAIL_CALLS,
    **REDIRECTS,
    **PACKET,
    **CHECKSUMS,
    **MEMORY,
    **RINGS,
    **CONTROL,
    **DYNPTRS,
    **KFUNC_ROWS,
    **STRINGS,
    **STORAGE,
    **USER_RINGS,
    **TRACING,
}
