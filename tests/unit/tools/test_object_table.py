"""The table of what runs, on objects that need what only their own loaders say."""

from __future__ import annotations

from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import RejectedError
from ir.kinds import ProgramType
from tools.object_table import try_object


@pytest.mark.parametrize(
    ("name", "programs", "reasons"),
    [
        ("libbpf-tools/capable-1.o", 2, []),
        ("libbpf-tools/biostacks-1.o", 3, []),
        ("ir-keytable/raw.o", 1, []),
        (
            "golang-github-cilium-ebpf-dev/loader-clang-9-el.elf",
            6,
            ["undefined-symbol: nothing defines 'ksym.MY_CONST'"],
        ),
    ],
)
def test_programs_run_with_what_their_loaders_would_choose(
    debian_objects: Path, name: str, programs: int, reasons: list[str]
) -> None:
    entry = try_object(name, (debian_objects / name).read_bytes())
    assert (entry.programs, sorted(entry.reasons)) == (programs, reasons)
    assert entry.ran == programs - len(reasons)


def test_an_object_that_is_refused_says_why(debian_objects: Path) -> None:
    name = "golang-github-cilium-ebpf-dev/invalid_map-el.elf"
    entry = try_object(name, (debian_objects / name).read_bytes())
    assert entry.ran == 0
    assert [reason.split(":")[0] for reason in entry.reasons] == ["unknown-map-options"]


def test_a_program_of_an_unknown_section_is_what_its_loader_says() -> None:
    loaded = bpfc.assemble("r0 = *(u32 *)(r1 + 0)\nexit")
    loaded.set_type("main", ProgramType.SOCKET_FILTER)
    with loaded.start() as runtime:
        assert runtime["main"].run(bytes(77)).ret == 77  # __sk_buff.len
    with pytest.raises(RejectedError, match="no program 'nope'"):
        loaded.set_type("nope", ProgramType.XDP)
