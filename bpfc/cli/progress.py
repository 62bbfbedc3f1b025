"""A progress bar on stderr; a module of its own because rich takes 30 ms to import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import Progress

from bpfc.pcap import Packet

RECORD_HEADER: Final = 16


def with_bar(packets: Iterator[Packet], size: int, no_color: bool) -> Iterator[Packet]:
    """The packets of a pcap file of `size` bytes; the bar goes when they are through."""
    with Progress(console=Console(stderr=True, no_color=no_color or None), transient=True) as progress:
        task = progress.add_task("packets", total=size)
        for number, packet in enumerate(packets):
            yield packet
            progress.advance(task, len(packet.data) + RECORD_HEADER)
            progress.update(task, description=f"{number + 1} packets")
