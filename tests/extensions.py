"""What tests of extensions do again and again: run an XDP program with numbers, and look at a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram

OBJECTS = Path(__file__).parent / "objects"
PACKET = bytes(range(1, 65))


@contextmanager
def started(name: str) -> Iterator[Runtime]:
    """An object of tests/objects, started."""
    with bpfc.load(OBJECTS / f"{name}.o").start() as runtime:
        yield runtime


def run(program: RunningProgram, first: int = 0, second: int = 0) -> int:
    """The verdict over a packet, with two numbers in the context."""
    return program.run(PACKET, {"ingress_ifindex": first, "rx_queue_index": second}).verdict


def refusal(program: RunningProgram, target: RunningProgram, name: str) -> tuple[int, str]:
    """The errno and the text with which an attachment is refused."""
    with pytest.raises(bpfc.RejectedError) as caught:
        program.attach_freplace(target, name)
    return caught.value.errno, str(caught.value)
