"""Programs on machines that this one is not: which emulator, and whether it can."""

from __future__ import annotations

from importlib.util import find_spec

from backends.registry import target_named
from bpfc.compile import check_byte_order
from ir.diagnostics import Diagnostic, UnsupportedError
from ir.object import Object
from runtime.limits import Limits
from runtime.platform import Platform


def platform_of(object: Object, name: str, limits: Limits, counts: bool) -> Platform:
    """The emulated machine `name` for an object's programs.

    UnsupportedError: `unknown-target`, `foreign-byte-order`, `no-emulator`.
    """
    target = target_named(name)
    for program in object.programs.values():
        check_byte_order(program, target)
    if target.emulation is None:
        from runtime.emulate.qemu import QemuPlatform  # late: few emulate

        return QemuPlatform(target)
    if find_spec("unicorn") is None:
        note = "pip install 'bpfc[emu]' (GPL-2.0)"
        said = f"emulating {target.name} needs Unicorn, which is not installed"
        raise UnsupportedError([Diagnostic("no-emulator", said, notes=(note,))])
    from runtime.emulate.platform import EmulatedPlatform  # late: Unicorn

    return EmulatedPlatform(target, limits.steps, counts)
