"""What the command line says of a program's world: variables, map contents, context fields, packets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpfc.cli.values import read_hex, read_value
from ir.diagnostics import known_names

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
    """`--set VAR=V`, `--set VAR.MEMBER=V`. Raises RejectedError for what is no variable or no value of its type."""
    for name, text in assignments(values, "--set"):
        variables, value = loaded.globals, read_value(text)
        whole, _, member = name.partition(".")
        if name not in variables and whole in variables and member:
            name, value = whole, _with_member(name, variables[whole], member, value)
        variables[name] = value


def fill_maps(runtime: Runtime, values: Iterable[str]) -> None:
    """`--map NAME=F.json`."""
    from bpfc.cli.fill import fill_map  # late: only who fills maps

    for name, path in assignments(values, "--map"):
        if name not in runtime.world.maps:
            known = known_names(runtime.world.maps)
            raise click.UsageError(f"no map '{name}' (there are: {known})")
        fill_map(runtime, name, path)


def _with_member(name: str, whole: object, member: str, value: object) -> object:
    """`whole` with one member, or element, of it set; `member` is a path with dots."""
    first, _, rest = member.partition(".")
    if isinstance(whole, dict) and first in whole:
        inner = _with_member(name, whole[first], rest, value) if rest else value
        return {**whole, first: inner}
    if isinstance(whole, list) and first.isdecimal() and int(first) < len(whole):
        inner = _with_member(name, whole[int(first)], rest, value) if rest else value
        return [*whole[: int(first)], inner, *whole[int(first) + 1 :]]
    raise click.UsageError(f"--set {name}: there is no '{first}' in it")


def resize_maps(loaded: Loaded, values: Iterable[str]) -> None:
    """`--resize NAME=N`, `NAME=N:SIZE` for values of so many bytes. Raises RejectedError when there is no such map."""
    for name, text in assignments(values, "--resize"):
        sizes = [read_value(part) for part in text.split(":")]
        if len(sizes) > 2 or not all(isinstance(size, int) for size in sizes):
            raise click.UsageError(f"--resize {name} wants N or N:SIZE, not '{text}'")
        loaded.resize(name, *sizes)  # type: ignore[arg-type]  # numbers, as seen


def switch_keys(loaded: Loaded, values: Iterable[str]) -> None:
    """`--static-key K=on|off`."""
    for name, text in assignments(values, "--static-key"):
        key = loaded.keys.get(name)
        if key is None:
            raise click.UsageError(f"no static key '{name}' (there are: {known_names(loaded.keys)})")
        if text not in ("on", "off"):
            raise click.UsageError(f"--static-key {name} wants on or off, not '{text}'")
        key.switch(text == "on")


def context_fields(values: Iterable[str]) -> dict[str, int]:
    """`--ctx FIELD=V`."""
    return dict(_numbers(values, "--ctx"))


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


def _numbers(values: Iterable[str], option: str) -> Iterator[tuple[str, int]]:
    for name, text in assignments(values, option):
        number = read_value(text)
        if not isinstance(number, int):
            raise click.UsageError(f"{option} {name} wants a number, not '{text}'")
        yield name, number
