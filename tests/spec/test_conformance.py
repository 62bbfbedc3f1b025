"""Every test of the public bpf_conformance suite passes: cpu v4 with the callx group, raw and ELF, on every target.

Results of the suite are those of little-endian programs. On a big-endian target its programs are big-endian ones, and
for those that look at bytes of wider words (`BY_ORDER`) the result is what the interpreter gives in that order.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from bpfc.conformance import interpret, run_plugin
from ir.encoding import encode
from tests.conformance import Case, read_case, wrap_in_elf
from tests.engines import ENGINES, LITTLE_ENDIAN

SUITE = os.environ.get("BPFC_CONFORMANCE_SUITE", "")
FILES = sorted(Path(SUITE).glob("*.data")) if SUITE else []

BY_ORDER = frozenset(
    [
        "be16-high",
        "be32-high",
        "ldxdw",
        "ldxh",
        "ldxw",
        "le16-high",
        "le32-high",
        "lock_add32",
        "lock_and32",
        "lock_cmpxchg32",
        "lock_fetch_add32",
        "lock_fetch_and32",
        "lock_fetch_or32",
        "lock_fetch_xor32",
        "lock_or32",
        "lock_xchg32",
        "lock_xor32",
        "mul64-intmin-by-negone-imm",
        "mul64-intmin-by-negone-reg",
        "neg64-intmin-imm",
        "neg64-intmin-reg",
        "rfc9669_be16",
        "rfc9669_be32",
        "rfc9669_be64",
        "rfc9669_le16",
        "rfc9669_le32",
        "rfc9669_le64",
        "rfc9669_lock_cmpxchg32",
        "rfc9669_lock_xchg32",
        "sdiv64-intmin-by-negone-imm",
        "sdiv64-intmin-by-negone-reg",
        "subnet",
    ]
)

pytestmark = pytest.mark.skipif(not FILES, reason="BPFC_CONFORMANCE_SUITE does not name the suite's tests")


def test_the_suite_is_complete() -> None:
    assert len(FILES) >= 313


def test_32_results_depend_on_the_byte_order() -> None:
    cases = {path.stem: read_case(path) for path in FILES}
    assert {name for name, case in cases.items() if big_endian_result(case) != case.result} == BY_ORDER


def big_endian_result(case: Case) -> int:
    return interpret(case.insns, bytearray(case.memory), big_endian=True)


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
    wanted = big_endian_result(case) if path.stem in BY_ORDER and engine not in LITTLE_ENDIAN else case.result
    assert int(stdout.getvalue(), 16) == wanted
