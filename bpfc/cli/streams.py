"""Streams that take nothing any more: nobody reads them, or the disk is full. Imports nothing slow."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def drop(stream: TextIO) -> None:
    """Let `stream` go nowhere from now on, so that its last flush, when the process ends, does not fail, too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def say_lost(error: OSError) -> None:
    """Tell on stderr that the result was lost, if that can be told."""
    try:
        sys.stderr.write(f"bpfc: error: cannot write: {error.strerror}\n")
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)
