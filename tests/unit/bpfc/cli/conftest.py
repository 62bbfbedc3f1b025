"""What the tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bpfc.cli.root import root

OBJECTS = Path(__file__).parents[3] / "objects"

Run = Callable[..., Result]


@pytest.fixture
def bpfc() -> Run:
    """Run a command line in this process."""

    def run(*words: str | Path, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(root, [str(word) for word in words], input=stdin, prog_name="bpfc")

    return run


@pytest.fixture
def bpfc_json(bpfc: Run) -> Callable[..., dict[str, Any]]:
    """Run a command line with -j that has to answer with one object, and exit with `code`."""

    def run(*words: str | Path, code: int = 0) -> dict[str, Any]:
        result = bpfc("-j", *words)
        assert result.exit_code == code, result.output
        (line,) = result.stdout.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    return run


@pytest.fixture
def objects() -> Path:
    """The folder of our own objects."""
    return OBJECTS


@pytest.fixture
def xdp() -> Path:
    """The sample XDP object."""
    return OBJECTS / "xdp_stats.o"


@pytest.fixture
def pcap() -> Path:
    """The sample capture: 500 packets."""
    return OBJECTS / "sample.pcap"
