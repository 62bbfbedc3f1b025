"""`bpfc targets`: the machines that code can be made for."""

from __future__ import annotations

import platform

import click

from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal, table


@click.command(cls=Command)
@click.pass_obj
def command(terminal: Terminal, /) -> None:
    """The machines that code can be made for, by the name that --arch takes."""
    from backends.registry import NAMES, target_named
    from bpfc.bpf_output import BYTE_ORDERS

    targets = [
        {
            "name": target.name,
            "triple": target.triple,
            "byte_order": target.byte_order,
            "host": target.name == platform.machine(),
            "relocations": sorted(target.relocations),
        }
        for target in map(target_named, NAMES)
    ]
    rows = [
        (one["name"], one["triple"], f"{one['byte_order']}-endian", "this machine" if one["host"] else "")
        for one in targets
    ]
    bytecode = [{"name": name, "byte_order": order} for name, order in BYTE_ORDERS.items()]
    rows += [(one["name"], "", f"{one['byte_order']}-endian", "bytecode for Linux") for one in bytecode]
    text = "\n".join(table(rows, ("target", "triple", "byte order", "")))
    terminal.result("bpfc.targets/1", {"targets": targets, "bytecode": bytecode}, text)
