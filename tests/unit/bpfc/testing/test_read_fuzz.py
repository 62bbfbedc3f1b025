"""The coverage-guided fuzzer of the readers."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OBJECTS = Path(__file__).parents[3] / "objects"


def test_it_reads_what_the_fuzzer_makes_or_says_that_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "xdp_stats.o").write_bytes((OBJECTS / "xdp_stats.o").read_bytes())
    command = [sys.executable, "-m", "bpfc.testing.read_fuzz", "-runs=20", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if find_spec("atheris") is None:
        assert (done.returncode, done.stderr) == (2, "read_fuzz: this needs atheris (pip install atheris)\n")
    else:
        assert done.returncode == 0, done.stderr
        assert "Done 20 runs" in done.stderr
