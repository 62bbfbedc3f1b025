"""The command line, `bpfc COMMAND ...`. Importing it imports nothing; `main` decides what is needed."""

from __future__ import annotations

import gc
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run `sys.argv` and exit: 0 yes, 1 the answer is no, 2 usage, 3 unreadable input, 4 unsupported here."""
    try:
        if sys.argv[1:2] == ["conformance-plugin"]:
            gc.disable()  # a request, then the end: there is nothing worth collecting
            from bpfc.cli.conformance import serve  # late: started once a test, it does without click

            sys.exit(serve(sys.argv[2:]))
        from bpfc.cli.root import root  # late: click

        root.main(prog_name="bpfc")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
