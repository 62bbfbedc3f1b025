"""An optimizing eBPF compiler and userspace runtime.

    import bpfc
    obj = bpfc.load("filter.o")
    with obj.start() as rt:
        print(rt["xdp_filter"].run(packet).verdict)
"""

from bpfc.batch import Batch
from bpfc.compile import Options
from bpfc.loaded import Loaded, assemble, from_bytes, from_insns, load
from ir.diagnostics import Diagnostic, RejectedError, TrapError, UnreadableError, UnsupportedError

VerifierError = RejectedError

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
    "from_bytes",
    "from_insns",
    "load",
]
