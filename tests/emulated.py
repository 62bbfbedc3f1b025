"""Native code of any target, placed in Unicorn's memory and called there, for tests of what is target data."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import pytest

from backends.native_code import Form, NativeCode, PatchSite
from backends.registry import target_named
from runtime.layout import layout_of
from runtime.relocate import place, relocate

EMULATED = ("x86_64", "aarch64", "riscv64", "s390x")  # Unicorn has no working PPC64
STACK = 0x7000_0000
RETURN = 0x6000_0000
PAGE = 0x1000


class Emulated:
    """A machine with images in its memory. Calls take up to four 64-bit arguments and give a 64-bit result."""

    def __init__(self, name: str) -> None:
        self.unicorn: ModuleType = pytest.importorskip("unicorn", reason="the extra 'emu' is not installed")
        self.target = target_named(name)
        u = self.unicorn
        machines = {
            "x86_64": (u.UC_ARCH_X86, u.UC_MODE_64),
            "aarch64": (u.UC_ARCH_ARM64, u.UC_MODE_ARM),
            "riscv64": (u.UC_ARCH_RISCV, u.UC_MODE_RISCV64),
            "s390x": (u.UC_ARCH_S390X, u.UC_MODE_BIG_ENDIAN),
        }
        self.uc = u.Uc(*machines[name])
        self.uc.mem_map(STACK - 0x10000, 0x20000)
        self.uc.mem_map(RETURN, PAGE)
        self.uc.mem_write(RETURN, self.target.patching.fill(60))
        # A hook and not `until`: Unicorn's s390x raises an exception when it arrives at the end it was given.
        self.uc.hook_add(u.UC_HOOK_CODE, lambda uc, *_: uc.emu_stop(), begin=RETURN, end=RETURN + 1)

    def load(self, code: NativeCode, at: int, symbols: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Place an image; the addresses of its symbols."""
        layout = layout_of(code, self.target)
        data = (at + layout.code_size + 2 * PAGE) & -PAGE
        placement = place(code, layout, (at, data), (symbols or {}).get, {})
        image = relocate(code, self.target, layout, placement)
        self.uc.mem_map(at & -PAGE, (data - (at & -PAGE)) + (len(image.data) + PAGE) // PAGE * PAGE)
        self.uc.mem_write(at, image.code)
        self.uc.mem_write(data, image.data)
        return {symbol.name: placement.symbols[number] for number, symbol in enumerate(code.symbols)}

    def patch(self, code: NativeCode, at: int, site: PatchSite, form: Form) -> None:
        """Bring a site into a form and make the machine forget what it translated."""
        layout = layout_of(code, self.target)
        base = at + layout.sections[site.section]
        distance = site.target_offset - site.offset
        patching = self.target.patching
        new = patching.jump(distance) if form is Form.JUMP else patching.nop(distance)
        old = bytes(self.uc.mem_read(base + site.offset, site.length))
        changed = [i for i in range(site.length) if old[i] != new[i]]
        start = site.offset + patching.unit_offset
        first = start // patching.unit * patching.unit
        assert all(first <= site.offset + i < first + patching.unit for i in changed)
        self.uc.mem_write(base + site.offset, new)
        self.uc.ctl_remove_cache(base + site.offset, base + site.offset + site.length)

    def call(self, address: int, *arguments: int) -> int:
        """Run a function until it returns."""
        u, uc = self.unicorn, self.uc
        order = self.target.byte_order
        match self.target.name:
            case "x86_64":
                names = [u.x86_const.UC_X86_REG_RDI, u.x86_const.UC_X86_REG_RSI, u.x86_const.UC_X86_REG_RDX]
                uc.mem_write(STACK - 8, RETURN.to_bytes(8, order))
                uc.reg_write(u.x86_const.UC_X86_REG_RSP, STACK - 8)
                result = u.x86_const.UC_X86_REG_RAX
            case "aarch64":
                names = [u.arm64_const.UC_ARM64_REG_X0 + i for i in range(3)]
                uc.reg_write(u.arm64_const.UC_ARM64_REG_SP, STACK)
                uc.reg_write(u.arm64_const.UC_ARM64_REG_LR, RETURN)
                result = names[0]
            case "riscv64":
                names = [u.riscv_const.UC_RISCV_REG_A0 + i for i in range(3)]
                uc.reg_write(u.riscv_const.UC_RISCV_REG_SP, STACK)
                uc.reg_write(u.riscv_const.UC_RISCV_REG_RA, RETURN)
                result = names[0]
            case "s390x":
                names = [u.s390x_const.UC_S390X_REG_R2 + i for i in range(3)]
                uc.reg_write(u.s390x_const.UC_S390X_REG_PSWM, 0x1_8000_0000)  # 64-bit addresses
                uc.reg_write(u.s390x_const.UC_S390X_REG_R15, STACK - 160)
                uc.reg_write(u.s390x_const.UC_S390X_REG_R14, RETURN)
                result = names[0]
        for name, argument in zip(names, arguments, strict=False):
            uc.reg_write(name, argument)
        uc.emu_start(address, 0, count=10_000_000)
        return int(uc.reg_read(result)) & 2**64 - 1
