"""Every oracle, and the campaigns that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bpfc.testing.oracle import Oracle
from bpfc.testing.oracles import (
    accepted,
    claims,
    facts,
    levels,
    linux,
    loader,
    native,
    passes,
    patching,
    targets,
)

ORACLES: Final[Mapping[str, Oracle]] = {
    module.ORACLE.name: module.ORACLE
    for module in (native, levels, targets, passes, claims, facts, accepted, linux, patching, loader)
}
CAMPAIGNS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": tuple(ORACLES),
    "compiler": ("native", "levels", "targets", "passes"),
    "soundness": ("claims", "facts", "accepted"),
}


def oracles_of(campaign: str) -> tuple[Oracle, ...] | None:
    """The oracles of a campaign, which may be the name of one; None when there is no such campaign."""
    names = CAMPAIGNS.get(campaign, (campaign,) if campaign in ORACLES else ())
    return tuple(ORACLES[name] for name in names) or None
