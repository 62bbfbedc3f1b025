"""What messages say."""

from __future__ import annotations

from ir.diagnostics import known_names


def test_known_names_are_listed_up_to_a_length_that_can_be_read() -> None:
    assert known_names([]) == "none"
    assert known_names({"a": 1, "b": 2}) == "a, b"
    listed = known_names(f"k{number}" for number in range(300))
    assert listed.endswith("k22, k23 and 276 more")
