"""The table of what runs, on objects that need what only their own loaders say."""

from __future__ import annotations

from pathlib import Path

import pytest

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
