"""The image that runs programs around a function, as LLVM IR: one text for each shape.

    image(args):                                   symbols that the linker binds
      block = this thread's; count + 1             threads, count
      ctx   = | ip | slots | args ... | result |   ip
      fentry programs                              program.N, guard.N, record.N, link.N
      fmod_ret programs: the first result that is not 0 stands for the call
      result = original(args)                      original
      if image is retired: return result           image
      fexit programs
      count - 1; return

A function may run for long, so a retired image is freed when no thread counts itself in it. With fentry programs
alone the original is entered by a jump and the image is left before; with only one, its guard says as much as a
count. The original gets its arguments as they came:
every argument that travels in integer registers is an i64 here, whatever its size.

What no program needs (its run state, the context, the words before it) is not made. A thread's own words are
loaded and stored plainly; no instruction locks the bus. A link whose mode is not 0 goes the long way
(backends/image_parts), so one compare serves for detaching and for statistics.
"""

from __future__ import annotations

from typing import Final, final

from backends import abi
from backends.helpers.tracing import COOKIE_SHIFT, FLAG_RESULT
from backends.image_parts import DECLARE_PARTS, RUN_PROGRAM, fill_run
from backends.image_shape import BY_REFERENCE, BY_VALUE, SLOT, WORDS, Shape, parameters_of, type_of
from backends.native_code import Needs
from backends.thread_blocks import (
    COUNTS,
    DECLARE_BLOCKS,
    LEVEL,
    LEVELS,
    RUNS,
    SEARCH_BLOCK,
    find_block,
)
from backends.thread_parts import GIVE_CPU, TAKE_CPU
from ir.context import HEADER
from ir.function_model import Value

SYMBOL: Final = "trampoline"


def trampoline_text(shape: Shape) -> str:
    """The LLVM IR of an image."""
    return _Image(shape).text()


@final
class _Image:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.lines: list[str] = []
        self.parameters, self.slots = parameters_of(shape)
        self.result = shape.result
        self.words = 3 + len(self.slots) + 1 + max(shape.sessions, default=-1)
        self.needs_run = bool(shape.needs & (Needs.RUN | Needs.CPU))
        self.needs_header = Needs.HEADER in shape.needs
        self.needs_context = bool(shape.needs & (Needs.HEADER | Needs.CONTEXT))
        self.frame = self.needs_context or shape.calls_original
        self.run = "%run" if self.needs_run else "null"
        self.ctx = "%ctx" if self.frame else "undef"
        self.context = "ptr" if shape.word == SLOT else "i64"  # as programs take it
        self.kept: dict[int, str] = {}  # parameters that can be loaded again from the context
        self.label = "in"

    def text(self) -> str:
        shape = self.shape
        self._enter()
        self._programs(range(shape.entries))
        if shape.overrides:
            self._overrides(range(shape.entries, shape.entries + shape.overrides))
        self._level_down()
        untouched = [f"%p{n}" for n in range(len(self.parameters))]
        again = self._arguments()
        leaving = self.label
        if shape.calls_original:
            self._around(again)
            self._do("plain:")
        else:
            if shape.is_counted:
                self._count_down()
            self._do("br label %plain", "plain:")
            for number, operand in enumerate(again):
                if operand != untouched[number]:
                    self._do(
                        f"%q{number} = phi i64 [ {untouched[number]}, %search ], [ {operand}, %{leaving} ]"
                    )
                    untouched[number] = f"%q{number}"
        self._jump_to_original(untouched)
        types = ", ".join(self.parameters)
        prototype = f"declare {self.result} @original({types})"
        signature = ", ".join(f"{type} %p{n}" for n, type in enumerate(self.parameters))
        head = f"define {self.result} @{SYMBOL}({signature}) nounwind {{"
        programs = [f"declare i64 @program.{n}(ptr, {self.context})" for n in range(shape.programs)]
        shared = [DECLARE_BLOCKS, DECLARE_PARTS, *self._externals(), prototype, *programs]
        return "\n".join([*shared, head, *self.lines, "}", _PROFILE, ""])

    def _externals(self) -> list[str]:
        numbered = [f"{kind}.{n}" for n in range(self.shape.programs) for kind in ("guard", "record", "link")]
        return [f"@{name} = external global i8" for name in ("count", "ip", "image", *numbered)]

    def _do(self, *lines: str) -> None:
        for line in lines:
            is_label = line.endswith(":")
            self.label = line[:-1] if is_label else self.label
            self.lines.append(line if is_label else f"  {line}")

    def _name(self, kind: str) -> str:
        return f"{kind}{len(self.lines)}"

    def _enter(self) -> None:
        levels = LEVELS if self.needs_run else 0
        if self.frame:
            self._do(f"%frame = alloca [{self.words} x i64], align 16")
        self._do(
            *find_block(levels),
            "br i1 %is.mine, label %known, label %search, !prof !0",
            "search:",
            f"%searched = call ptr @{SEARCH_BLOCK}(i64 %id, i64 %first, i64 {levels})",
            "%lost = icmp eq ptr %searched, null",
            "br i1 %lost, label %plain, label %known, !prof !1",
            "known:",
            "%block = phi ptr [ %likely, %0 ], [ %searched, %search ]",
        )
        if self.needs_run:
            self._take_run()
        if self.shape.is_counted:
            self._count_up()
        if self.frame:
            self._do(
                "%array = getelementptr i64, ptr %frame, i64 2",
                f"%ctx = getelementptr i8, ptr %array, i64 -{HEADER}",
            )
            if self.context == "i64":
                self._do("%ctx.wide = ptrtoint ptr %ctx to i64")
        if self.needs_header:
            self._do(
                "store i64 ptrtoint (ptr @ip to i64), ptr %frame, align 8",
                "%slots.at = getelementptr i64, ptr %frame, i64 1",
                f"store i64 {len(self.slots)}, ptr %slots.at, align 8",
            )
        if self.shape.calls_original:
            self._do(f"%result.at = getelementptr i64, ptr %array, i64 {len(self.slots)}")
        if self.shape.overrides or self.shape.sessions:
            self._do("store i64 0, ptr %result.at, align 8")
        for number in range(1 + max(self.shape.sessions, default=-1)):
            self._do(
                f"%cookie{number} = getelementptr i64, ptr %array, i64 {len(self.slots) + 1 + number}",
                f"store i64 0, ptr %cookie{number}, align 8",
            )
        if self.needs_context:
            self._fill_context()

    def _take_run(self) -> None:
        self._do(
            f"%level.at = getelementptr i8, ptr %block, i64 {LEVEL}",
            "%level = load i64, ptr %level.at, align 8",
            f"%runs = getelementptr i8, ptr %block, i64 {RUNS}",
            f"%run.offset = mul i64 %level, {abi.RUN_STATE_SIZE}",
            "%run = getelementptr i8, ptr %runs, i64 %run.offset",
            "%deeper = add i64 %level, 1",
            "store i64 %deeper, ptr %level.at, align 8",
        )
        if Needs.CPU in self.shape.needs:
            self._do(f"%cpu.at = getelementptr i8, ptr %run, i64 {abi.CPU}")
            self._take_cpu()

    def _take_cpu(self) -> None:
        """The processor's number: that of the run that called, or one for as long as programs run."""
        name = f"%{self._name('cpu')}"
        if self.shape.has_run:
            self._do(
                f"{name}.from = getelementptr i8, ptr %p0, i64 {abi.CPU}",
                f"{name} = load i32, ptr {name}.from, align 4",
            )
        else:
            self._do(f"{name} = call i32 @{TAKE_CPU}(ptr %block)")
        self._do(f"store i32 {name}, ptr %cpu.at, align 4")

    def _fill_context(self) -> None:
        for number, (parameter, value, part) in enumerate(self.slots):
            given = f"%p{parameter}"
            operand = self._slot(f"s{number}", parameter, value, part)
            self._do(
                f"%s{number}.at = getelementptr i64, ptr %array, i64 {number}",
                f"store i64 {operand}, ptr %s{number}.at, align 8",
            )
            if operand == given:
                self.kept[parameter] = f"%s{number}.at"

    def _slot(self, name: str, parameter: int, value: Value, part: int) -> str:
        """What programs see of a parameter: normalized by its size and sign."""
        kind = self.parameters[parameter]
        size = min(value.size - SLOT * part, SLOT)
        if kind == BY_REFERENCE:  # there is nothing behind it that may be read
            self._do(f"%{name}.from = getelementptr i64, ptr %p{parameter}, i64 {part}")
            self._do(f"%{name}.part = load i{8 * size}, ptr %{name}.from, align 8")
            if size == SLOT:
                return f"%{name}.part"
            self._do(f"%{name} = zext i{8 * size} %{name}.part to i64")
            return f"%{name}"
        if kind.startswith(BY_VALUE):
            self._do(
                f"%{name}.from = getelementptr i64, ptr %p{parameter}, i64 {part}",
                f"%{name}.word = load i64, ptr %{name}.from, align 8",
            )
            return self._normal(name, f"%{name}.word", value, size)
        if kind == WORDS:
            self._do(f"%{name}.word = extractvalue {WORDS} %p{parameter}, {part}")
            return self._normal(name, f"%{name}.word", value, size)
        if kind == "i128":
            self._do(f"%{name}.part = lshr i128 %p{parameter}, {64 * part}")
            self._do(f"%{name} = trunc i128 %{name}.part to i64")
            return f"%{name}"
        if kind == "i32":
            return self._normal(name, self._widened(name, f"%p{parameter}"), value, size)
        return self._normal(name, f"%p{parameter}", value, size)

    def _widened(self, name: str, operand: str) -> str:
        self._do(f"%{name}.wide = zext i32 {operand} to i64")
        return f"%{name}.wide"

    def _normal(self, name: str, operand: str, value: Value, size: int) -> str:
        if value.is_float:
            bits = 8 * value.size
            self._do(f"%{name}.bits = bitcast {type_of(value)} {operand} to i{bits}")
            if bits == 64:
                return f"%{name}.bits"
            self._do(f"%{name} = zext i{bits} %{name}.bits to i64")
            return f"%{name}"
        if value.size == 0 or size == SLOT:
            return operand
        extend = "sext" if value.is_signed else "zext"
        self._do(
            f"%{name}.low = trunc i64 {operand} to i{8 * size}",
            f"%{name} = {extend} i{8 * size} %{name}.low to i64",
        )
        return f"%{name}"

    def _arguments(self) -> list[str]:
        """The parameters, loaded again from the context where it has them: no register is kept for them meanwhile."""
        operands = []
        for parameter in range(len(self.parameters)):
            place = self.kept.get(parameter)
            if place is None:
                operands.append(f"%p{parameter}")
                continue
            operands.append(f"%{self._name('again')}")
            self._do(f"{operands[-1]} = load i64, ptr {place}, align 8")
        return operands

    def _count_up(self) -> None:
        self._do(
            f"%counts = getelementptr i8, ptr %block, i64 {COUNTS}",
            "%count.at = getelementptr i8, ptr %counts, i64 ptrtoint (ptr @count to i64)",
            "%count = load volatile i32, ptr %count.at, align 4",
            "%count.up = add i32 %count, 1",
            "store volatile i32 %count.up, ptr %count.at, align 4",
        )

    def _count_down(self) -> None:
        """Stays nest, so what stood there before is what is right again."""
        self._do("store volatile i32 %count, ptr %count.at, align 4")

    def _level_up(self) -> None:
        if self.needs_run:
            self._do("store i64 %deeper, ptr %level.at, align 8")
        if Needs.CPU in self.shape.needs:
            self._take_cpu()

    def _level_down(self) -> None:
        if self.needs_run:
            self._do("store i64 %level, ptr %level.at, align 8")
        if Needs.CPU in self.shape.needs and not self.shape.has_run:
            self._do(f"call void @{GIVE_CPU}(ptr %block)")

    def _choose_cookie(self, number: int) -> None:
        """Let the program find its own session's cookie."""
        session = self.shape.sessions[number] if self.shape.sessions else -1
        if session >= 0 and self.needs_header:
            is_exit = number >= self.shape.entries + self.shape.overrides
            word = len(self.slots) | FLAG_RESULT * is_exit | session << COOKIE_SHIFT
            self._do(f"store i64 {word}, ptr %slots.at, align 8")

    def _run(self, number: int) -> str:
        """Run a program; its result."""
        self._choose_cookie(number)
        if not self.shape.is_inline:
            self._do(f"%r{number} = {self._long_way(number)}")
            return f"%r{number}"
        self._do(
            f"%m{number} = load volatile i64, ptr @link.{number}, align 8",
            f"%g{number}.at = getelementptr i8, ptr %block, i64 ptrtoint (ptr @guard.{number} to i64)",
            f"%g{number} = load volatile i8, ptr %g{number}.at, align 1",
            f"%w{number} = zext i8 %g{number} to i64",
            f"%b{number} = or i64 %m{number}, %w{number}",
            f"%f{number} = icmp eq i64 %b{number}, 0",
            f"br i1 %f{number}, label %go{number}, label %slow{number}, !prof !0",
            f"slow{number}:",
            f"%s{number}.result = {self._long_way(number)}",
            f"br label %after{number}",
            f"go{number}:",
            f"store volatile i8 1, ptr %g{number}.at, align 1",
        )
        given = self.run if self.needs_run else "undef"
        if self.needs_run:
            self._do(*fill_run("%run", f"@record.{number}", f"@link.{number}", f"u{number}"))
        self._do(
            f"%c{number} = call i64 @program.{number}(ptr {given}, {self.context} {self._given_context})",
            f"store volatile i8 0, ptr %g{number}.at, align 1",
            f"br label %after{number}",
            f"after{number}:",
            f"%r{number} = phi i64 [ %s{number}.result, %slow{number} ], [ %c{number}, %go{number} ]",
        )
        return f"%r{number}"

    @property
    def _given_context(self) -> str:
        return "%ctx.wide" if self.frame and self.context == "i64" else self.ctx

    def _long_way(self, number: int) -> str:
        return (
            f"call i64 @{RUN_PROGRAM}(ptr %block, ptr {self.run}, ptr @record.{number}, "
            f"ptr @link.{number}, ptr @program.{number}, ptr {self.ctx})"
        )

    def _flag_result(self) -> None:
        """From here on programs may ask for the result."""
        if self.needs_header:
            self._do(f"store i64 {len(self.slots) | FLAG_RESULT}, ptr %slots.at, align 8")

    def _programs(self, numbers: range) -> None:
        for number in numbers:
            self._run(number)

    def _overrides(self, numbers: range) -> None:
        arms: list[str] = []
        self._flag_result()
        for number in numbers:
            result = self._run(number)
            self._do(
                f"store i64 {result}, ptr %result.at, align 8",
                f"%o{number} = icmp ne i64 {result}, 0",
                f"br i1 %o{number}, label %override, label %next{number}",
            )
            arms.append(f"[ {result}, %{self.label} ]")
            self._do(f"next{number}:")
        self._do("br label %original.way", "override:", f"%instead = phi i64 {', '.join(arms)}")
        self._level_down()
        if self.result == "i32":
            self._do("%instead.short = trunc i64 %instead to i32")
        self._do("br label %exits", "original.way:")

    def _around(self, arguments: list[str]) -> None:
        shape = self.shape
        given = _joined(self.parameters, arguments)
        calling = self.label
        self._do(
            f"%raw = call {self.result} @original({given})",
            "%gone = load volatile i64, ptr @image, align 8",
            "%retired = icmp ne i64 %gone, 0",
            "br i1 %retired, label %leave, label %returned, !prof !1",
            "returned:",
        )
        if shape.exits and self.needs_context:
            raw = self._widened("raw", "%raw") if self.result == "i32" else "%raw"
            seen = self._normal("seen", raw, shape.model.result, min(shape.model.result.size, SLOT))
            self._do(f"store i64 {seen}, ptr %result.at, align 8")
        self._do("br label %exits", "exits:")
        instead = "%instead.short" if self.result == "i32" else "%instead"
        override = f", [ {instead}, %override ]" if shape.overrides else ""
        self._do(f"%final = phi {self.result} [ %raw, %returned ]{override}")
        if shape.exits:
            self._level_up()
            self._flag_result()
            self._programs(range(shape.entries + shape.overrides, shape.programs))
            self._level_down()
        leaving = self.label
        self._do("br label %leave", "leave:")
        self._do(f"%value = phi {self.result} [ %final, %{leaving} ], [ %raw, %{calling} ]")
        self._count_down()
        self._do(f"ret {self.result} %value")

    def _jump_to_original(self, arguments: list[str]) -> None:
        name = f"%{self._name('jumped')}"
        how = "musttail call" if self.shape.can_jump else "call"
        given = _joined(self.parameters, arguments)
        self._do(f"{name} = {how} {self.result} @original({given})", f"ret {self.result} {name}")


def _joined(types: list[str], operands: list[str]) -> str:
    return ", ".join(f"{type} {operand}" for type, operand in zip(types, operands, strict=True))


_PROFILE: Final = (
    '!0 = !{!"branch_weights", i32 1048575, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 1048575}'
)
