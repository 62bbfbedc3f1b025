"""The kernel functions that have a meaning outside of a kernel, for those who call them: as helpers are told.

A kfunc has no number: programs name it, and its prototype is the verifier's (ir/verify/kfuncs.py). A program that calls
another one runs when its user gives one.
"""

from __future__ import annotations

from typing import Final

from ir.helpers import Helper, parse_row
from ir.rows import Rows
from ir.verify.kfuncs import KFUNCS as PROTOTYPES
from ir.verify.kfuncs import Kfunc, Parameter

_NAMES: Final = """
iter_num_new iter_num_next iter_num_destroy
rcu_read_lock rcu_read_unlock preempt_disable preempt_enable local_irq_save local_irq_restore
dynptr_from_skb dynptr_from_xdp dynptr_slice dynptr_slice_rdwr dynptr_adjust dynptr_is_null dynptr_is_rdonly dynptr_size
dynptr_clone
rdonly_cast
strcmp strlen strnlen strchr strchrnul strnchr strrchr strspn strcspn strstr strnstr
xdp_metadata_rx_timestamp xdp_metadata_rx_hash xdp_metadata_rx_vlan_tag
"""
_OF_SESSIONS: Final = {
    "session_is_return": "0 session_is_return(ctx) -> int",
    "session_cookie": "0 session_cookie(ctx) -> mem",
}
"""As the sessions of trampolines have them (Linux 7.0); those of probes, in the verifier's table, take nothing."""

_ARGUMENTS: Final = {
    "iter": "iter8",
    "newiter": "newiter8",
    "irq": "mem8",
    "newirq": "out8",
    "opt": "rw?",
    "raw": "any",
    "skb": "ctx",
}
_RESULTS: Final = {"word": "mem", "slice": "mem", "slicerw": "mem", "cast": "mem"}


def _row(kfunc: Kfunc) -> str:
    """A row of the helper table (ir/helpers.py)."""
    arguments = ", ".join(map(_argument, kfunc.parameters))
    result = _RESULTS.get(kfunc.result, kfunc.result) + "?" * kfunc.is_nullable
    return f"0 {kfunc.name.removeprefix('bpf_')}({arguments}) -> {result}"


def _argument(parameter: Parameter) -> str:
    plain = parameter.kind + (str(parameter.size) if parameter.size else "") + "?" * parameter.is_nullable
    return _ARGUMENTS.get(parameter.kind, plain)


def _helper(name: str) -> Helper:
    return parse_row(_OF_SESSIONS.get(name) or _row(PROTOTYPES[f"bpf_{name}"]))


KFUNCS: Final = Rows({f"bpf_{name}": name for name in (*_NAMES.split(), *_OF_SESSIONS)}, _helper)
