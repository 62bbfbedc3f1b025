"""An adapter for runtimes that take raw instructions: `python -m benchmarks.peers.raw LIBRARY OBJECT PROGRAM PACKET RUNS`.

LIBRARY is a shared library with one function, built around the runtime (llvmbpf.cpp is one):

    double run_flat(const void *code, size_t size, void *memory, size_t memory_size, uint64_t runs)

It loads `size` bytes of instructions, runs them `runs` times over `memory` and gives the nanoseconds of CPU time of a
run; negative when the runtime cannot. The program is linked here, since these runtimes read no relocations.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import bpfc
from ir.encoding import encode


def measure(library: str, path: str, program: str, packet: str, runs: int) -> dict[str, object]:
    """The answer of an adapter: nanoseconds of a run, or why not."""
    code = encode(bpfc.load(path).programs[program].insns)
    data = ctypes.create_string_buffer(Path(packet).read_bytes())
    start = ctypes.addressof(data)
    bounds = (ctypes.c_uint64 * 2)(start, start + len(data) - 1)
    # Safe as far as the peer is: the code is an object that bpfc read, over two words and the packet they bound.
    try:
        run_flat = ctypes.CDLL(str(Path(library).absolute())).run_flat
    except (OSError, AttributeError) as error:
        return {"error": f"no run_flat in the library: {error}"}
    run_flat.restype = ctypes.c_double
    run_flat.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64]
    ns = run_flat(code, len(code), bounds, ctypes.sizeof(bounds), runs)
    return {"ns": ns} if ns >= 0 else {"error": "the runtime does not load it"}


def main(arguments: Sequence[str]) -> int:
    """Print the answer as a line of JSON."""
    library, path, program, packet, runs = arguments
    print(json.dumps(measure(library, path, program, packet, int(runs))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
