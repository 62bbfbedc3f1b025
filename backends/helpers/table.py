"""The helpers that have a native form: name (without bpf_) -> how to emit it.

An emitter writes `symbol(ptr run, r1, ..., rN)`, its parameters named run and r1..rN, `ptr` where the prototype asks for an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backends.helpers.redirect import REDIRECTS
from backends.helpers.row import HelperRow
from backends.helpers.run_state import RUN_STATE
from backends.helpers.tail_call import TAIL_CALLS

EMITTERS: Final[Mapping[str, HelperRow]] = {**RUN_STATE, **TAIL_CALLS, **REDIRECTS}
