"""Hypothesis strategies for instructions, drawn from the rows: a new operation is tested by being a row."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from ir.isa import ROWS, Field, Insn, Row

BOUNDARIES = tuple(
    sorted(
        {
            (1 << bits >> shrink) + delta
            for bits in (8, 16, 32, 64)
            for shrink in (0, 1)
            for delta in (-1, 0, 1)
        }
    )
)


def edge_values(bits: int = 64) -> tuple[int, ...]:
    """Unsigned values of `bits` bits where operations change: 0, shift counts, the ends of each width."""
    counts = (0, 1, 2, 7, 15, 31, 32, 33, 63)
    below = [value for value in (*counts, *BOUNDARIES) if value < 1 << bits]
    return tuple(sorted({*below, *((1 << bits) - 1 - value for value in below)}))


def values(bits: int = 64) -> st.SearchStrategy[int]:
    """Unsigned values of `bits` bits, every other one an edge value."""
    return st.one_of(st.sampled_from(edge_values(bits)), st.integers(0, (1 << bits) - 1))


def legal_values(field: Field) -> st.SearchStrategy[int]:
    """The values a field of a row may have."""
    if isinstance(field, int):
        return st.just(field)
    if isinstance(field, frozenset):
        return st.sampled_from(sorted(field))
    return st.integers(field.start, field.stop - 1)


def insns_of(row: Row) -> st.SearchStrategy[Insn]:
    """Every legal instruction of one row."""
    fields = (row.dst, row.src, row.offset, row.imm)
    return st.builds(Insn, st.just(row.opcode), *map(legal_values, fields))


def insns(rows: Iterable[Row] = ROWS) -> st.SearchStrategy[Insn]:
    """Every legal instruction of some rows."""
    return st.sampled_from(tuple(rows)).flatmap(insns_of)
