"""The results as a table for people and as JSON for programs ("schema": "bpfc.bench/1")."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from benchmarks.costs import Cost
from benchmarks.measure import Timing
from benchmarks.native import FLAGS, Compiler
from benchmarks.speed import BPFC, NATIVE, Speed, geometric_mean

SCHEMA: Final = "bpfc.bench/1"
GEOMEAN_TARGET: Final = 1.10
RATIO_TARGET: Final = 1.30


@final
@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run measured, and where."""

    host: dict[str, str]
    speeds: list[Speed] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @property
    def ratios(self) -> dict[str, float]:
        """bpfc's least time over the native least time, by program."""
        found = {speed.micro.name: speed.ratio(BPFC) for speed in self.speeds}
        return {name: ratio for name, ratio in found.items() if ratio is not None}

    @property
    def contestants(self) -> list[str]:
        """Everyone who took part, native code and bpfc first."""
        names = {name for speed in self.speeds for name in speed.timings}
        return sorted(
            names, key=lambda name: ((NATIVE, BPFC).index(name) if name in (NATIVE, BPFC) else 2, name)
        )

    def geomean(self, name: str = BPFC) -> float | None:
        """The geometric mean of a contestant's ratios over the programs it ran."""
        ratios = [ratio for speed in self.speeds if (ratio := speed.ratio(name)) is not None]
        return geometric_mean(ratios) if ratios else None


def describe_host(compiler: Compiler | None) -> dict[str, str]:
    """What the numbers depend on: processor, kernel and the versions of compilers."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    return {
        "cpu": f"{cpu}, {os.cpu_count()} processors",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "llvmlite": importlib.metadata.version("llvmlite"),
        "native": f"{compiler.version} {' '.join(FLAGS)}" if compiler is not None else "no C compiler",
    }


def to_json(report: Report) -> dict[str, object]:
    """The report as plain JSON values; times in nanoseconds by packet."""
    return {
        "schema": SCHEMA,
        "host": report.host,
        "geomean": report.geomean(),
        "programs": [_speed_json(speed) for speed in report.speeds],
        "costs": [
            {
                "name": cost.name,
                "value": cost.value,
                "unit": cost.unit,
                "target": cost.target,
                "section": cost.section,
                "kernel": cost.kernel,
            }
            for cost in report.costs
        ],
    }


def table(speeds: Sequence[Speed], contestants: Sequence[str]) -> list[str]:
    """Lines of text: least time by packet of native code, then the ratio of everyone else to it."""
    others = [name for name in contestants if name != NATIVE]
    head = f"{'program':<12}{'native ns':>11}" + "".join(f"{name:>10}" for name in others) + "  by rounds"
    return [head, *(row(speed, others) for speed in speeds)]


def row(speed: Speed, others: Sequence[str]) -> str:
    """One line of the table."""
    native = speed.timings.get(NATIVE)
    cells = [f"{speed.micro.name:<12}", f"{native.best:>11.1f}" if native else f"{'-':>11}"]
    for name in others:
        ratio, timing = speed.ratio(name), speed.timings.get(name)
        if ratio is not None:
            cells.append(f"{ratio:>9.2f}x")
        else:
            cells.append(f"{timing.best:>8.1f}ns" if timing else f"{'-':>10}")
    paired = speed.paired()
    cells.append(f"{paired:>10.2f}x" if paired is not None else f"{'-':>11}")
    if any(timing.is_noisy for timing in speed.timings.values()):
        cells.append("  noisy")
    return "".join(cells)


def cost_line(cost: Cost) -> str:
    """A cost as a line of text, with its target."""
    said = f"{cost.name:<50}{cost.value:>10.2f} {cost.unit}"
    if cost.kernel is not None:
        said += f"{cost.kernel:>11.2f} {cost.unit} in the kernel, {cost.value / max(cost.kernel, 0.01):.2f}x"
    if cost.target is None:
        return said
    return f"{said}  (target {cost.target:g}{'' if cost.is_met else ', missed'})"


def _speed_json(speed: Speed) -> dict[str, object]:
    return {
        "name": speed.micro.name,
        "summary": speed.micro.summary,
        "level": speed.level,
        "timings": {name: _timing_json(timing) for name, timing in speed.timings.items()},
        "ratios": {name: speed.ratio(name) for name in speed.timings},
        "paired": speed.paired(),
        "absent": speed.absent,
    }


def _timing_json(timing: Timing) -> dict[str, object]:
    return {
        "best": timing.best,
        "median": timing.median,
        "batches": len(timing.ns),
        "noisy": timing.is_noisy,
    }
