"""Control flow as a networkx graph; a module of its own because networkx takes 100 ms to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx

if TYPE_CHECKING:
    from ir.core import Block, Function


def control_flow(function: Function) -> networkx.DiGraph[Block]:
    """Blocks in order, an edge (with `taken` True, False or None) for each way out."""
    graph: networkx.DiGraph[Block] = networkx.DiGraph()
    graph.add_nodes_from(function.blocks)
    for block in function.blocks:
        edges = block.edges()
        for position, edge in enumerate(edges):
            graph.add_edge(block, edge.block, taken=None if len(edges) == 1 else position == 0)
    return graph
