"""`bpfc conformance-plugin`: the plugin of the bpf_conformance suite on this process's streams."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bpfc.conformance import run_plugin


def serve(argv: Sequence[str]) -> int:
    """Answer one request; the exit code."""
    return run_plugin(argv, sys.stdin, sys.stdout, sys.stderr)
