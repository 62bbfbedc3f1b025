"""LLVM functions written as structured code: values with operators, `if_`, `loop` and variables; the result
is IR text.

    w = Writer("twice_or_zero", ("i64", "x"), returns="i64")
    with w.if_(w["x"].ult(10)):
        w.ret(w["x"] * 2)
    w.ret(0)                                  # w.text(): define i64 @"twice_or_zero"(i64 %x) { ... }

Variables are stack slots; LLVM turns them into registers. Code after a `ret`, `break_` or `continue_` is
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

Operand = "Value | int"
_BITS: Final = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128}
_BYTES: Final = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "ptr": 8}
INTEGERS: Final = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An SSA value of type `type`, written `text`; operators append instructions to its writer.

    Integers are unsigned.
    """

    writer: Writer
    type: str
    text: str

    def __add__(self, other: Value | int) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Value | int) -> Value:
        return self._binary("sub", other)

    def __mul__(self, other: Value | int) -> Value:
        return self._binary("mul", other)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._binary("lshr", other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self._binary("udiv", other)

    def __mod__(self, other: Value | int) -> Value:
        return self._binary("urem", other)

    def __invert__(self) -> Value:
        return self ^ -1

    def sar(self, other: Value | int) -> Value:
        """Arithmetic shift right."""
        return self._binary("ashr", other)

    def eq(self, other: Value | int) -> Value:
        return self._compare("eq", other)

    def ne(self, other: Value | int) -> Value:
        return self._compare("ne", other)

    def ult(self, other: Value | int) -> Value:
        return self._compare("ult", other)

    def ule(self, other: Value | int) -> Value:
        return self._compare("ule", other)

    def ugt(self, other: Value | int) -> Value:
        return self._compare("ugt", other)

    def uge(self, other: Value | int) -> Value:
        return self._compare("uge", other)

    def slt(self, other: Value | int) -> Value:
        return self._compare("slt", other)

    def sgt(self, other: Value | int) -> Value:
        return self._compare("sgt", other)

    def to(self, type: str) -> Value:
        """The same number in another width: zero-extended or truncated; pointers and i64 convert too."""
        if type == self.type:
            return self
        if "ptr" in (type, self.type):
            operation = "inttoptr" if type == "ptr" else "ptrtoint"
        else:
            operation = "trunc" if _BITS[type] < _BITS[self.type] else "zext"
        return self.writer.emit(type, f"{operation} {self.type} {self.text} to {type}")

    def signed_to(self, type: str) -> Value:
        """Sign-extended to a wider type."""
        return self.writer.emit(type, f"sext {self.type} {self.text} to {type}")

    def at(self, offset: Value | int) -> Value:
        """A pointer `offset` bytes further on."""
        if isinstance(offset, int) and offset == 0:
            return self
        number = self.writer.value("i64", offset) if isinstance(offset, int) else offset.to("i64")
        return self.writer.emit("ptr", f"getelementptr i8, ptr {self.text}, i64 {number.text}")

    def load(self, type: str, offset: Value | int = 0, align: int = 0, order: str = "") -> Value:
        """What lies `offset` bytes further on; naturally aligned unless `align` says less; atomic when
        `order` is given.
        """
        place = self.at(offset)
        align = align or _BYTES[type]
        if order:
            return self.writer.emit(type, f"load atomic {type}, ptr {place.text} {order}, align {align}")
        return self.writer.emit(type, f"load {type}, ptr {place.text}, align {align}")

    def store(self, value: Value, offset: Value | int = 0, align: int = 0, order: str = "") -> None:
        """Put `value` there; as `load`."""
        place = self.at(offset)
        align = align or _BYTES[value.type]
        atomic = ("atomic ", f" {order}") if order else ("", "")
        self.writer.do(
            f"store {atomic[0]}{value.type} {value.text}, ptr {place.text}{atomic[1]}, align {align}"
        )

    def exchange(self, value: Value, order: str, operation: str = "xchg") -> Value:
        """Atomically put `value` (or combine it: add, or, and) at this pointer; what was there."""
        return self.writer.emit(
            value.type,
            f"atomicrmw {operation} ptr {self.text}, {value.type} {value.text} {order}, "
            f"align {_BYTES[value.type]}",
        )

    def compare_exchange(
        self, expected: Value, new: Value, order: str, failure: str = "monotonic"
    ) -> tuple[Value, Value]:
        """Atomically put `new` at this pointer if `expected` is there; (what was there, whether it was)."""
        t = new.type
        pair = self.writer.emit(
            "pair",
            f"cmpxchg ptr {self.text}, {t} {expected.text}, {t} {new.text} {order} {failure}, "
            f"align {_BYTES[t]}",
        )
        old = self.writer.emit(t, f"extractvalue {{ {t}, i1 }} {pair.text}, 0")
        return old, self.writer.emit("i1", f"extractvalue {{ {t}, i1 }} {pair.text}, 1")

    def choose(self, yes: Value, no: Value | int) -> Value:
        """`yes` when this i1 is true, else `no`."""
        other = self.writer.value(yes.type, no) if isinstance(no, int) else no
        return self.writer.emit(
            yes.type, f"select i1 {self.text}, {yes.type} {yes.text}, {yes.type} {other.text}"
        )

    def _binary(self, operation: str, other: Value | int) -> Value:
        y = self.writer.value(self.type, other) if isinstance(other, int) else other
        assert y.type == self.type, (operation, self.type, y.type)
        return self.writer.emit(self.type, f"{operation} {self.type} {self.text}, {y.text}")

    def _compare(self, predicate: str, other: Value | int) -> Value:
        y = self.writer.value(self.type, other) if isinstance(other, int) else other
        assert y.type == self.type, (predicate, self.type, y.type)
        return self.writer.emit("i1", f"icmp {predicate} {self.type} {self.text}, {y.text}")


@final
class Variable:
    """A place for a value that changes."""

    def __init__(self, writer: Writer, type: str, place: Value) -> None:
        self.writer, self.type, self.place = writer, type, place

    def get(self) -> Value:
        """The value now."""
        return self.place.load(self.type)

    def set(self, value: Value | int) -> None:
        """Change it."""
        self.place.store(self.writer.value(self.type, value) if isinstance(value, int) else value)


@final
class Writer:
    """One function being written.

    `w["x"]` is parameter x; `externals` are the functions of other modules that it calls; `word` is a pointer's size.
    """

    def __init__(
        self,
        name: str,
        *params: tuple[str, str],
        returns: str = "i64",
        attributes: str = "",
        word: int = 8,
    ) -> None:
        self.word = word
        self.name, self.returns, self.attributes = name, returns, attributes
        self.params = {word: Value(self, type, f"%{word}") for type, word in params}
        self.externals: dict[str, str] = {}
        self._head: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._dead = False
        self._loops: list[tuple[str, str]] = []

    def __getitem__(self, name: str) -> Value:
        return self.params[name]

    def value(self, type: str, number: int) -> Value:
        """A constant; of type ptr only null (0)."""
        if type == "ptr":
            assert number == 0
            return Value(self, type, "null")
        if type == "i1":
            return Value(self, type, "true" if number else "false")
        bits = _BITS[type]
        number &= (1 << bits) - 1
        return Value(self, type, str(number - (1 << bits) if number >> (bits - 1) else number))

    def i32(self, number: int) -> Value:
        return self.value("i32", number)

    def i64(self, number: int) -> Value:
        return self.value("i64", number)

    def null(self) -> Value:
        return self.value("ptr", 0)

    def emit(self, type: str, operation: str) -> Value:
        """Append `%new = operation`."""
        self._count += 1
        new = Value(self, type, f"%t{self._count}")
        self.do(f"{new.text} = {operation}")
        return new

    def do(self, operation: str) -> None:
        """Append an operation without a result."""
        if not self._dead:
            self._lines.append("  " + operation)

    def call(self, returns: str, function: str, *args: Value) -> Value:
        """Call a function defined in the same text, or an intrinsic (declared by the caller through
        `externals`).
        """
        given = ", ".join(f"{arg.type} {arg.text}" for arg in args)
        operation = f"call {returns} @{quote(function)}({given})"
        if returns == "void":
            self.do(operation)
            return self.i64(0)
        return self.emit(returns, operation)

    def external(self, returns: str, function: str, *args: Value) -> Value:
        """Call a function that is declared here and defined elsewhere."""
        self.externals[function] = f"{returns} @{quote(function)}({', '.join(arg.type for arg in args)})"
        return self.call(returns, function, *args)

    def var(self, type: str, initial: Value | int) -> Variable:
        """A new variable."""
        self._count += 1
        place = Value(self, "ptr", f"%t{self._count}")
        self._head.append(f"  {place.text} = alloca {type}, align {max(_BYTES.get(type, 1), 1)}")
        variable = Variable(self, type, place)
        variable.set(initial)
        return variable

    def local(self, size: int) -> Value:
        """A pointer to `size` bytes of this function's frame, 8-byte aligned."""
        self._count += 1
        self._head.append(f"  %t{self._count} = alloca [{size} x i8], align 8")
        return Value(self, "ptr", f"%t{self._count}")

    def ret(self, value: Value | int | None = None) -> None:
        """Return."""
        if self.returns == "void":
            self.do("ret void")
        else:
            assert value is not None
            given = self.value(self.returns, value) if isinstance(value, int) else value
            assert given.type == self.returns, (self.name, given.type)
            self.do(f"ret {given.type} {given.text}")
        self._dead = True

    @contextmanager
    def if_(self, condition: Value, likely: bool | None = None) -> Iterator[None]:
        """What is written inside happens when `condition` (i1) holds."""
        then, after = self._label("then"), self._label("after")
        self._branch(condition, then, after, likely)
        self._start(then)
        yield
        self._goto(after)
        self._start(after)

    @contextmanager
    def unless(self, condition: Value, likely: bool | None = None) -> Iterator[None]:
        """What is written inside happens when `condition` does not hold."""
        then, after = self._label("else"), self._label("after")
        self._branch(condition, after, then, likely)
        self._start(then)
        yield
        self._goto(after)
        self._start(after)

    @contextmanager
    def loop(self) -> Iterator[None]:
        """What is written inside is repeated until `break_`."""
        again, after = self._label("loop"), self._label("done")
        self._goto(again)
        self._start(again)
        self._loops.append((again, after))
        yield
        self._loops.pop()
        self._goto(again)
        self._start(after)

    @contextmanager
    def count(self, least: Value | int, limit: Value | int, step: int = 1) -> Iterator[Value]:
        """Repeat with an i64 from `least` up to but not including `limit`."""
        number = self.var("i64", least)
        with self.loop():
            now = number.get()
            self.break_if(now.uge(limit))
            yield now
            number.set(now + step)

    def break_if(self, condition: Value, likely: bool | None = None) -> None:
        """Leave the innermost loop when `condition` holds."""
        on = self._label("on")
        self._branch(condition, self._loops[-1][1], on, likely)
        self._start(on)

    def break_(self) -> None:
        """Leave the innermost loop."""
        self._goto(self._loops[-1][1])
        self._dead = True

    def continue_(self) -> None:
        """Go to the start of the innermost loop."""
        self._goto(self._loops[-1][0])
        self._dead = True

    def text(self) -> str:
        """The definition."""
        given = ", ".join(f"{value.type} {value.text}" for value in self.params.values())
        lines = list(self._lines)
        if not self._dead:
            lines.append("  ret void" if self.returns == "void" else "  unreachable")
        header = f"define {self._linkage()}{self.returns} @{quote(self.name)}({given}) {self._attributes()}{{"
        return "\n".join([header, "entry:", *self._head, *lines, "}", ""])

    def _linkage(self) -> str:
        return "internal " if "internal" in self.attributes.split() else ""

    def _attributes(self) -> str:
        words = [word for word in self.attributes.split() if word != "internal"]
        return " ".join(words) + " " if words else ""

    def _label(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def _branch(self, condition: Value, yes: str, no: str, likely: bool | None) -> None:
        hint = (
            ""
            if likely is None
            else f', !prof !{{!"branch_weights", i32 {2000 if likely else 1}, i32 {1 if likely else 2000}}}'
        )
        self.do(f"br i1 {condition.text}, label %{yes}, label %{no}{hint}")

    def _goto(self, label: str) -> None:
        self.do(f"br label %{label}")

    def _start(self, label: str) -> None:
        self._dead = False
        self._lines.append(f"{label}:")


def quote(name: str) -> str:
    """An LLVM identifier for a symbol name, without its sigil."""
    return (
        '"'
        + "".join(
            c if c.isalnum() or c in "._-$" else "".join(f"\\{b:02X}" for b in c.encode()) for c in name
        )
        + '"'
    )
