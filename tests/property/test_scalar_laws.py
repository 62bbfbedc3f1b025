"""Every operation on Scalars keeps every number: all members at 4 bits and 8, samples at 64."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.algebra import Integers, signed
from ir.isa import ROWS, Kind, compute
from ir.verify.refine import Relation, refine, refine_relation
from ir.verify.scalar import Scalar, const, covers, join, make, meet, tighten, widen, with_low
from ir.verify.transfer import SCALARS

EXACT = Integers()
SEEDS = st.integers(0, 1 << 32)
BINARY = ("add", "sub", "mul", "and_", "or_", "xor", "eq", "ult", "slt")
DIVISIONS = ("udiv", "urem", "sdiv", "srem")
SHIFTS = ("shl", "lshr", "ashr")
HOLDS: dict[Relation, Callable[[int, int, int], bool]] = {
    Relation.EQ: lambda bits, x, y: x == y,
    Relation.ULT: lambda bits, x, y: x < y,
    Relation.SLT: lambda bits, x, y: signed(bits, x) < signed(bits, y),
    Relation.SET: lambda bits, x, y: x & y != 0,
}
EDGES = (0, 1, 2, 7, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
         1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 128, (1 << 64) - 1)  # fmt: skip


def members(x: Scalar) -> list[int]:
    return [number for number in range(1 << x.bits) if x.contains(number)]


def random_scalar(random: Random, bits: int) -> Scalar:
    """One with members, made of random bits, ranges and sometimes a random low half."""
    top = 1 << bits
    while True:
        mask = random.choice((0, top - 1, top - 1, random.getrandbits(bits)))
        umin, umax = sorted((random.randrange(top), random.randrange(top)))
        smin, smax = sorted(signed(bits, random.randrange(top)) for _ in range(2))
        if random.random() < 0.5:
            umin, umax = 0, top - 1
        if random.random() < 0.5:
            smin, smax = -(top >> 1), (top >> 1) - 1
        low = random_scalar(random, bits >> 1) if bits >= 4 and random.random() < 0.3 else None
        found = make(bits, random.getrandbits(bits) & ~mask, mask, umin, umax, smin, smax, low)
        if found is not None and members(found):
            return found


def legal(name: str, bits: int, number: int) -> bool:
    """Whether the rows ever use `number` as the second operand of an operation."""
    if name in SHIFTS:
        return number < bits
    if name in ("udiv", "urem"):
        return number != 0
    return name not in DIVISIONS or number not in (0, (1 << bits) - 1)


@pytest.mark.parametrize("bits", [4, 8])
@given(seed=SEEDS)
def test_results_have_every_result_of_the_members(bits: int, seed: int) -> None:
    random = Random(seed)
    x, y = random_scalar(random, bits), random_scalar(random, bits)
    xs, ys = members(x), members(y)
    for name in (*BINARY, *DIVISIONS, *SHIFTS):
        if name in SHIFTS and ys[-1] >= bits:
            continue
        result = getattr(SCALARS, name)(bits, x, y)
        for a in random.sample(xs, min(len(xs), 16)):
            for b in random.sample(ys, min(len(ys), 16)):
                if legal(name, bits, b):
                    assert result.contains(getattr(EXACT, name)(bits, a, b)), (name, x, y, a, b, result)


@given(seed=SEEDS)
def test_widths_change_without_losing_members(seed: int) -> None:
    x = random_scalar(Random(seed), 8)
    for number in members(x):
        assert SCALARS.trunc(8, x, 4).contains(number & 15)
        assert SCALARS.zext(8, x, 16).contains(number)
        assert SCALARS.zext(8, x, 16).half().contains(number)
        assert SCALARS.sext(8, x, 16).contains(signed(8, number) & 0xFFFF)
        assert SCALARS.sext(8, x, 64).contains(signed(8, number) & ((1 << 64) - 1))


@given(seed=SEEDS)
def test_lattice_operations_keep_members(seed: int) -> None:
    random = Random(seed)
    x, y = random_scalar(random, 6), random_scalar(random, 6)
    both, joined, met = set(members(x)) & set(members(y)), join(x, y), meet(x, y)
    for number in {*members(x), *members(y)}:
        assert joined.contains(number)
        assert widen(x, y, (3, 5, 17)).contains(number)
    assert all(met is not None and met.contains(number) for number in both)
    assert covers(joined, x)
    assert covers(joined, y)
    if covers(x, y):
        assert set(members(x)) >= set(members(y))
    tight = tighten(x)
    assert tight is not None
    assert members(tight) == members(x)


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize("holds", [True, False])
@given(seed=SEEDS)
def test_branches_drop_no_operands_that_go_there(relation: Relation, holds: bool, seed: int) -> None:
    random = Random(seed)
    x, y = random_scalar(random, 4), random_scalar(random, 4)
    pair = refine_relation(relation, holds, x, y)
    for a in members(x):
        for b in members(y):
            if HOLDS[relation](4, a, b) is holds:
                assert pair is not None, (x, y, a, b)
                assert pair[0].contains(a), (x, y, a, b, pair)
                assert pair[1].contains(b), (x, y, a, b, pair)


def sampled_scalar(random: Random) -> tuple[Scalar, list[int]]:
    """A 64-bit Scalar and some of its members."""
    numbers = [
        (random.choice(EDGES) + random.randint(-2, 2)) % (1 << 64)
        if random.random() < 0.7
        else random.getrandbits(random.randint(1, 64))
        for _ in range(random.randint(1, 4))
    ]
    found, low = const(64, numbers[0]), const(32, numbers[0])
    for number in numbers[1:]:
        found, low = join(found, const(64, number)), join(low, const(32, number))
    with_both = with_low(found, low) if random.random() < 0.4 else found
    assert with_both is not None
    return with_both, numbers


@given(seed=SEEDS)
def test_every_row_keeps_every_sample(seed: int) -> None:
    random = Random(seed)
    (x, xs), (y, ys) = sampled_scalar(random), sampled_scalar(random)
    for row in ROWS:
        if row.kind not in (Kind.ALU, Kind.BRANCH):
            continue
        result = compute(row, SCALARS, x, y)
        for a in xs:
            for b in ys:
                number = compute(row, EXACT, a, b)
                assert result.contains(number), (row.name, x, y, a, b, result)
                if row.kind is Kind.BRANCH:
                    pair = refine(row, bool(number), x, y)
                    assert pair is not None, (row.name, x, y, a, b)
                    assert pair[0].contains(a), (row.name, x, y, a, b, pair)
                    assert pair[1].contains(b), (row.name, x, y, a, b, pair)


def test_constants_stay_constants() -> None:
    for row in ROWS:
        if row.kind is not Kind.ALU or row.name == "addr_space_cast":
            continue
        for a in EDGES:
            for b in EDGES:
                if row.name.startswith(("sdiv", "smod")) or "div" in row.name or "mod" in row.name:
                    continue
                assert compute(row, SCALARS, const(64, a), const(64, b)) == const(
                    64, compute(row, EXACT, a, b)
                )


def test_a_join_keeps_the_low_half_of_small_errors_together() -> None:
    joined = join(const(64, 0), const(64, -13 & 0xFFFF_FFFF))
    assert (joined.umin, joined.umax) == (0, 0xFFFF_FFF3)
    assert (joined.half().smin, joined.half().smax) == (-13, 0)
    again = join(joined, const(64, 0xFFFF_FFFF))
    assert (again.half().smin, again.half().smax) == (-13, 0)
