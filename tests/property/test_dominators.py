"""Laws of dominators: they agree with their definition, as networkx computes it."""

from __future__ import annotations

import networkx
from hypothesis import given
from hypothesis import strategies as st

from ir.core import Block, Branch, Const, Edge, Function, Jump, Return
from ir.dominators import Dominators
from ir.isa import ROW_BY_NAME
from ir.kinds import ProgramType
from ir.object import FunctionInfo, Program

PROGRAM = Program("f", "", ProgramType.UNSPEC, (), ())


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """Functions of any shape, all of whose blocks are reachable."""
    count = draw(st.integers(1, 16))
    blocks = [Block(number) for number in range(count)]
    for block in blocks:
        const = Const(0)
        block.insts = [const]
        targets = draw(st.lists(st.integers(1, max(count - 1, 1)), max_size=2)) if count > 1 else []
        edges = [Edge(blocks[target]) for target in targets]
        if len(edges) == 2:
            block.terminator = Branch(ROW_BY_NAME["jeq64 reg"], const, const, edges[0], edges[1])
        else:
            block.terminator = Jump(edges[0]) if edges else Return(const)
    function = Function(FunctionInfo("f", 0, 0, is_global=False), [], blocks, PROGRAM)
    reached = set(function.reverse_postorder())
    function.blocks = [block for block in blocks if block in reached]
    return function


@given(functions())
def test_the_tree_is_that_of_immediate_dominators(function: Function) -> None:
    found = networkx.immediate_dominators(function.cfg(), function.entry)
    parents = {block: parent for block, parent in found.items() if block is not function.entry}
    assert Dominators(function).parent == parents


@given(functions())
def test_a_block_dominates_those_that_cannot_be_reached_without_it(function: Function) -> None:
    tree, graph = Dominators(function), function.cfg()
    for above in function.blocks:
        rest = graph.subgraph([block for block in function.blocks if block is not above])
        apart = networkx.descendants(rest, function.entry) if above is not function.entry else set()
        for below in function.blocks:
            is_apart = above is not function.entry and (below in apart or below is function.entry)
            assert tree.dominates(above, below) == (below is above or not is_apart)


@given(functions())
def test_frontiers_are_where_domination_ends(function: Function) -> None:
    predecessors = {
        block: [source for source, _ in edges] for block, edges in function.predecessors().items()
    }
    wanted = networkx.dominance_frontiers(function.cfg(), function.entry)
    found = Dominators(function).frontiers(predecessors, 1000)
    assert found is not None
    assert {block: set(joins) for block, joins in found.items()} == wanted


@given(functions())
def test_reverse_postorder_puts_dominators_first(function: Function) -> None:
    order = {block: number for number, block in enumerate(function.reverse_postorder())}
    parents = Dominators(function).parent
    assert all(order[parent] < order[block] for block, parent in parents.items())
