"""The stages behind a cache miss; the one module of this floor that needs LLVM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final, assert_never, final

from backends.lower import Lowered, lower
from backends.machine import Level, Machine
from backends.native_code import NativeCode, Needs
from backends.needs import needs_of
from backends.object_reader import parse_object
from backends.registry import host
from backends.target import Target
from backends.unit import LowerOptions
from bpfc.collection import uncollected
from ir.context import ContextLayout
from ir.core import Module, StaticBranch
from ir.diagnostics import RejectedError
from ir.helpers import HELPER_IDS, Helper
from ir.hook_objects import XDP_BUFF
from ir.isa import NOP_FIRST, Callee, Kind
from ir.kinds import ProgramType
from ir.lift import lift
from ir.object import Map, Program
from ir.passes.fold_rodata import FoldRodata
from ir.pipeline import DEFAULT, DEFAULT_FAST, Pipeline
from ir.regions import Regions
from ir.stack_depth import check_stack, frame_sizes
from ir.verify.facts import Facts, analyze
from ir.verify.result import check_result
from runtime.host_helpers import HOST_HELPERS

if TYPE_CHECKING:
    from backends.calls import NativeHelper
    from backends.natives import NativeHelpers
    from bpfc.options import Options


LEVELS: Final = {"O0": Level.NONE, "O1": Level.FAST, "O2": Level.DEFAULT, "O3": Level.MOST}


PIPELINES: Final = {"O0": Pipeline(()), "O1": DEFAULT_FAST, "O2": DEFAULT, "O3": DEFAULT}


@final
@dataclass(frozen=True, slots=True)
class Generated:
    """Native code and the LLVM IR it came from."""

    code: NativeCode
    lowered: Lowered


@final
@dataclass(frozen=True, slots=True)
class Front:
    """A program checked and optimized: what lowering reads, the same for every target, and leaves as it is.

    `texts` are what it was lowered to, for targets that want the same.
    """

    program: Program
    module: Module
    regions: Regions
    facts: Facts
    texts: dict[LowerOptions, tuple[Lowered, str]] = field(default_factory=dict, repr=False)


class Form(Enum):
    """What a program is compiled to; LOWERED is LLVM IR before LLVM has optimized it."""

    OBJECT = "obj"
    ASSEMBLY = "asm"
    LLVM = "llvm"
    LOWERED = "lowered"


Stage = Callable[[str], None]
FAR_FROM: Final = 4096  # instructions from which on code may be longer than a static branch's jump reaches
_ANY_PROLOGUE: Final = (
    "prologue <{ }> <{ }>"  # stands for the target's own, which is all that lowering needs of it
)


def _no_stage(name: str) -> None:
    """Nobody wants to know."""


def generate(
    program: Program,
    maps: Mapping[str, Map],
    options: Options,
    overridden: frozenset[int] = frozenset(),
    context: ContextLayout | None = None,
    target: Target | None = None,
    front: Front | None = None,
    done: Stage = _no_stage,
) -> Generated:
    """Compile `program` for any processor of `target`, or for just this host when None. Raises RejectedError.

    `front` of the same program, maps, options and context is made once and serves several targets. `done` is told the
    name of each stage as it ends.
    """
    cpu = target.cpu if target is not None else None
    has_batch = target is None  # which emulated machines do not use
    target = target or host()
    machine, parsed, lowered = build(
        program, maps, options, target, overridden, context, cpu, front, done, has_batch
    )
    if options.level != "O0":
        machine.optimize(parsed, lowered.large)
    done("LLVM's passes")
    needs = Needs.ALL
    if context is not None and context.entry is None and target.word == 8:  # a program that hooks run
        needs = needs_of(str(parsed.get_function(program.name)))
    object = machine.emit_object(parsed)
    done("LLVM's code generation")
    code = parse_object(object, target, _jumps_first(program), branch_room(program, target))
    done("reading the object")
    return Generated(replace(code, needs=needs), lowered)


def emit(program: Program, maps: Mapping[str, Map], options: Options, target: Target, form: Form) -> bytes:
    """`program` for `target` in the form wanted, texts in UTF-8. Raises RejectedError."""
    machine, parsed, lowered = build(program, maps, options, target, frozenset())
    if options.level != "O0" and form is not Form.LOWERED:
        machine.optimize(parsed, lowered.large)
    match form:
        case Form.OBJECT:
            return machine.emit_object(parsed)
        case Form.ASSEMBLY:
            return machine.emit_assembly(parsed).encode()
        case Form.LLVM | Form.LOWERED:
            return str(parsed).encode()
        case _:
            assert_never(form)


def build(
    program: Program,
    maps: Mapping[str, Map],
    options: Options,
    target: Target,
    overridden: frozenset[int],
    context: ContextLayout | None = None,
    cpu: str | None = None,
    front: Front | None = None,
    done: Stage = _no_stage,
    has_batch: bool = True,
) -> tuple[Machine, Any, Lowered]:
    """A machine for `target`, the program as its LLVM module, and what lowering has to say.

    `front` is of the same maps, options, overridden helpers and context.
    """
    front = front or front_of(program, maps, options, context, done)
    can_prove = context is None
    lowered, text = lowered_text(front, maps, options, target, overridden, can_prove, has_batch)
    done("LLVM IR as text")
    machine = Machine(target, LEVELS[options.level], cpu)
    parsed = machine.parse(text.replace(_ANY_PROLOGUE, target.prologue))
    done("parsing it")
    return machine, parsed, lowered


def lowered_text(
    front: Front,
    maps: Mapping[str, Map],
    options: Options,
    target: Target,
    overridden: frozenset[int],
    can_prove: bool = True,
    has_batch: bool = True,
) -> tuple[Lowered, str]:
    """What lowering has to say, and LLVM IR for `target` and others with static branches and pointers of the same size.

    `can_prove`: a proof may say that what cannot be right is never run. The entry slot is left to each target.
    """
    program = front.program
    lower_options = LowerOptions(
        program.big_endian,
        options.count_insns,
        branch_room(program, target) if _has_static_branches(front.module) else 0,
        _callx_helpers() if any(row.callee is Callee.INDIRECT for row in program.rows) else frozenset(),
        options.lines,
        prologue=_ANY_PROLOGUE if options.extensible else "",
        has_batch=has_batch,
        word=target.word,
    )
    if lower_options not in front.texts:
        can_prove = can_prove and options.fold
        front.texts[lower_options] = _lower(front, maps, lower_options, overridden, can_prove)
    return front.texts[lower_options]


def _lower(
    front: Front,
    maps: Mapping[str, Map],
    lower_options: LowerOptions,
    overridden: frozenset[int],
    can_prove: bool,
) -> tuple[Lowered, str]:
    """What lowering has to say, and the text with the helpers in it; `can_prove`: what seems wrong may be never run."""
    program, objects = front.program, front.module.context.objects.values()

    def lower_with(lower_options: LowerOptions) -> tuple[Lowered, _LateNatives]:
        natives = _LateNatives(overridden, program.type, XDP_BUFF in objects, lower_options.word)
        return lower(front.module, front.regions, front.facts, lower_options, natives), natives

    with uncollected():
        try:
            lowered, natives = lower_with(lower_options)
        except RejectedError:
            if not can_prove or not _is_proved(program, maps):
                raise
            lowered, natives = lower_with(replace(lower_options, proved=True))
        return lowered, _joined(lowered.text, natives.text())


@final
class _LateNatives:
    """Native helpers, imported once one is asked for: they are a fifth of what compiling imports."""

    def __init__(self, overridden: frozenset[int], type: ProgramType, has_xdp_buff: bool, word: int) -> None:
        self._overridden, self._type = overridden, type
        self._has_xdp_buff, self._word = has_xdp_buff, word
        self._natives: NativeHelpers | None = None

    def find(self, helper: Helper, map: Map | None) -> NativeHelper | None:
        """The native form of `helper` for this map, or None."""
        if self._natives is None:
            from backends.natives import NativeHelpers

            self._natives = NativeHelpers(
                self._overridden, self._type, has_xdp_buff=self._has_xdp_buff, word=self._word
            )
        return self._natives.find(helper, map)

    def text(self) -> str:
        """The definitions of everything found so far."""
        return self._natives.text() if self._natives is not None else ""


@cache
def _callx_helpers() -> frozenset[int]:
    """The helpers that a call through a register may reach."""
    from backends.helpers.table import EMITTERS  # late: as rare as such calls

    implemented = {f"bpf_{name}" for name in (*EMITTERS, *HOST_HELPERS)}
    return frozenset(id for name, id in HELPER_IDS.items() if name in implemented)


def _is_proved(program: Program, maps: Mapping[str, Map]) -> bool:
    """Whether a proof finds the program safe, whose fast analysis got to something that cannot be right.

    The proof tells more branches that are never taken, by read-only data too: not for who wants that left alone. It
    does without the object's types and license, which decide nothing about that but may make it refuse.
    """
    from ir.verify.prove import verify  # late: a program that is refused is rare

    return verify(lift(program, maps), license="GPL").is_accepted


def front_of(
    program: Program,
    maps: Mapping[str, Map],
    options: Options,
    context: ContextLayout | None = None,
    done: Stage = _no_stage,
) -> Front:
    """`program` checked and optimized, for any target. Raises RejectedError."""
    with uncollected():
        module = lift(program, maps, context)
        done("structure and SSA")
        if len(module.functions) > 1 and (
            problems := check_stack(module, frame_sizes(module, Regions(module)))
        ):
            raise RejectedError(problems)
        pipeline = PIPELINES[options.level]
        (pipeline if options.fold else pipeline.without(FoldRodata)).run(module)
        done("passes")
        regions = Regions(module)
        done("regions")
        facts = analyze(module, regions)
        done("proofs")
        check_result(module, facts)
    return Front(program, module, regions, facts)


def branch_room(program: Program, target: Target) -> int:
    """How many bytes LLVM leaves for a static branch of the program."""
    far = target.patching.far
    return far.region if far is not None and len(program.insns) >= FAR_FROM else target.patching.region


def _has_static_branches(module: Module) -> bool:
    """Whether code for the module has sites, which no two targets make alike."""
    return any(
        isinstance(block.terminator, StaticBranch)
        for function in module.functions.values()
        for block in function.blocks
    )


def _jumps_first(program: Program) -> frozenset[int]:
    """The slots of static branches that start as jumps: the keys of their sites."""
    return frozenset(
        slot
        for slot, insn, row in zip(program.starts, program.insns, program.rows, strict=False)
        if row.kind is Kind.STATIC_BRANCH and not insn.src & NOP_FIRST
    )


def _joined(*texts: str) -> str:
    """Modules' texts as one: a function that several declare is declared once."""
    declared: set[str] = set()
    lines: list[str] = []
    for line in "\n".join(texts).split("\n"):
        if line.startswith("declare "):
            name = line.split("@", 1)[1].split("(", 1)[0].strip('"')
            if name in declared:
                continue
            declared.add(name)
        lines.append(line)
    return "\n".join(lines)
