"""What the command line says of a program's world: variables, map contents, context fields, packets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpfc.cli.values import read_hex, read_value

if TYPE_CHECKING:
    from bpfc.loaded import Loaded
    from bpfc.pcap import Packet
    from bpfc.running import Runtime


def assignments(values: Iterable[str], option: str) -> list[tuple[str, str]]:
    """The pairs of `NAME=VALUE` texts. Raises click.UsageError for another form."""
    pairs = []
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option} wants NAME=VALUE, not '{value}'")
        pairs.append((name, text))
    return pairs


def set_globals(loaded: Loaded, values: Iterable[str]) -> None:
    """`--set VAR=V`. Raises RejectedError for what is no variable, or no value of its type."""
    for name, text in assignments(values, "--set"):
        loaded.globals[name] = read_value(text)


def fill_maps(loaded: Loaded, runtime: Runtime, values: Iterable[str]) -> None:
    """`--map NAME=F.json`."""
    from bpfc.cli.contents import fill_map  # late: only who fills maps

    for name, path in assignments(values, "--map"):
        live = runtime.world.live.get(name)
        if live is None:
            known = ", ".join(runtime.world.live) or "none"
            raise click.UsageError(f"no map '{name}' (there are: {known})")
        fill_map(loaded.object.btf, live, path)


def context_fields(values: Iterable[str]) -> dict[str, int]:
    """`--ctx FIELD=V`."""
    fields = {}
    for name, text in assignments(values, "--ctx"):
        number = read_value(text)
        if not isinstance(number, int):
            raise click.UsageError(f"--ctx {name} wants a number, not '{text}'")
        fields[name] = number
    return fields


def packets(data_in: str | None, pcap: str | None) -> Iterator[Packet]:
    """`--pcap F`, or the one packet of `--data-in`; without either, one that is empty."""
    from bpfc.pcap import Packet, read_pcap

    if pcap is not None:
        yield from read_pcap(pcap)
        return
    data = b""
    if data_in == "-":
        data = sys.stdin.buffer.read()
    elif data_in is not None:
        data = read_hex(data_in[4:]) if data_in.startswith("hex:") else Path(data_in).read_bytes()
    yield Packet(data)
