"""`bpfc conformance-plugin`: the plugin of the bpf_conformance suite on this process's streams."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO

from bpfc.cli.codes import BROKEN_PIPE, USAGE
from bpfc.cli.streams import drop, say_lost
from bpfc.conformance import run_plugin


def serve(argv: Sequence[str]) -> int:
    """Answer one request; the exit code."""
    answer = StringIO()
    code = run_plugin(argv, sys.stdin, answer, sys.stderr)
    try:
        sys.stdout.write(answer.getvalue())
        sys.stdout.flush()
    except OSError as error:
        drop(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        say_lost(error)
        return USAGE
    return code
