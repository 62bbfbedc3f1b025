"""What a run finds around its packet."""

from __future__ import annotations

import bpfc
from ir.kinds import ProgramType

_LEAVES_A_MARK = """
    r6 = r1
    r2 = -8
    call 44
    r3 = *(u32 *)(r6 + 4)
    r4 = *(u32 *)(r6 + 0)
    r5 = r4
    r5 += 8
    if r5 > r3 goto out
    r0 = *(u64 *)(r4 + 0)
    r1 = 7
    *(u64 *)(r4 + 0) = r1
    exit
out:
    r0 = -1
    exit
"""


def test_the_room_before_a_packet_is_zero_whatever_ran_before() -> None:
    with bpfc.assemble(_LEAVES_A_MARK, type=ProgramType.XDP).start() as runtime:
        results = [runtime["main"].run(b"\xff" * size) for size in (20, 20, 400, 20)]
    assert [result.ret for result in results] == [0] * 4
    assert all(result.data[:8] == (7).to_bytes(8, "little") for result in results)
