"""Acceptance cases run on every machine: this one, and each emulated target; the cases and what they assert are the same.

`@pytest.mark.host_only("why")` is for a case about what only this process has. `@pytest.mark.no_code` is for one that
compiles nothing or runs nothing: it is the same everywhere. `@pytest.mark.little_endian("why")` is for objects that there
are no others of. Those of `INTERPRETED` run in the interpreter too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc
from runtime.space import Space
from tests.engines import BIG_ENDIAN, EMULATED, HOST, INTERPRETER, on_machine

if TYPE_CHECKING:
    from bpfc.running import Runtime

OBJECTS = Path(__file__).parent.parent / "objects"
INTERPRETED = ("test_gd_direct_values.py",)
CASES = (
    "test_fc_programs.py",
    "test_fc_stack.py",
    "test_fc_tables.py",
    "test_fr_extensions.py",
    "test_fr_libxdp.py",
    "test_fr_threads.py",
    "test_fr_verification.py",
    *INTERPRETED,
    "test_sk_attached.py",
    "test_sk_insn_arrays.py",
    "test_sk_static_keys.py",
    "test_sk_threads.py",
    "test_tr_far.py",
    "test_tr_lifetime.py",
    "test_tr_packets.py",
    "test_tr_sessions.py",
    "test_tr_trampolines.py",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case a machine."""
    case = metafunc.definition
    if "machine" not in metafunc.fixturenames:
        return
    is_everywhere = case.path.name in CASES and not any(
        case.get_closest_marker(name) for name in ("host_only", "no_code")
    )
    emulated = [
        name for name in EMULATED if name not in BIG_ENDIAN or not case.get_closest_marker("little_endian")
    ]
    machines: tuple[str, ...] = (HOST, *emulated) if is_everywhere else (HOST,)
    if is_everywhere and case.path.name in INTERPRETED:
        machines = (HOST, INTERPRETER, *emulated)
    metafunc.parametrize("machine", machines, indirect=True)


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[Space]:
    """Where objects start that the case starts."""
    with on_machine(request.param) as space:
        yield space


@pytest.fixture
def targets() -> Iterator[Runtime]:
    """Programs whose functions can be hooked."""
    with bpfc.load(OBJECTS / "hooked.o").start() as runtime:
        yield runtime


@pytest.fixture
def tracers() -> Iterator[Runtime]:
    """Programs that run around functions."""
    with bpfc.load(OBJECTS / "tracers.o").start() as runtime:
        yield runtime
