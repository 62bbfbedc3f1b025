"""Programs on machines that this one is not: which emulator, and whether it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from backends.registry import target_named
from backends.target import Target
from bpfc.compile import check_byte_order
from ir.diagnostics import Diagnostic, UnsupportedError
from ir.object import Object
from runtime.limits import Limits
from runtime.platform import Platform


def platform_of(object: Object, where: str | Platform, limits: Limits, counts: bool) -> Platform:
    """The emulated machine for an object's programs: a new one by the name of its target, or one that is there.

    UnsupportedError: `unknown-target`, `foreign-byte-order`, `no-emulator`.
    """
    target = target_named(where) if isinstance(where, str) else where.target
    for program in object.programs.values():
        check_byte_order(program, target)
    return _make(target, limits, counts, is_shared=False) if isinstance(where, str) else where


@contextmanager
def emulate(name: str, limits: Limits | None = None, *, counts: bool = False) -> Iterator[Platform]:
    """An emulated machine for several objects, whose programs can be attached to each other on it.

        with bpfc.emulate("riscv64") as machine, a.start(target=machine) as one, b.start(target=machine) as other: ...

    Of `limits`, the steps count; `counts` gives results their machine instructions. UnsupportedError: `unknown-target`,
    `no-emulator`.
    """
    machine = _make(target_named(name), limits or Limits(), counts, is_shared=True)
    try:
        yield machine
    finally:
        machine.close()


def _make(target: Target, limits: Limits, counts: bool, is_shared: bool) -> Platform:
    if target.emulation is None:
        from runtime.emulate.qemu import QemuPlatform  # late: few emulate

        return QemuPlatform(target, is_shared)
    if find_spec("unicorn") is None:
        note = "pip install 'bpfc[emu]' (GPL-2.0)"
        said = f"emulating {target.name} needs Unicorn, which is not installed"
        raise UnsupportedError([Diagnostic("no-emulator", said, notes=(note,))])
    from runtime.emulate.platform import EmulatedPlatform  # late: Unicorn

    return EmulatedPlatform(target, limits.steps, counts, is_shared)
