"""Validation: each way in which IR can be malformed is found."""

from __future__ import annotations

import pytest

from ir.core import Const, Edge, Jump, Param, Return
from ir.parse import parse_function, parse_module
from ir.validate import find_problems, validate

DIAMOND = """\
function f (v0: r1):
block 0:
  if jeq64 v0, 0: block 1 else block 2
block 1:
  v1 = add64 v0, 1
  jump block 3 (v1)
block 2:
  v2 = add64 v0, 2
  jump block 3 (v2)
block 3 (v3: r0):
  return v3
"""


def test_a_well_formed_function_has_no_problems() -> None:
    assert list(find_problems(parse_function(DIAMOND))) == []


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "return v3",
            "return v1",
            "block 3, item 0: reads a value that block 1 makes, which does not dominate it",
        ),
        ("jump block 3 (v2)", "jump block 3", "block 2 passes 0 values to block 3, which has 1 parameters"),
        ("jump block 3 (v2)", "jump block 0", "block 2 leads to the entry"),
        ("else block 2", "else block 1", "block 2 is unreachable"),
        ("v2 = add64 v0, 2", "v2 = add64 v2, 2", "reads a value that is made after it"),
        ("block 0:", "block 0 (v9: r3):", "the entry has parameters"),
        ("v2 = add64 v0, 2", "stx64 [v0 + 0], v0\n  v2 = add64 v0, 2", ""),
    ],
)
def test_what_is_wrong_is_said(line: str, instead: str, said: str) -> None:
    problems = list(find_problems(parse_function(DIAMOND.replace(line, instead))))
    assert any(said in problem for problem in problems) if said else problems == []


def test_a_value_made_twice_or_nowhere_is_found() -> None:
    function = parse_function(DIAMOND)
    function.blocks[1].insts.append(function.blocks[1].insts[0])
    assert "block 1: a value is made twice" in find_problems(function)
    function = parse_function(DIAMOND)
    function.blocks[3].terminator = Return(Param(0))
    assert "block 3, item 0: reads a value that is made nowhere" in find_problems(function)


def test_an_edge_out_of_the_function_is_found() -> None:
    function, other = parse_function(DIAMOND), parse_function(DIAMOND)
    function.blocks[2].terminator = Jump(Edge(other.blocks[3], [Const(0)]))
    assert list(find_problems(function)) == ["block 2 leads to a block that is not in the function"]


def test_a_result_of_a_store_is_none() -> None:
    function = parse_function("function f (v0: r1):\nblock 0:\n  stx64 [v0 + 0], v0\n  return v0\n")
    function.entry.terminator = Return(function.entry.insts[0])
    assert list(find_problems(function)) == ["block 0, item 1: reads a value that is none"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("v1 = call subprogram g", "passes 0 values to 'g', which has 1 parameters"),
        ("v1 = call subprogram h (v0)", "calls 'h', which is not there"),
        ("v1 = address function h", "takes the address of 'h', which is not there"),
        ("v1 = call helper 1 (v0, v0, v0, v0, v0, v0)", "a call has 6 arguments"),
    ],
)
def test_calls_fit_what_they_call(call: str, said: str) -> None:
    text = f"function f (v0: r1):\nblock 0:\n  {call}\n  return v0\n"
    module = parse_module(f"{text}function g (v0: r1):\nblock 0:\n  return v0\n")
    with pytest.raises(AssertionError, match="after nothing: function 'f': ") as caught:
        validate(module, "after nothing")
    assert said in str(caught.value)
