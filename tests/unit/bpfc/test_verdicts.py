"""What return values mean."""

from __future__ import annotations

import pytest

from bpfc.verdicts import is_dropped, name_verdict
from ir.kinds import ProgramType


@pytest.mark.parametrize(
    ("type", "ret", "name", "dropped"),
    [
        (ProgramType.XDP, 0, "XDP_ABORTED", True),
        (ProgramType.XDP, 1, "XDP_DROP", True),
        (ProgramType.XDP, 2, "XDP_PASS", False),
        (ProgramType.XDP, 0xFF_0000_0003, "XDP_TX", False),
        (ProgramType.XDP, 9, "9", False),
        (ProgramType.SCHED_CLS, 0xFFFF_FFFF, "TC_ACT_UNSPEC", False),
        (ProgramType.SCHED_CLS, 2, "TC_ACT_SHOT", True),
        (ProgramType.SOCKET_FILTER, 0, "drop", True),
        (ProgramType.SOCKET_FILTER, 2, "keep 2", False),
        (ProgramType.CGROUP_SKB, 0, "drop", True),
        (ProgramType.CGROUP_SKB, 1, "pass", False),
        (ProgramType.LWT_IN, 2, "BPF_DROP", True),
        (ProgramType.KPROBE, 0xFFFF_FFFF, "-1", False),
        (ProgramType.UNSPEC, 1 << 40, "0x10000000000", False),
    ],
)
def test_a_return_value_has_a_name_and_a_fate(type: ProgramType, ret: int, name: str, dropped: bool) -> None:
    assert name_verdict(type, ret) == name
    assert is_dropped(type, ret) is dropped
