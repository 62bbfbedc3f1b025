"""Everything `import bpfc` offers; imported when the first of its names is asked for."""

from bpfc.attaching import attach, enable_stats
from bpfc.batch import Batch
from bpfc.emulation import emulate
from bpfc.links import list_links
from bpfc.loaded import Loaded, assemble, from_bytes, from_insns, load
from bpfc.natives import imported, native
from bpfc.options import Options
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
