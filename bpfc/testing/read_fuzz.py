"""Read what a coverage-guided fuzzer makes of objects: `python -m bpfc.testing.read_fuzz [OPTION...] FOLDER...`.

The fuzzer is atheris, which is no dependency: install it for this. It starts from the objects in the FOLDERs and adds to
the first what reaches new code; every other change is one that knows ELF. OPTIONs are libFuzzer's (`-max_total_time=60`).
What is neither an Object nor a Diagnostic, or takes more than five seconds, ends it with the bytes kept in a file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bpfc.testing.mutation import mutate

OPTIONS = ("-timeout=5", "-max_len=200000", "-rss_limit_mb=4096")


def main(arguments: Sequence[str]) -> int:
    """Fuzz until an option or a finding ends it; 2 without atheris."""
    if find_spec("atheris") is None:
        sys.stderr.write("read_fuzz: this needs atheris (pip install atheris)\n")
        return 2
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["bpfc.elf", "ir"]):
        outcome = import_module("bpfc.testing.readers").OBJECT.outcome

    def read(data: bytes) -> None:
        outcome(data, "fuzzed.o")

    def change(data: bytes, most: int, seed: int) -> bytes:
        changed: bytes = mutate(data, seed) if seed % 2 and data else atheris.Mutate(data, most)
        return changed[:most]

    atheris.Setup([sys.argv[0], *OPTIONS, *arguments], read, custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
