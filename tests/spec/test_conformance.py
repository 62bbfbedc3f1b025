"""Every test of the public bpf_conformance suite passes: cpu v4 with the callx group, raw and ELF."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from bpfc.conformance import run_plugin
from ir.isa import encode
from tests.conformance import read_case, wrap_in_elf
from tests.engines import ENGINES

SUITE = os.environ.get("BPFC_CONFORMANCE_SUITE", "")
FILES = sorted(Path(SUITE).glob("*.data")) if SUITE else []

pytestmark = pytest.mark.skipif(not FILES, reason="BPFC_CONFORMANCE_SUITE does not name the suite's tests")


def test_the_suite_is_complete() -> None:
    assert len(FILES) >= 313


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", ["raw", "elf"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_program_of_the_suite_returns_its_result(path: Path, form: str, engine: str) -> None:
    case = read_case(path)
    memory = [case.memory.hex(" ").replace(" ", "  ") + "  "] if case.memory else []
    argv = [*memory, "--elf"] if form == "elf" else memory
    code = wrap_in_elf(case.insns) if form == "elf" else encode(case.insns)
    stdin, stdout, stderr = io.StringIO(code.hex(" ")), io.StringIO(), io.StringIO()
    assert run_plugin(argv, stdin, stdout, stderr, {engine: ENGINES[engine]}) == 0
    assert stderr.getvalue() == ""
    assert int(stdout.getvalue(), 16) == case.result
