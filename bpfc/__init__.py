"""An optimizing eBPF compiler and userspace runtime.

import bpfc
obj = bpfc.load("filter.o")
with obj.start() as rt:
    print(rt["xdp_filter"].run(packet).verdict)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpfc.api import (
        Batch,
        Diagnostic,
        Loaded,
        Options,
        RejectedError,
        TrapError,
        UnreadableError,
        UnsupportedError,
        VerifierError,
        assemble,
        attach,
        emulate,
        enable_stats,
        from_bytes,
        from_insns,
        imported,
        list_links,
        load,
        native,
    )

__all__ = [
    "Batch",
    "Diagnostic",
    "Loaded",
    "Options",
    "RejectedError",
    "TrapError",
    "UnreadableError",
    "UnsupportedError",
    "VerifierError",
    "assemble",
    "attach",
    "emulate",
    "enable_stats",
    "from_bytes",
    "from_insns",
    "imported",
    "list_links",
    "load",
    "native",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from bpfc import api  # late: the command line starts without it

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
