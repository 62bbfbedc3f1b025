"""What a run may use up, and where its random numbers start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from backends import abi

DEFAULT_FUEL: Final = 1 << 32


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """`fuel`: back-edges a run may take. `seed`: the state of bpf_get_prandom_u32 at the start.

    `steps`: machine instructions a run may take under emulation, 0 for any number.
    """

    fuel: int = DEFAULT_FUEL
    seed: int = abi.SEED
    steps: int = 0
