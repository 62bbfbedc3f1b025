"""gdb knows functions by name, their lines of C, and who called them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bpfc
from bpfc import Options
from bpfc.symbols import name_for_gdb, symbol_name
from runtime.gdb import _interface

OBJECT = Path(__file__).parents[2] / "objects" / "hooked.o"
SCRIPT = f"""
import bpfc
from bpfc.symbols import name_for_gdb
with bpfc.load({str(OBJECT)!r}).start(bpfc.Options(lines=True)) as runtime:
    program = runtime["calls_g"]
    with name_for_gdb(program):
        print("r0 =", program.run(bytes(64), {{"ingress_ifindex": 130}}).ret, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.parametrize(("command", "publish"), [("break", "rwx"), ("hbreak", "none")])
def test_a_backtrace_shows_names_and_lines_of_c(command: str, publish: str, tmp_path: Path) -> None:
    """A breakpoint that gdb writes into code needs one mapping for both; one of the processor does not."""
    program = bpfc.load(OBJECT).programs["calls_g"]
    main, callee = (symbol_name(program, info) for info in program.functions)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    before = ["set debuginfod enabled off", "set breakpoint pending on"]
    steps = [
        "break __jit_debug_register_code",
        "run",
        "finish",
        f"{command} {callee}",
        "continue",
        "bt 2",
        "kill",
    ]
    given = [f"-iex={text}" for text in before] + [f"-ex={text}" for text in steps]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "BPFC_PUBLISH": publish}
    done = subprocess.run(
        ["gdb", "--batch", "-nx", *given, "--args", sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if "ptrace" in done.stderr or "Could not insert hardware" in done.stderr:
        pytest.skip("this machine lets nobody be traced so")
    assert f"#0  {callee} () at ./tests/objects/hooked.c:26" in done.stdout, done.stdout + done.stderr
    assert f"in {main} () at ./tests/objects/hooked.c:73" in done.stdout


def test_what_is_announced_is_in_the_debuggers_list_until_it_is_closed() -> None:
    with bpfc.load(OBJECT).start(Options(lines=True)) as runtime:
        first, second = (name_for_gdb(runtime[name]) for name in ("calls_g", "calls_many"))
        listed = _interface()._descriptor
        assert listed.version == 1
        assert listed.first.contents.size == second._entry.size
        assert listed.first.contents.next.contents.size == first._entry.size
        first.close()
        assert not listed.first.contents.next
        second.close()
        second.close()
        assert not listed.first
