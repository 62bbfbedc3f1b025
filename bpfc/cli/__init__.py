"""The command line, `bpfc COMMAND ...`. Importing it imports nothing; `main` decides what is needed."""

from __future__ import annotations

import gc
import os
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run `sys.argv` and exit: 0 yes, 1 the answer is no, 2 usage, 3 unreadable input, 4 unsupported here."""
    _fill_closed_streams()
    try:
        if sys.argv[1:2] == ["conformance-plugin"]:
            gc.disable()  # a request, then the end: there is nothing worth collecting
            from bpfc.cli.conformance import serve  # late: started once a test, it does without click

            sys.exit(serve(sys.argv[2:]))
        from bpfc.cli.root import root  # late: click

        root.main(prog_name="bpfc")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _fill_closed_streams() -> None:
    """What the caller closed is as /dev/null: no file that is opened later gets the number of a standard stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives
