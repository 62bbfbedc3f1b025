"""What a program holds and has to give up before it ends: references, a lock, critical sections, stack objects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

from ir.object import Program
from ir.verify.values import Area


@final
@dataclass(frozen=True, slots=True)
class StackObject:
    """An object that the kernel keeps in the stack of `frame`: a dynptr or an iterator.

    `area` is what it stands for: the memory a dynptr gives access to, the iterator. `is_owned`: it holds a
    reference, which has to be given up.
    """

    frame: Area
    offset: int
    size: int
    kind: str
    area: Area
    is_owned: bool = False


@final
@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Everything held. States are sorted by it wherever they arrive, so it is hashed once and compared by identity first.

    `locked`: the area whose spin lock is held; sections count how deeply they are nested. `comparing`: within a
    function that orders a tree, which runs under the lock of its caller. `lock_kind`: how the lock was taken,
    `outer_locks` those before it with theirs. `interrupts`: the states of interrupts that were saved, latest last.
    `later_sleeps`: whether the function, which runs by itself some time, may sleep; None in what the program runs.
    """

    references: frozenset[Area] = field(default_factory=frozenset)
    locked: Area | None = None
    rcu: int = 0
    preempt: int = 0
    objects: frozenset[StackObject] = field(default_factory=frozenset)
    comparing: bool = False
    lock_kind: str = ""
    outer_locks: tuple[tuple[Area, str], ...] = ()
    interrupts: tuple[Area, ...] = ()
    later_sleeps: bool | None = None
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Hash it."""
        object.__setattr__(self, "_hash", hash(self._content()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(other) is Held and self._hash == other._hash and self._content() == other._content()

    def _content(self) -> tuple[object, ...]:
        sections = (self.rcu, self.preempt, self.interrupts, self.comparing, self.later_sleeps)
        return self.references, self.objects, self.locked, self.lock_kind, self.outer_locks, sections

    def with_reference(self, area: Area) -> Held:
        """And a reference to `area`."""
        return replace(self, references=self.references | {area})

    def without_reference(self, area: Area) -> Held:
        """`area` was released, or is NULL."""
        return replace(self, references=self.references - {area})

    def with_lock(self, area: Area | None) -> Held:
        """Holding this lock, or none."""
        return replace(self, locked=area)

    def with_objects(self, objects: frozenset[StackObject]) -> Held:
        """With these stack objects and no others."""
        return replace(self, objects=objects)

    @property
    def locks(self) -> tuple[Area | None, ...]:
        """What the locks that are held are in."""
        return (self.locked, *(area for area, _ in self.outer_locks))

    def is_sleepable(self, program: Program) -> bool:
        """Whether what runs here may sleep outside of sections."""
        return program.is_sleepable if self.later_sleeps is None else self.later_sleeps

    @property
    def may_not_sleep(self) -> bool:
        """Whether it is a section in which nothing may sleep."""
        return bool(self.rcu or self.preempt or self.interrupts or self.locked is not None)

    @property
    def objects_in_use(self) -> bool:
        """Whether a stack object holds a reference."""
        return any(found.is_owned for found in self.objects)

    def object_at(self, frame: Area, offset: int) -> StackObject | None:
        """The stack object that starts there."""
        for found in self.objects:
            if found.frame is frame and found.offset == offset:
                return found
        return None

    def objects_in(self, frame: Area, low: int, high: int) -> list[StackObject]:
        """The stack objects that bytes [low, high) of `frame` touch."""
        return [
            found
            for found in self.objects
            if found.frame is frame and found.offset < high and low < found.offset + found.size
        ]


def who_may_not(held: Held) -> str:
    """What it is that may not sleep."""
    return "this program" if held.later_sleeps is None else "a function that runs in an interrupt"


NOTHING_HELD = Held()
