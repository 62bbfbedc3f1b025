"""Lowering: a module of SSA functions to LLVM IR text.

Each Value becomes an LLVM `ptr` when it is an address (ir/regions.py) and an `i64` otherwise. Every load and store that was not
proved safe is preceded by a compare that leaves through the function's one trap block; every back-edge without a proved
bound spends fuel. What the program may not do at all (store to a read-only context field, say) is a Diagnostic.

    block 3 (v7):                        b3:
      v10 = load u16 [v7 + 12]    ->       %p3 = phi ptr [ %v2, %b0 ], [ %v9, %b2 ]
                                           %v10 = getelementptr i8, ptr %p3, i64 12
                                           %v11 = icmp ...                       ; the check
                                           br i1 %v11, label %b3.1, label %trap
                                         b3.1:
                                           %v12 = load i16, ptr %v10, align 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from backends.batch import Loop, batch_texts
from backends.calls import Natives, NoNatives
from backends.checks import CHECK_SYMBOL
from backends.control import PATCHPOINT
from backends.function import FunctionLowering
from backends.line_table import line_metadata
from backends.static_sites import FLAG, FLAGS
from backends.unit import Facts, LowerOptions, Unit, quote
from ir.core import Module
from ir.diagnostics import RejectedError
from ir.regions import Regions

SMALL: Final = 200  # instructions up to which a program is compiled into its batch loop too


@final
@dataclass(frozen=True, slots=True)
class Lowered:
    """LLVM IR text, the external symbols it needs, and how many run-time checks and fueled loops are left in it.

    `large` are functions that are better compiled in a hurry.
    """

    text: str
    externals: tuple[str, ...]
    checks: int
    fueled_loops: int
    large: frozenset[str]


def lower(
    module: Module, regions: Regions, facts: Facts, options: LowerOptions, natives: Natives | None = None
) -> Lowered:
    """The LLVM IR of `module`. Raises RejectedError for accesses that can never be right."""
    unit = Unit(module, regions, facts, options, natives or NoNatives())
    bodies = [FunctionLowering(unit, module.functions[name]).run() for name in unit.order]
    if unit.problems:
        raise RejectedError(unit.problems)
    declarations = [f"declare {signature}" for _, signature in sorted(unit.declared.items())]
    globals_ = [f"@{quote(name)} = external global i8" for name in sorted(unit.globals)]
    main = module.main.name
    if options.has_batch and module.context.entry is None:
        has_table = unit.needs_segments or any(map(unit.is_replaceable, module.functions))
        is_small = len(module.program.insns) <= SMALL and PATCHPOINT not in unit.declared and not unit.flags
        bodies += batch_texts(
            main, Loop(module.context, main in unit.may_trap, has_table, is_small, options.word < 8)
        )
    if unit.needs_segments:
        from backends.helpers.segments import in_segment_part  # late: most programs prove all accesses

        bodies.append(in_segment_part(CHECK_SYMBOL))
    metadata = ['!1 = !{!"branch_weights", i32 1048575, i32 1}']
    if options.lines:
        infos = (module.functions[name].info for name in unit.order)
        metadata += line_metadata([(info.name, info.start, info.slots) for info in infos])
    flags = [
        f'@{quote(f"{FLAG}{key}")} = global i32 0, section "{FLAGS}", align 4' for key in sorted(unit.flags)
    ]
    text = "\n".join([*globals_, *flags, *declarations, *bodies, *metadata, ""])
    externals = (*sorted(unit.declared), *sorted(unit.globals))
    return Lowered(text, externals, unit.checks, unit.fueled, frozenset(unit.large))
