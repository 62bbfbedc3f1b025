"""The C cases of verify/*.c: whether each program is proved safe, and why not, as its declaration tags say.

    SEC("tc") REFUSED(reference-leak) int program(...)      refused for that reason; without the tag it is proved safe
    LINUX(accepts), LINUX(rejects)                          where Linux does not say the same

Where bpf(2) may be called the running kernel has to give the same verdict on what libbpf makes of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import bpfc
from bpfc.kernel_types import running_kernel
from bpfc.loaded import Loaded
from bpfc.testing.libbpf import Said, judged
from ir.btf_types import BtfKind, DeclTag, Function

FOLDER = Path(__file__).parent / "verify"


class Case(NamedTuple):
    """A program of a file; `refusal` is the code, '' when it is safe; `linux` what Linux does if it differs."""

    path: Path
    name: str
    refusal: str
    linux: str

    def __str__(self) -> str:
        return f"{self.path.stem}: {self.name}"


@cache
def opened(path: Path) -> Loaded:
    """The object, read once."""
    return bpfc.load(path)


def read_cases() -> Iterator[Case]:
    """Every program of every object, with what its tags say."""
    for path in sorted(FOLDER.glob("*.o")):
        source = opened(path).object
        assert source.btf is not None
        tags: dict[str, dict[str, str]] = {}
        for id in source.btf.of_kind(BtfKind.DECL_TAG):
            tag = source.btf.type(id)
            function = source.btf.type(tag.type_id) if isinstance(tag, DeclTag) else None
            if isinstance(tag, DeclTag) and isinstance(function, Function):
                word, _, value = tag.value.partition(":")
                tags.setdefault(source.btf.name(tag.type_id), {})[word] = value
        for name in source.programs:
            said = tags.get(name, {})
            yield Case(path, name, said.get("refused", ""), said.get("linux", ""))


CASES = list(read_cases())
pytestmark = pytest.mark.skipif(running_kernel() is None, reason="the running kernel does not give its types")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_programs_are_proved_or_refused_as_the_case_says(case: Case) -> None:
    report = opened(case.path).verify(case.name)[case.name]
    assert [found.code for found in report.diagnostics] == ([case.refusal] if case.refusal else [])


@pytest.mark.parametrize("case", [case for case in CASES if case.refusal], ids=str)
def test_refusals_name_the_line_and_say_what_would_help(case: Case) -> None:
    (found,) = opened(case.path).verify(case.name)[case.name].diagnostics
    assert found.at.source is not None
    assert found.at.source.file.endswith(f"{case.path.stem}.c")
    assert found.why is not None
    assert found.why.hint


@pytest.mark.kernel
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_running_kernel_gives_the_same_verdict(case: Case) -> None:
    is_accepted = case.linux == "accepts" if case.linux else not case.refusal
    verdict = judged(case.path.read_bytes(), case.name)
    assert verdict.said is (Said.ACCEPTED if is_accepted else Said.REFUSED), verdict.reason
