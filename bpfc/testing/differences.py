"""Two ways of doing a case, compared: what differs, in words."""

from __future__ import annotations

from bpfc.testing.reference import Observed


def difference(wanted: Observed, found: Observed) -> tuple[str, str] | None:
    """(sort of difference, the first one in words), None when both did the same."""
    for number, (a, b) in enumerate(zip(wanted.outcomes, found.outcomes, strict=True)):
        if isinstance(a.ret, str) and isinstance(b.ret, str):
            continue  # how the rest of memory looks after a trap is nobody's business
        if isinstance(b.ret, str):
            return f"trap {b.ret}", f"run {number}: trap {b.ret}, wanted r0 = {a.ret}"
        if isinstance(a.ret, str):
            return f"no trap {a.ret}", f"run {number}: r0 = {b.ret:#x}, wanted trap {a.ret}"
        if a.ret != b.ret:
            return "result", f"run {number}: r0 = {b.ret:#x}, wanted {a.ret:#x}"
        if a.data != b.data:
            return "memory", f"run {number}: {_first(a.data, b.data)}"
    if any(isinstance(outcome.ret, str) for outcome in wanted.outcomes):
        return None
    for name, content in wanted.maps.items():
        if found.maps[name] != content:
            return "maps", f"map {name} holds {found.maps[name]!r}, wanted {content!r}"
    return None


def _first(wanted: bytes, found: bytes) -> str:
    if len(wanted) != len(found):
        return f"{len(found)} bytes left, wanted {len(wanted)}"
    at = next(at for at, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
    return f"byte {at} is {found[at]:#x}, wanted {wanted[at]:#x}"
