"""Whether two runs of the benchmarks agree: `python -m benchmarks.agreement A.json B.json`, or a folder for its last two.

Compared are ratios: each contestant's least time over the native one of the same run, and costs that are ratios. Exit code
1 when one differs by more than 15 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.report import SCHEMA
from benchmarks.speed import NATIVE

WITHIN: Final = 0.15


def ratios(report: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of a report by name."""
    found = {
        f"{program['name']}, {name}": ratio
        for program in report["programs"]
        for name, ratio in program["ratios"].items()
        if name != NATIVE and ratio is not None
    }
    return found | {cost["name"]: cost["value"] for cost in report["costs"] if cost["unit"] == "x"}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """(name, ratio in one, in the other, the larger over the smaller less 1), the farthest apart first."""
    a, b = ratios(one), ratios(other)
    rows = [
        (name, a[name], b[name], max(a[name], b[name]) / min(a[name], b[name]) - 1) for name in a if name in b
    ]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def main(given: Sequence[str] | None = None) -> int:
    """Print the ratios side by side; 0 when all agree, 1 when not, 2 for what cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    parser.add_argument("--within", type=float, default=100 * WITHIN, metavar="PERCENT")
    arguments = parser.parse_args(given)
    paths = [path for each in arguments.reports for path in _reports(each)]
    if len(paths) != 2:
        print(f"benchmarks: two reports are compared, here are {len(paths)}", file=sys.stderr)
        return 2
    try:
        rows = differences(*map(_read, paths))
    except (OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    for name, x, y, apart in rows:
        print(f"{name:<52}{x:>8.3f}{y:>8.3f}{100 * apart:>7.1f} %")
    far = [row for row in rows if 100 * row[3] > arguments.within]
    print(f"{len(rows) - len(far)} of {len(rows)} ratios agree within {arguments.within:g} %")
    return 1 if far or not rows else 0


def _reports(path: Path) -> list[Path]:
    return sorted(path.glob("bench-*.json"))[-2:] if path.is_dir() else [path]


def _read(path: Path) -> dict[str, Any]:
    said: Any = json.loads(path.read_text())
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no report of these benchmarks ({SCHEMA})")
    return dict(said)


if __name__ == "__main__":
    sys.exit(main())
