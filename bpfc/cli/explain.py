"""`--explain-branches`: which branches read-only data decided, and what that saves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bpfc.cli.errors import location_json
from bpfc.cli.terminal import Json

if TYPE_CHECKING:
    from bpfc.explain import Explanation
    from bpfc.loaded import Loaded
    from ir.object import Program

explain_option = click.option(
    "--explain-branches", is_flag=True, help="Which branches read-only data decided, by which value, and why."
)


def arch_for(loaded: Loaded) -> str | None:
    """For those who are asked about no machine: None when this one has the object's byte order, else the first that has."""
    from backends.registry import NAMES, target_named

    order = "big" if loaded.object.big_endian else "little"
    if order == sys.byteorder:
        return None
    return next(name for name in NAMES if target_named(name).byte_order == order)


def explain_for(loaded: Loaded, program: Program, level: str, arch: str | None) -> Explanation:
    """How `program` comes out at a level for machine `arch` (None: this one). Raises RejectedError."""
    from backends.registry import target_named
    from bpfc.explain import explain  # late: llvmlite
    from bpfc.options import Options

    return explain(loaded, program, Options(level=level), target_named(arch) if arch else None)


def explanation_json(explanation: Explanation) -> Json:
    """Everything, for machines."""
    return {
        "program": explanation.program,
        "branches": [
            {
                "at": location_json(branch.at),
                "is_taken": branch.is_taken,
                "because": [
                    {
                        "variable": cause.variable,
                        "map": cause.load.map,
                        "offset": cause.load.offset,
                        "size": cause.load.size,
                        "value": cause.load.value,
                        "at": location_json(cause.load.at),
                    }
                    for cause in branch.causes
                ],
            }
            for branch in explanation.branches
        ],
        "operations": explanation.operations,
        "operations_left": explanation.operations_left,
        "native_bytes": explanation.native_bytes,
        "native_bytes_without": explanation.general_bytes,
    }


def explanation_text(explanations: Sequence[Explanation]) -> str:
    """The same for people; the programs' names above, when there are several."""
    several = len(explanations) > 1
    return "\n\n".join(f"{one.program}\n{one}" if several else str(one) for one in explanations)
