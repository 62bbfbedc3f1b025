"""The image that runs programs around a function, as LLVM IR: one text for each shape.

    image(args):                                   symbols that the linker binds
      block = this thread's; count + 1             threads, count
      ctx   = | ip | slots | args ... | result |   ip
      fentry programs                              program.N, record.N, link.N
      fmod_ret programs: the first result that is not 0 stands for the call
      result = original(args)                      original
      if image is retired: return result           image
      fexit programs
      count - 1; return

A function may run for long, so a retired image is freed when no thread counts itself in it. With fentry programs
alone the original is entered by a jump and the image is left before. The original gets its arguments as they came:
every argument that travels in integer registers is an i64 here, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from backends import abi
from backends.helpers.tracing import FLAG_RESULT
from backends.thread_blocks import COUNTS, FIND_BLOCK, LEVEL, LEVELS, RUNS, STACK_TOP
from ir.context import HEADER
from ir.function_model import Model, Value

SYMBOL: Final = "trampoline"
SLOT: Final = 8
MOST_INLINE: Final = 2  # programs; more would make large images, which take long to compile

# A program's record, then that of a link.
RECORD_GUARD, RECORD_SEGMENTS, RECORD_SEGMENT_COUNT, RECORD_FUEL = 0, 8, 16, 24
RECORD_MISSES, RECORD_RUNS, RECORD_NS = 32, 40, 48
RECORD_SIZE: Final = 64
LINK_IS_ON, LINK_COOKIE = 0, 8
LINK_SIZE: Final = 16


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """What an image's code depends on. `has_run`: the function is a BPF one, whose first argument is the run."""

    model: Model
    has_run: bool
    entries: int
    overrides: int
    exits: int
    registers: int = 6

    @property
    def calls_original(self) -> bool:
        """Whether the image waits for the function to return."""
        return bool(self.overrides or self.exits)

    @property
    def programs(self) -> int:
        """How many programs there are of all kinds."""
        return self.entries + self.overrides + self.exits


def trampoline_text(shape: Shape) -> str:
    """The LLVM IR of an image."""
    return _Image(shape).text()


@final
class _Image:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.lines: list[str] = []
        self.parameters, self.slots = _parameters(shape)
        self.result = _type(shape.model.result)
        self.words = 3 + len(self.slots)

    def text(self) -> str:
        shape = self.shape
        self._enter()
        self._programs(range(shape.entries))
        if shape.overrides:
            self._overrides(range(shape.entries, shape.entries + shape.overrides))
        self._level_down()
        if not shape.calls_original:
            self._count(-1)
            self._jump_to_original()
        else:
            self._around()
        self._plain()
        types = ", ".join(self.parameters)
        declared = [f"@{name} = external global i8" for name in self._externals()]
        prototype = f"declare {self.result} @original({types})"
        signature = ", ".join(f"{type} %p{n}" for n, type in enumerate(self.parameters))
        head = f"define {self.result} @{SYMBOL}({signature}) nounwind {{"
        programs = [f"declare i64 @program.{n}(ptr, ptr)" for n in range(shape.programs)]
        runner = _RUN_PROGRAM.replace(
            "INLINE", "alwaysinline" if shape.programs <= MOST_INLINE else "noinline"
        )
        body = [head, *self.lines, "}"]
        return "\n".join([*declared, prototype, *programs, FIND_BLOCK, runner, *body, _PROFILE, ""])

    def _externals(self) -> list[str]:
        numbered = [f"{kind}.{n}" for n in range(self.shape.programs) for kind in ("record", "link")]
        return ["threads", "count", "ip", "image", "stats", *numbered]

    def _do(self, *lines: str) -> None:
        self.lines += [line if line.endswith(":") else f"  {line}" for line in lines]

    def _enter(self) -> None:
        self._do(
            f"%frame = alloca [{self.words} x i64], align 16",
            "%block = call ptr @bpfc.find_block(ptr @threads)",
            "%lost = icmp eq ptr %block, null",
            "br i1 %lost, label %plain, label %known, !prof !1",
            "known:",
            f"%level.at = getelementptr i8, ptr %block, i64 {LEVEL}",
            "%level = load i64, ptr %level.at, align 8",
            f"%deep = icmp uge i64 %level, {LEVELS}",
            "br i1 %deep, label %plain, label %enter, !prof !1",
            "enter:",
            f"%counts = getelementptr i8, ptr %block, i64 {COUNTS}",
            "%count.at = getelementptr i8, ptr %counts, i64 ptrtoint (ptr @count to i64)",
        )
        self._count(1)
        self._do(
            f"%runs = getelementptr i8, ptr %block, i64 {RUNS}",
            f"%run.offset = mul i64 %level, {abi.RUN_STATE_SIZE}",
            "%run = getelementptr i8, ptr %runs, i64 %run.offset",
            "store i64 ptrtoint (ptr @ip to i64), ptr %frame, align 8",
            "%slots.at = getelementptr i64, ptr %frame, i64 1",
            f"store i64 {len(self.slots)}, ptr %slots.at, align 8",
            "%array = getelementptr i64, ptr %frame, i64 2",
            f"%ctx = getelementptr i8, ptr %array, i64 -{HEADER}",
            f"%result.at = getelementptr i64, ptr %array, i64 {len(self.slots)}",
        )
        if self.shape.calls_original:
            self._do("store i64 0, ptr %result.at, align 8")
        for number, (parameter, value, part) in enumerate(self.slots):
            operand = self._slot(f"s{number}", parameter, value, part)
            self._do(
                f"%s{number}.at = getelementptr i64, ptr %array, i64 {number}",
                f"store i64 {operand}, ptr %s{number}.at, align 8",
            )
        self._level_up()

    def _slot(self, name: str, parameter: int, value: Value, part: int) -> str:
        """What programs see of a parameter: normalized by its size and sign."""
        kind = self.parameters[parameter]
        if kind.startswith("ptr byval"):
            self._do(
                f"%{name}.from = getelementptr i64, ptr %p{parameter}, i64 {part}",
                f"%{name} = load i64, ptr %{name}.from, align 8",
            )
            return f"%{name}"
        return self._normal(name, f"%p{parameter}", value, min(value.size - SLOT * part, SLOT))

    def _normal(self, name: str, operand: str, value: Value, size: int) -> str:
        if value.is_float:
            bits = 8 * value.size
            self._do(f"%{name}.bits = bitcast {_type(value)} {operand} to i{bits}")
            if bits == 64:
                return f"%{name}.bits"
            self._do(f"%{name} = zext i{bits} %{name}.bits to i64")
            return f"%{name}"
        if value.size == 0 or size not in (1, 2, 4):
            return operand
        extend = "sext" if value.is_signed else "zext"
        self._do(
            f"%{name}.low = trunc i64 {operand} to i{8 * size}",
            f"%{name} = {extend} i{8 * size} %{name}.low to i64",
        )
        return f"%{name}"

    def _count(self, step: int) -> None:
        name = "in" if step > 0 else f"out{len(self.lines)}"
        self._do(
            f"%{name}.old = load volatile i32, ptr %count.at, align 4",
            f"%{name}.new = add i32 %{name}.old, {step}",
            f"store volatile i32 %{name}.new, ptr %count.at, align 4",
        )

    def _level_up(self) -> None:
        name = f"up{len(self.lines)}"
        self._do(f"%{name} = add i64 %level, 1", f"store i64 %{name}, ptr %level.at, align 8")

    def _level_down(self) -> None:
        self._do("store i64 %level, ptr %level.at, align 8")

    def _run(self, number: int) -> str:
        self._do(
            f"%r{number} = call i64 @bpfc.run_program(ptr %block, ptr %run, ptr @record.{number}, "
            f"ptr @link.{number}, ptr @program.{number}, ptr %ctx)"
        )
        return f"%r{number}"

    def _flag_result(self) -> None:
        """From here on programs may ask for the result."""
        self._do(f"store i64 {len(self.slots) | FLAG_RESULT}, ptr %slots.at, align 8")

    def _programs(self, numbers: range) -> None:
        for number in numbers:
            self._run(number)

    def _overrides(self, numbers: range) -> None:
        arms: list[str] = []
        self._flag_result()
        for number in numbers:
            result = self._run(number)
            self._do(f"store i64 {result}, ptr %result.at, align 8")
            self._do(f"%o{number} = icmp ne i64 {result}, 0")
            self._do(f"br i1 %o{number}, label %override{number}, label %next{number}")
            arms.append(f"[ {result}, %override{number} ]")
            self._do(f"override{number}:", "br label %override", f"next{number}:")
        self._do("br label %original.way", "override:", f"%instead = phi i64 {', '.join(arms)}")
        self._level_down()
        self._do("br label %exits", "original.way:")

    def _around(self) -> None:
        shape = self.shape
        given = ", ".join(f"{type} %p{n}" for n, type in enumerate(self.parameters))
        self._do(
            f"%raw = call {self.result} @original({given})",
            "%gone = load volatile i32, ptr @image, align 4",
            "%retired = icmp ne i32 %gone, 0",
            "br i1 %retired, label %leave, label %returned, !prof !1",
            "returned:",
        )
        if shape.exits:
            seen = self._normal("seen", "%raw", shape.model.result, min(shape.model.result.size, SLOT))
            self._do(f"store i64 {seen}, ptr %result.at, align 8")
        self._do("br label %exits", "exits:")
        if shape.overrides:
            self._do(f"%final = phi {self.result} [ %raw, %returned ], [ %instead, %override ]")
        else:
            self._do(f"%final = phi {self.result} [ %raw, %returned ]")
        if shape.exits:
            self._level_up()
            self._flag_result()
            self._programs(range(shape.entries + shape.overrides, shape.programs))
            self._level_down()
        self._do("br label %leave", "leave:")
        self._do(f"%value = phi {self.result} [ %final, %exits ], [ %raw, %{self._calling_label()} ]")
        self._count(-1)
        self._do(f"ret {self.result} %value")

    def _calling_label(self) -> str:
        return "original.way" if self.shape.overrides else "enter"

    def _plain(self) -> None:
        self._do("plain:")
        self._jump_to_original()

    def _jump_to_original(self) -> None:
        given = ", ".join(f"{type} %p{n}" for n, type in enumerate(self.parameters))
        name = f"%jumped{len(self.lines)}"
        self._do(f"{name} = musttail call {self.result} @original({given})", f"ret {self.result} {name}")


def _parameters(shape: Shape) -> tuple[list[str], list[tuple[int, Value, int]]]:
    """LLVM types of the parameters, and for each slot (parameter, value, which 8 bytes of it).

    A struct of two words travels in two registers, or as a whole in memory when fewer are left.
    """
    types = ["ptr"] if shape.has_run else []
    slots: list[tuple[int, Value, int]] = []
    left = shape.registers - len(types)
    for value in shape.model.arguments:
        if value.is_float:
            slots.append((len(types), value, 0))
            types.append(_type(value))
        elif value.slots == 1:
            slots.append((len(types), value, 0))
            types.append("i64")
            left -= 1
        elif left >= 2 or shape.has_run:
            slots += [(len(types), value, 0), (len(types) + 1, value, 1)]
            types += ["i64", "i64"]
            left -= 2
        else:
            slots += [(len(types), value, 0), (len(types), value, 1)]
            types.append("ptr byval([2 x i64]) align 8")
    return types, slots


def _type(value: Value) -> str:
    if value.is_float:
        return "double" if value.size == SLOT else "float"
    return "i128" if value.size > SLOT else "i64"


_PROFILE: Final = (
    '!0 = !{!"branch_weights", i32 1048575, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 1048575}'
)

_CLOCK: Final = """
define internal i64 @bpfc.now() noinline cold nounwind {
  %ts = alloca [2 x i64], align 16
  %done = call i32 @clock_gettime(i32 1, ptr %ts)
  %s = load i64, ptr %ts, align 8
  %ns.at = getelementptr i64, ptr %ts, i64 1
  %ns = load i64, ptr %ns.at, align 8
  %scaled = mul i64 %s, 1000000000
  %now = add i64 %scaled, %ns
  ret i64 %now
}
declare i32 @clock_gettime(i32, ptr)
"""


def _field(base: str, offset: int) -> str:
    return f"getelementptr i8, ptr {base}, i64 {offset}"


_RUN_PROGRAM: Final = f"""{_CLOCK}
define internal i64 @bpfc.run_program(ptr %block, ptr %run, ptr %record, ptr %link, ptr %program, ptr %ctx) \
INLINE nounwind {{
entry:
  %on = load volatile i64, ptr %link, align 8
  %off = icmp eq i64 %on, 0
  br i1 %off, label %skip, label %try, !prof !1
try:
  %guard.offset = load i64, ptr %record, align 8
  %guard = getelementptr i8, ptr %block, i64 %guard.offset
  %active = load volatile i8, ptr %guard, align 1
  %again = icmp ne i8 %active, 0
  br i1 %again, label %miss, label %go, !prof !1
miss:
  %misses = {_field("%record", RECORD_MISSES)}
  %m = atomicrmw add ptr %misses, i64 1 monotonic
  br label %skip
skip:
  ret i64 0
go:
  store volatile i8 1, ptr %guard, align 1
  %fuel.at = {_field("%record", RECORD_FUEL)}
  %fuel = load i64, ptr %fuel.at, align 8
  %r.fuel = {_field("%run", abi.FUEL)}
  store i64 %fuel, ptr %r.fuel, align 8
  %r.trap = {_field("%run", abi.TRAP_CODE)}
  store i64 0, ptr %r.trap, align 8
  %r.tails = {_field("%run", abi.TAIL_CALLS)}
  store i32 {abi.TAIL_CALL_LIMIT}, ptr %r.tails, align 4
  %segments.at = {_field("%record", RECORD_SEGMENTS)}
  %segments = load <2 x i64>, ptr %segments.at, align 8
  %r.segments = {_field("%run", abi.SEGMENTS)}
  store <2 x i64> %segments, ptr %r.segments, align 8
  %r.depth = {_field("%run", abi.DEPTH)}
  store i64 8, ptr %r.depth, align 8
  %top.at = {_field("%run", STACK_TOP)}
  %top = load i64, ptr %top.at, align 8
  %r.stack = {_field("%run", abi.STACK)}
  store i64 %top, ptr %r.stack, align 8
  %cookie.at = {_field("%link", LINK_COOKIE)}
  %cookie = load i64, ptr %cookie.at, align 8
  %r.cookie = {_field("%run", abi.COOKIE)}
  store i64 %cookie, ptr %r.cookie, align 8
  %stats = load volatile i64, ptr @stats, align 8
  %timed = icmp ne i64 %stats, 0
  br i1 %timed, label %time, label %call, !prof !1
time:
  %start = call i64 @bpfc.now()
  br label %call
call:
  %started = phi i64 [ 0, %go ], [ %start, %time ]
  %result = call i64 %program(ptr %run, ptr %ctx)
  %due = icmp ugt i64 %started, 1
  br i1 %due, label %update, label %done, !prof !1
update:
  %end = call i64 @bpfc.now()
  %ns = sub i64 %end, %started
  %runs.at = {_field("%record", RECORD_RUNS)}
  %a = atomicrmw add ptr %runs.at, i64 1 monotonic
  %ns.at = {_field("%record", RECORD_NS)}
  %b = atomicrmw add ptr %ns.at, i64 %ns monotonic
  br label %done
done:
  store volatile i8 0, ptr %guard, align 1
  ret i64 %result
}}
"""
