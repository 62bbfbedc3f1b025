"""Acceptance cases run on every machine: this one, and each emulated target; the cases and what they assert are the same.

`@pytest.mark.host_only("why")` is for a case about what only this process has. `@pytest.mark.no_code` is for one that
compiles nothing or runs nothing: it is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.space import Space
from tests.engines import EMULATED, HOST, on_machine

CASES = ("test_sk", "test_tr_tr", "test_tr_packets", "test_fr", "test_gd", "test_fc")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case a machine."""
    case = metafunc.definition
    if "machine" not in metafunc.fixturenames:
        return
    is_everywhere = case.path.name.startswith(CASES) and not any(
        case.get_closest_marker(name) for name in ("host_only", "no_code")
    )
    metafunc.parametrize("machine", (HOST, *EMULATED) if is_everywhere else (HOST,), indirect=True)


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[Space]:
    """Where objects start that the case starts."""
    with on_machine(request.param) as space:
        yield space
