"""What one program costs: to verify, to compile stage by stage, to reload, to link, to run; least of some tries, in CPU time.

And what llvm-mca thinks of its code, for any processor of any target.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, final

from backends.registry import host, target_named
from bpfc.batch import Batch
from bpfc.codegen import Form, emit, generate
from bpfc.compile import effective_level
from bpfc.loaded import Loaded
from bpfc.options import Options
from ir.diagnostics import Diagnostic, UnsupportedError
from ir.object import Program

TRIES: Final = 5
BATCH: Final = 256
BATCHES: Final = 20
_TOOL: Final = "llvm-mca"
_NEWEST, _OLDEST = 30, 13  # versions to look for
_NUMBERS: Final = re.compile(r"^(Instructions|Total Cycles|IPC|Block RThroughput):\s+([\d.]+)", re.MULTILINE)


@final
@dataclass(frozen=True, slots=True)
class Costs:
    """Nanoseconds, but for `insns`, `code_bytes` and `level`; `run` is by packet, None without any."""

    insns: int
    level: str
    verify: int
    is_accepted: bool
    stages: tuple[tuple[str, int], ...]
    reload: int
    link: int
    code_bytes: int
    run: float | None

    @property
    def compile(self) -> int:
        """All stages."""
        return sum(ns for _, ns in self.stages)


@final
@dataclass(frozen=True, slots=True)
class Estimate:
    """llvm-mca's view of a program's code, taken as one straight line."""

    target: str
    cpu: str
    instructions: int
    cycles: float
    ipc: float
    throughput: float


def measure(loaded: Loaded, program: Program, options: Options, packets: Sequence[bytes]) -> Costs:
    """Everything about one program. Raises RejectedError when it does not compile."""
    options = replace(options, level=effective_level(program, options))
    report = min((loaded.verify(program.name)[program.name] for _ in range(TRIES)), key=lambda each: each.ns)
    stages = min(
        (_stages(loaded, program, options) for _ in range(TRIES)), key=lambda each: sum(ns for _, ns in each)
    )
    with _own_cache():
        reload, link, size, run = _start(loaded, program, options, packets)
    return Costs(
        len(program.insns), options.level, report.ns, report.is_accepted, stages, reload, link, size, run
    )


def estimate(loaded: Loaded, program: Program, options: Options, cpu: str, arch: str | None) -> Estimate:
    """What llvm-mca says. Raises UnsupportedError when it is not installed, or does not know the processor."""
    names = (*(f"{_TOOL}-{number}" for number in range(_NEWEST, _OLDEST, -1)), _TOOL)
    tool = next((path for name in names if (path := shutil.which(name))), None)
    if tool is None:
        raise UnsupportedError([Diagnostic("no-llvm-mca", "llvm-mca (Debian's llvm) is not installed")])
    target = target_named(arch) if arch is not None else host()
    options = replace(options, level=effective_level(program, options))
    text = emit(program, loaded.maps, options, target, Form.ASSEMBLY).decode()
    command = [tool, f"-mtriple={target.triple}", f"-mcpu={cpu}", "-iterations=100", "-instruction-info=0"]
    command += ["-resource-pressure=0"]
    done = _ask([*command, "-skip-unsupported-instructions=any"], _code_of(text))
    if done.returncode and "Unknown command line argument" in done.stderr:  # older than LLVM 19
        done = _ask(command, _code_of(text))
    found: dict[str, str] = dict(_NUMBERS.findall(done.stdout))
    if done.returncode or len(found) < 4:
        why = next((line for line in done.stderr.splitlines() if line.strip()), "it said nothing")
        raise UnsupportedError([Diagnostic("no-estimate", f"{_TOOL} for {target.name} {cpu}: {why.strip()}")])
    return Estimate(
        target.name,
        cpu,
        int(found["Instructions"]) // 100,
        float(found["Total Cycles"]) / 100,
        float(found["IPC"]),
        float(found["Block RThroughput"]),
    )


def _ask(command: list[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def _code_of(text: str) -> str:
    """Assembly without directives about sections, symbols and unwinding, nor direct calls: what they call is not seen, and
    llvm-mca 14 to 22 dies of those of s390x.
    """
    lines = (line for line in text.splitlines() if "@PLT" not in line)
    return "".join(
        f"{line}\n" for line in lines if not line.strip().startswith(".") or line.strip().endswith(":")
    )


def _stages(loaded: Loaded, program: Program, options: Options) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    last = time.thread_time_ns()

    def done(name: str) -> None:
        nonlocal last
        now = time.thread_time_ns()
        found.append((name, now - last))
        last = time.thread_time_ns()

    generate(program, loaded.maps, options, done=done)
    return tuple(found)


def _start(
    loaded: Loaded, program: Program, options: Options, packets: Sequence[bytes]
) -> tuple[int, int, int, float | None]:
    """Nanoseconds to reload and to link, bytes of code, nanoseconds a packet."""
    options = replace(options, cache=True)
    reloads: list[int] = []
    links: list[int] = []
    for _ in range(TRIES + 1):
        with loaded.start(options) as runtime:
            running = runtime[program.name]
            compiled = running.compiled
            before = time.thread_time_ns()
            image = running.image
            links.append(time.thread_time_ns() - before)
            reloads.append(compiled.ns)
            size = sum(section.size for section in compiled.code.sections if section.is_executable)
            assert image is running.image, "an image is made once"
    with loaded.start(options) as runtime:
        runtime[program.name].run(packets[0] if packets else b"")
        run = _run_time(runtime[program.name].run_batch, packets)
    return min(reloads[1:]), min(links), size, run


def _run_time(run_batch: Callable[[Batch], object], packets: Sequence[bytes]) -> float | None:
    laid = [bytearray(packets[number % len(packets)]) for number in range(BATCH)] if packets else []
    if not laid:
        return None
    batch = Batch(laid)
    took = []
    for _ in range(BATCHES):
        before = time.thread_time_ns()
        run_batch(batch)
        took.append(time.thread_time_ns() - before)
    return min(took) / BATCH


@contextmanager
def _own_cache() -> Iterator[None]:
    """Inside, the object cache is a folder of its own, empty at first."""
    before = os.environ.get("BPFC_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BPFC_CACHE_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["BPFC_CACHE_DIR"]
            else:
                os.environ["BPFC_CACHE_DIR"] = before
