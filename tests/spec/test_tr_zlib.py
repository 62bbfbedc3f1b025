"""The demo that traces zlib's crc32 in the running Python: it needs nothing of the library, and no privileges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
SHOW_CAPABILITIES = "import re; print(re.search('CapEff:\\t(.*)', open('/proc/self/status').read())[1])"


def test_calls_and_sizes_are_counted_without_privileges() -> None:
    prefix: tuple[str, ...] = ()
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv to give up root's privileges with")
        prefix = WITHOUT_CAPABILITIES
        shown = subprocess.run(
            [*prefix, sys.executable, "-c", SHOW_CAPABILITIES], capture_output=True, text=True
        )
        assert int(shown.stdout, 16) == 0, shown.stderr
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tools.demo_trace"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<fexit link of count to crc32>: 'fexit/crc32'\n")
    assert done.stdout.endswith("results are the same with and without it\n")
    counted = re.search(r"(\d+) calls over (\d+) bytes", done.stdout)
    assert counted is not None
    sizes = [int(line.split()[3]) for line in done.stdout.splitlines() if " .. " in line]
    assert int(counted[1]) == sum(sizes) > 10
    assert int(counted[2]) > 4 * 88_000
