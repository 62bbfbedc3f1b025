"""Where programs can be attached to BPF code: a running program, or an extension that is attached itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ir.btf import Btf
from ir.object import Program
from runtime.hook import ProgramHooks
from runtime.linker import LinkedImage

if TYPE_CHECKING:
    from bpfc.attachable import Attachable


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Code with entry slots. `hold` keeps it in memory until `release`."""

    program: Program
    source: Attachable
    btf: Btf | None
    hooks: ProgramHooks
    image: LinkedImage
    is_open: Callable[[], bool]
    hold: Callable[[], None]
    release: Callable[[], None]
