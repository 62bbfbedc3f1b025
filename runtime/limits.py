"""What a run may use up, and where its random numbers start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

DEFAULT_FUEL: Final = 1 << 32


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """`fuel`: back-edges a run may take. `seed`: the state of bpf_get_prandom_u32 at the start.

    `steps`: machine instructions a run may take under emulation, 0 for any number.
    """

    fuel: int = DEFAULT_FUEL
    seed: int = 0x9E37_79B9_7F4A_7C15
    steps: int = 0
