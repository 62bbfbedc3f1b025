"""`bpfc bench`: what an object's programs cost, and llvm-mca's estimate on every target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
PROCESSORS = {
    "x86_64": "znver4",
    "aarch64": "cortex-a76",
    "riscv64": "sifive-u74",
    "s390x": "z15",
    "ppc64le": "pwr9",
}
HAS_MCA = any(shutil.which(name) for name in ("llvm-mca", *(f"llvm-mca-{n}" for n in range(14, 31))))


def test_a_programs_costs_are_measured_stage_by_stage(bpfc: Run, xdp: Path) -> None:
    (program,) = json.loads(bpfc("bench", "-j", xdp).stdout)["programs"]
    assert program["accepted"] is True
    assert program["run_ns"] > 0
    assert program["code_bytes"] > 100
    assert "LLVM's code generation" in program["stages_ns"]
    assert program["compile_ns"] == sum(program["stages_ns"].values())
    assert 0 < program["reload_ns"] < program["compile_ns"]


@pytest.mark.skipif(not HAS_MCA, reason="llvm-mca is not installed")
@pytest.mark.parametrize(("arch", "cpu"), PROCESSORS.items())
def test_llvm_mca_estimates_the_code_of_every_target(bpfc: Run, xdp: Path, arch: str, cpu: str) -> None:
    (found,) = json.loads(bpfc("bench", "-j", xdp, "--mca", cpu, "--arch", arch).stdout)["programs"]
    assert (found["target"], found["cpu"]) == (arch, cpu)
    assert found["instructions"] > 50
    assert 0 < found["ipc"] < 10


@pytest.mark.skipif(not HAS_MCA, reason="llvm-mca is not installed")
def test_a_processor_that_is_not_known_is_said_so(bpfc: Run, xdp: Path) -> None:
    result = bpfc("bench", xdp, "--mca", "abacus")
    assert result.exit_code == 4
    assert "abacus" in result.stderr
