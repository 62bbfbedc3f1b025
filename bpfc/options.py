"""How to compile: the choices a user has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Options:
    """How to compile.

    `level`: O0 (nothing), O1 (the fast tier), O2, O3, or auto: O2, and O1 from 2048 instructions on. `hardened`: run
    programs that the verifier does not prove safe, with checks; without it they are refused. `count_insns`: count executed
    instructions. `fold`: decide branches by frozen `.rodata`. `extensible`: let main and global functions be replaced and
    traced while they run. `lines`: keep which instruction each piece of native code is for.
    """

    level: str = "auto"
    hardened: bool = True
    count_insns: bool = False
    fold: bool = True
    extensible: bool = True
    cache: bool = True
    lines: bool = False
