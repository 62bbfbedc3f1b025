"""What the running kernel permits."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from runtime.kernel import bpf_refusal, has_kernel_btf


@pytest.mark.kernel
def test_where_bpf_is_permitted_nothing_is_refused() -> None:
    assert bpf_refusal() == ""


def test_a_machine_without_a_known_number_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    assert bpf_refusal() == "the number of bpf(2) on vax is not known"


def test_the_kernel_s_types_are_where_linux_puts_them() -> None:
    assert has_kernel_btf() == Path("/sys/kernel/btf/vmlinux").exists()
