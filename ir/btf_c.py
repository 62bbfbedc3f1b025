"""Types as C: declarations that a compiler lays out as BTF records them.

    struct list_head {
            struct list_head *next;
            struct list_head *prev;
    };

What a declaration needs comes before it: whole types where values are held, forward declarations where
pointers will do. Gaps that alignment does not explain are filled with unnamed bit fields; names that would
clash get "___2" and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from errno import EFBIG
from typing import final

from ir.btf import MAX_DEPTH, Btf
from ir.btf_layout import Layout
from ir.btf_types import (
    Array,
    BtfKind,
    Enum,
    Float,
    Forward,
    Int,
    Member,
    Pointer,
    Prototype,
    Qualifier,
    Struct,
    Typedef,
    TypeTag,
    Variable,
    Void,
)
from ir.diagnostics import Diagnostic, UnreadableError

MAX_LINES = 1 << 16
"""Lines that one declaration may take; only types made to explode have more."""

_QUALIFIERS = {BtfKind.CONST: "const", BtfKind.VOLATILE: "volatile", BtfKind.RESTRICT: "restrict"}
_PADS = ((64, "long"), (32, "int"), (16, "short"), (8, "char"))
_NAMED = (Struct, Enum, Typedef, Forward)
_Need = tuple[int, bool]


def c_declaration(btf: Btf, id: int, name: str = "") -> str:
    """C that declares `name` of type `id`; with no `name`, the definition of a type that has one itself.

    Raises UnreadableError when the type does not end.
    """
    writer = _Writer(btf)
    return writer.define(id) if not name else writer.declare(id, name, 0)


def dump_c(btf: Btf, ids: Iterable[int] | None = None) -> Iterator[str]:
    """Definitions of the named types among `ids` and of all that they need, in order.

    `ids` are all of the section's own by default. Raises UnreadableError.
    """
    writer = _Writer(btf)
    for id in btf.ids() if ids is None else ids:
        if isinstance(btf.type(id), _NAMED):
            yield from writer.require(id)


@final
class _Writer:
    """Writes the types of `btf`; remembers what is written and which names are taken."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.layout = Layout(btf)
        self._written: set[_Need] = set()
        self._defined: set[int] = set()
        self._forwards: set[str] = set()
        self._names: dict[int, str] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self._lines = 0

    def require(self, id: int) -> Iterator[str]:
        """Write type `id` and before it what it needs; a depth-first walk without recursion."""
        if (id, True) in self._written:
            return
        stack = [((id, True), self._enter((id, True)))]
        while stack:
            need, rest = stack[-1]
            following = next((other for other in rest if other not in self._written), None)
            if following is not None:
                stack.append((following, self._enter(following)))
                continue
            stack.pop()
            yield from self._write(need)

    def define(self, id: int) -> str:
        """The definition of named type `id`, or the declarator of an unnamed one."""
        self._lines = 0
        of = self.btf.type(id)
        match of:
            case Struct(name=name) if name:
                return f"{self._struct(id, of, 0)};"
            case Enum(name=name) if name:
                return f"{self._enum(id, of, 0)};"
            case Typedef(type_id=inner):
                return f"typedef {self.declare(inner, self._name(id), 0)};"
            case Forward(name=name, is_union=is_union):
                return f"{'union' if is_union else 'struct'} {name};"
            case Variable(type_id=inner, name=name):
                return f"{self.declare(inner, name, 0)};"
        return self.declare(id, self.btf.name(id), 0)

    def declare(self, id: int, name: str, depth: int) -> str:
        """The declaration of `name` as a value of type `id`, without the semicolon."""
        if depth > MAX_DEPTH:
            raise self._too_large(f"type {id} is nested more than {MAX_DEPTH} deep")
        text, qualifiers = name, ""
        for _ in range(4 * MAX_DEPTH):
            of = self.btf.type(id)
            match of:
                case Qualifier(kind=kind, type_id=id):
                    # gcc qualifies an array and its elements, too, which is one thing in C.
                    word = f"{_QUALIFIERS[kind]} "
                    qualifiers += word if word not in qualifiers else ""
                case TypeTag(value=value, type_id=id):
                    qualifiers += f'__attribute__((btf_type_tag("{_quoted(value)}"))) '
                case Pointer(type_id=id):
                    text, qualifiers = f"*{qualifiers}{text}", ""
                case Array(element_id=id, count=count):
                    text = f"{_grouped(text)}[{count}]"
                case Prototype(returns=id):
                    text = f"{_grouped(text)}({self._parameters(of, depth)})"
                case _:
                    base = self._base(id, depth)
                    return f"{qualifiers}{base} {text}".rstrip()
        raise self._too_large(f"type {id} is a chain of more than {4 * MAX_DEPTH} types")

    def _base(self, id: int, depth: int) -> str:
        of = self.btf.type(id)
        match of:
            case Void():
                return "void"
            case Int(name=name) | Float(name=name):
                return name or "int"
            case Typedef():
                return self._name(id)
            case Forward(name=name, is_union=is_union):
                return f"{'union' if is_union else 'struct'} {name}"
            case Struct(name=name):
                return f"{_keyword(of)} {self._name(id)}" if name else self._struct(id, of, depth)
            case Enum(name=name):
                return f"enum {self._name(id)}" if name else self._enum(id, of, depth)
        return f"/* {self.btf.kind(id).name.lower()} */ void"

    def _parameters(self, prototype: Prototype, depth: int) -> str:
        texts = [self.declare(p.type_id, p.name, depth + 1) for p in prototype.parameters]
        self._count(len(texts))
        return ", ".join([*texts, *["..."] * prototype.is_variadic]) or "void"

    def _struct(self, id: int, struct: Struct, depth: int) -> str:
        """A struct's keyword, name and members."""
        head = f"{_keyword(struct)} {self._name(id)}".rstrip()
        indent = "\t" * (depth + 1)
        is_packed = self.layout.is_packed(struct)
        lines: list[str] = []
        end = 0
        for member in struct.members:
            start = end
            if not struct.is_union:
                start = self.layout.next_offset(member, end, is_packed)
                lines += self._padding(end if member.bit_offset > start else start, member.bit_offset)
            lines.append(self._member(member, depth))
            end = 0 if struct.is_union else member.bit_offset + self.layout.bits_of(member)
        if not struct.is_union:
            alignment = 1 if is_packed else self.layout.alignment(id)
            if -(-end // (8 * alignment)) * 8 * alignment < 8 * struct.size:
                lines += self._padding(end, 8 * struct.size)
        self._count(len(lines) + 2)
        body = "".join(f"\n{indent}{line};" for line in lines)
        closing = "\n" + "\t" * depth if lines else ""
        return f"{head} {{{body}{closing}}}" + " __attribute__((packed))" * is_packed

    def _member(self, member: Member, depth: int) -> str:
        text = self.declare(member.type_id, member.name, depth + 1)
        return f"{text}: {member.bit_size}" if member.bit_size else text

    def _padding(self, start: int, end: int) -> list[str]:
        """Unnamed bit fields from bit `start` to bit `end`, as few as alignment allows."""
        pads: list[str] = []
        while start < end:
            bits, name = next(
                ((bits, name) for bits, name in _PADS if not start % bits and bits <= end - start),
                (min(8 - start % 8, end - start), "char"),
            )
            pads.append(f"{name}: {bits}")
            self._count(1)
            start += bits
        return pads

    def _enum(self, id: int, enum: Enum, depth: int) -> str:
        self._count(len(enum.values) + 2)
        indent = "\t" * (depth + 1)
        suffix = "" if not enum.is_wide else "LL" if enum.is_signed else "ULL"
        names = [self._unique("identifier", value.name) for value in enum.values]
        lines = [f"\n{indent}{name} = {v.value}{suffix}," for name, v in zip(names, enum.values, strict=True)]
        head = f"enum {self._name(id)}".rstrip()
        size = {1: " __attribute__((mode(byte)))", 2: " __attribute__((mode(HI)))"}.get(enum.size, "")
        return f"{head} {{{''.join(lines)}\n" + "\t" * depth + "}" + size

    def _enter(self, need: _Need) -> Iterator[_Need]:
        """Note that `need` is being written, so that a loop ends; what it needs itself."""
        self._written.add(need)
        id, is_whole = need
        of = self.btf.type(id)
        match of:
            case Struct(members=members) if is_whole or not of.name:
                return iter([found for m in members for found in self._needs(m.type_id, True)])
            case Typedef(type_id=inner) if is_whole:
                return iter([(id, False), *self._needs(inner, True)])
            case Typedef(type_id=inner):
                return iter(self._needs(inner, False))
        return iter(())

    def _needs(self, id: int, is_whole: bool) -> list[_Need]:
        """What has to be written before a value of type `id` (or a pointer to one) can be declared."""
        pending, needs = [(id, is_whole)], []
        steps = 0
        while pending:
            id, is_whole = pending.pop()
            steps += 1
            if steps > MAX_LINES:
                raise self._too_large(f"type {id} refers to too many others")
            match self.btf.type(id):
                case Qualifier(type_id=inner) | TypeTag(type_id=inner):
                    pending.append((inner, is_whole))
                case Pointer(type_id=inner):
                    pending.append((inner, False))
                case Array(element_id=inner):
                    pending.append((inner, True))
                case Prototype(returns=returns, parameters=parameters):
                    pending += ((p.type_id, False) for p in reversed(parameters))
                    pending.append((returns, False))
                case Struct(name=name):
                    needs.append((id, is_whole or not name))
                case Enum() | Forward():
                    needs.append((id, True))
                case Typedef():
                    needs.append((id, is_whole))
        return needs

    def _write(self, need: _Need) -> Iterator[str]:
        id, is_whole = need
        of = self.btf.type(id)
        match of:
            case Struct(name="") | Enum(name=""):
                return
            case Struct() if not is_whole:
                if id not in self._defined:
                    yield from self._forward(f"{_keyword(of)} {self._name(id)}")
            case Forward(name=name, is_union=is_union):
                yield from self._forward(f"{'union' if is_union else 'struct'} {name}")
            case Typedef(name=name) if is_whole or name.startswith("__builtin_"):
                return
            case Struct() | Enum() | Typedef():
                self._defined.add(id)
                yield self.define(id) + "\n"

    def _forward(self, text: str) -> Iterator[str]:
        if text not in self._forwards:
            self._forwards.add(text)
            yield f"{text};\n"

    def _name(self, id: int) -> str:
        """The name of a struct, enum or typedef, made different from those of other types."""
        name = self._names.get(id)
        if name is None:
            space = "identifier" if isinstance(self.btf.type(id), Typedef) else "tag"
            name = self._names[id] = self._unique(space, self.btf.name(id))
        return name

    def _unique(self, space: str, name: str) -> str:
        if not name:
            return ""
        times = self._taken[space, name] = self._taken.get((space, name), 0) + 1
        return name if times == 1 else f"{name}___{times}"

    def _count(self, lines: int) -> None:
        self._lines += lines
        if self._lines > MAX_LINES:
            raise self._too_large(f"a declaration takes more than {MAX_LINES} lines")

    def _too_large(self, said: str) -> UnreadableError:
        return UnreadableError([Diagnostic("btf-too-large", said, self.btf.at, errno=EFBIG)])


def _keyword(struct: Struct) -> str:
    return "union" if struct.is_union else "struct"


def _grouped(text: str) -> str:
    return f"({text})" if text.startswith("*") else text


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
