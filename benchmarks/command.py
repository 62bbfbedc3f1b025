"""A peer behind a command: ubpf, llvmbpf, rbpf or another runtime, through a small adapter.

    COMMAND OBJECT PROGRAM PACKET RUNS     prints one line of JSON: {"ns": nanoseconds by run} or {"error": "why not"}

OBJECT is an ELF file for BPF, compiled with FLAT defined: the program (in section "flat") gets the address of two
64-bit words, where the packet starts and where it ends. PACKET is a file with the packet's bytes. The adapter loads
the program, runs it RUNS times over one copy of the packet and divides; it may do so more than once and tell the
least. Maps and helpers it does not have are an error.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Final, final

from benchmarks.measure import Contestant
from benchmarks.micros import FOLDER, Micro
from benchmarks.native import Compiler, UnavailableError
from benchmarks.speed import PROGRAM

TIMEOUT: Final = 60.0
ROUNDS_BY_RUN: Final = 8  # a process is dear: its answer serves for this many rounds
FIRST_RUNS: Final = 100


@final
class CommandPeer:
    """A runtime behind an adapter command."""

    floor_ns: Final = 0.0

    def __init__(self, name: str, command: str, compiler: Compiler | None, folder: Path) -> None:
        if compiler is None or not compiler.is_clang:
            raise UnavailableError("its programs have to be compiled, which needs clang")
        self.name = name
        self._command = shlex.split(command)
        self._compiler = compiler
        self._folder = folder

    def contestant(self, micro: Micro, batch_ns: int) -> Contestant:
        """Runs the adapter every few rounds and repeats its answer between."""
        packet = self._folder / f"{micro.name}.packet"
        packet.write_bytes(micro.packet)
        flat = self._compile(micro)
        runs = max(1, round(batch_ns / self._ask(flat, packet, FIRST_RUNS)))
        answers: list[float] = []
        calls = 0

        def contestant() -> float:
            nonlocal calls
            if calls % ROUNDS_BY_RUN == 0:
                answers.append(self._ask(flat, packet, runs))
            calls += 1
            return answers[-1]

        return contestant

    def _compile(self, micro: Micro) -> Path:
        flat = self._folder / f"{micro.name}.flat.o"
        flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-DFLAT", f"-I{FOLDER}"]
        command = [self._compiler.path, *flags, "-c", str(micro.source(self._folder)), "-o", str(flat)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"clang: {done.stderr.strip()[:200]}")
        return flat

    def _ask(self, flat: Path, packet: Path, runs: int) -> float:
        command = [*self._command, str(flat), PROGRAM, str(packet), str(runs)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(str(error)) from None
        except (IndexError, ValueError):
            raise UnavailableError(f"it printed no JSON: {done.stderr.strip()[-200:]}") from None
        if "error" in answer:
            raise UnavailableError(str(answer["error"]))
        return max(0.01, float(answer["ns"]))
