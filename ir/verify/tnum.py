"""Tristate numbers: bits known to be 0, known to be 1, or unknown, as a pair (value, mask).

A set bit of `mask` is unknown and then clear in `value`; the pair stands for {v : v & ~mask == value}. The
algorithms are those of kernel/bpf/tnum.c; `bits` bounds the result. Sound and, but for `mul`, optimal
(Vishwanathan et al., CGO 2022).
"""

from __future__ import annotations

# With more possibly-set bits than this in both factors a product's bits are as good as unknown.
_MUL_BITS = 20


def add(bits: int, v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of the sum: a result bit is unknown where a carry may differ."""
    value = v + w
    unknown = (value + m + n ^ value | m | n) & ((1 << bits) - 1)
    return value & ((1 << bits) - 1) & ~unknown, unknown


def sub(bits: int, v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of the difference."""
    value = v - w
    unknown = ((value + m) ^ (value - n) | m | n) & ((1 << bits) - 1)
    return value & ((1 << bits) - 1) & ~unknown, unknown


def mul(bits: int, v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of the product, by long multiplication over the factor with fewer bits that may be set."""
    top = (1 << bits) - 1
    if (v | m).bit_count() > (w | n).bit_count():
        v, m, w, n = w, n, v, m
    if (v | m).bit_count() > _MUL_BITS:
        zeros = trailing_zeros(v | m) + trailing_zeros(w | n)
        return 0, top & ~((1 << zeros) - 1)
    value, sum_value, sum_mask = v * w & top, 0, 0
    while v | m:
        if v & 1:
            sum_value, sum_mask = add(bits, sum_value, sum_mask, 0, n)
        elif m & 1:
            sum_value, sum_mask = add(bits, sum_value, sum_mask, 0, w | n)
        v, m = v >> 1, m >> 1
        w, n = w << 1 & top, n << 1 & top
    return add(bits, value, 0, sum_value, sum_mask)


def and_(v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of v & w."""
    value = v & w
    return value, (v | m) & (w | n) & ~value


def or_(v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of v | w."""
    value = v | w
    return value, (m | n) & ~value


def xor(v: int, m: int, w: int, n: int) -> tuple[int, int]:
    """Bits of v ^ w."""
    unknown = m | n
    return (v ^ w) & ~unknown, unknown


def trailing_zeros(value: int) -> int:
    """How many low bits of `value` are clear; 0 has 64."""
    return (value & -value).bit_length() - 1 if value else 64


def next_member(value: int, mask: int, at: int) -> int:
    """The smallest member that is >= `at`; past every width when there is none."""
    wrong = (at ^ value) & ~mask
    if not wrong:
        return at
    # The highest wrong bit decides: all below it is as small as can be, above it `at` is kept or stepped up.
    height = wrong.bit_length()
    below = (1 << height) - 1
    kept = at & ~below
    if at & (1 << height - 1):
        free = mask & ~below & ~at
        if not free:
            return value + (1 << 80)
        step = free & -free
        kept = (at | step) & ~(step - 1) & ~below
        below = step - 1
    return (kept & (mask | value)) | (value & below) | (value & ~below & ~mask)


def previous_member(value: int, mask: int, at: int) -> int:
    """The largest member that is <= `at`; -1 when there is none."""
    top = (value | mask | at).bit_length()
    ones = (1 << top) - 1
    # Complement turns "largest member below" into "smallest member above" of the complemented tnum.
    found = next_member(~(value | mask) & ones, mask, ~at & ones)
    return -1 if found > ones else ones ^ found
