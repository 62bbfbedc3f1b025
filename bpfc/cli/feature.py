"""`bpfc feature`: what this installation and this machine can do."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Final

import click

from bpfc.cli.root import Command
from bpfc.cli.terminal import Terminal, bold, indent, table

EXTRAS: Final[Mapping[str, tuple[str, str]]] = {
    "emu": ("unicorn", "run code for other machines (GPL)"),
    "np": ("numpy", "arrays for batches and map contents"),
    "net": ("dpkt", "packets as objects"),
    "fuzz": ("hypothesis", "generated programs"),
    "dis": ("capstone", "native code disassembled"),
    "bench": ("pyperf", "measurements with statistics"),
    "cluster": ("distributed", "campaigns on many machines"),
}
"""The package of each extra, and what it is for."""


@click.command(cls=Command)
@click.pass_obj
def command(terminal: Terminal, /) -> None:
    """What this installation and this machine can do: versions, targets, extras, the kernel's permission."""
    data = {
        "bpfc": _version("bpfc"),
        "host": _host(),
        "targets": _targets(),
        "extras": _extras(),
        "kernel": _kernel(),
        "cache": _cache(),
    }
    terminal.result("bpfc.feature/1", data, "\n".join(_lines(data)))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # late: 30 ms

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _host() -> dict[str, object]:
    from backends.machine import Machine, llvm_version
    from backends.registry import host
    from ir.diagnostics import UnsupportedError
    from runtime.publish import publisher

    said: dict[str, object] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "llvm": llvm_version(),
        "llvmlite": _version("llvmlite"),
        "supported": True,
    }
    try:
        machine = Machine(host())
        patcher = publisher()
    except UnsupportedError as error:
        return said | {"supported": False, "why": error.diagnostics[0].message}
    publish = {"mode": patcher.mode.value, "reason": patcher.reason, "works": not patcher.refusal}
    return said | {"cpu": machine.cpu, "features": machine.features.split(","), "publish": publish}


def _extras() -> dict[str, dict[str, object]]:
    return {
        extra: {"package": package, "version": _version(package), "for": purpose}
        for extra, (package, purpose) in EXTRAS.items()
    }


def _kernel() -> dict[str, object]:
    from runtime.kernel import bpf_refusal, has_kernel_btf

    refusal = bpf_refusal()
    return {
        "release": platform.release(),
        "bpf": not refusal,
        "bpf_refusal": refusal,
        "btf": has_kernel_btf(),
    }


def _cache() -> dict[str, object]:
    from runtime.cache import ObjectCache

    count, size = ObjectCache.default().usage()
    return {"folder": str(ObjectCache.default().folder), "entries": count, "bytes": size}


def _targets() -> list[str]:
    from backends.registry import NAMES

    return list(NAMES)


def _lines(data: Mapping[str, Any]) -> list[str]:
    host, kernel, cache = data["host"], data["kernel"], data["cache"]
    patching = f"{host['publish']['mode']}: {host['publish']['reason']}" if host["supported"] else host["why"]
    rows = [
        ("bpfc", data["bpfc"]),
        ("python", host["python"]),
        ("LLVM", f"{host['llvm']} (llvmlite {host['llvmlite']})"),
        ("host", f"{host['machine']}, {host.get('cpu', 'no code for it here')}"),
        ("targets", ", ".join(data["targets"])),
        ("live patching", patching),
        ("kernel", kernel["release"]),
        ("bpf(2)", "permitted" if kernel["bpf"] else f"refused: {kernel['bpf_refusal']}"),
        ("kernel's BTF", "there" if kernel["btf"] else "not there"),
        ("cache", f"{cache['folder']}: {cache['entries']} entries, {cache['bytes'] / 1e6:.1f} MB"),
    ]
    parts = [(name, _installed(name, one), one["for"]) for name, one in data["extras"].items()]
    return [*table(rows), "", bold("extras"), *indent(table(parts))]


def _installed(extra: str, said: Mapping[str, Any]) -> str:
    """The version, or how to get one."""
    return f"{said['package']} {said['version']}" if said["version"] else f"pip install 'bpfc[{extra}]'"
