"""Campaigns on more than one machine: shards as tasks of dask.distributed (the extra `bpfc[cluster]`)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from ir.diagnostics import Diagnostic, UnsupportedError


@contextmanager
def connect(address: str) -> Iterator[Executor]:
    """An executor over the workers of the scheduler at `address`.

    A task whose worker is killed runs again on another; it is not pure, for no two shards are alike. UnsupportedError
    without the extra, or when nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        said = "dask.distributed is not installed: pip install 'bpfc[cluster]'"
        raise UnsupportedError([Diagnostic("no-cluster", said)]) from None
    try:
        connect: Any = Client  # distributed has no types
        client: Any = connect(address, timeout=10)
    except (OSError, ValueError) as error:
        raise UnsupportedError([Diagnostic("no-cluster", f"no scheduler at '{address}': {error}")]) from None
    with client:
        yield client.get_executor(pure=False)
