"""Control-flow graphs in graphviz' language: blocks as boxes, taken edges green, others red."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ir.asm import format_insn
from ir.core import Block, Function, Module
from ir.lift import lift
from ir.object import Map, Program

_COLORS = {True: "darkgreen", False: "red3", None: "black"}


def draw_xlated(program: Program, maps: Mapping[str, Map]) -> str:
    """The graph of a program's instructions. Raises RejectedError when its structure is not sound."""
    return draw_module(lift(program, maps), lambda function: _xlated_blocks(program, function))


def draw_module(module: Module, texts_of: Callable[[Function], Mapping[Block, list[str]]]) -> str:
    """One graph with a cluster for each function; `texts_of` gives the lines of a function's blocks."""
    lines = [
        f"digraph {_quote(module.program.name)} {{",
        "  node [shape=box, fontname=monospace, labeljust=l];",
    ]
    for number, function in enumerate(module.functions.values()):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quote(function.name)};"]
        lines += [f"    {line}" for line in _draw(function, number, texts_of(function))]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _draw(function: Function, cluster: int, texts: Mapping[Block, list[str]]) -> Iterator[str]:
    names = {block: f"f{cluster}b{number}" for number, block in enumerate(function.blocks)}
    for block, name in names.items():
        label = "".join(f"{_escape(line)}\\l" for line in texts[block])
        yield f'{name} [label="{label}"];'
    for block, name in names.items():
        edges = block.edges()
        for position, edge in enumerate(edges):
            color = _COLORS[None if len(edges) == 1 else position == 0]
            yield f"{name} -> {names[edge.block]} [color={color}];"


def _xlated_blocks(program: Program, function: Function) -> dict[Block, list[str]]:
    """Each block's instructions: from where it starts to where the next one does."""
    texts = {
        slot: f"{slot}: {format_insn(insn)}"
        for insn, slot in zip(program.insns, program.starts, strict=False)
    }
    ordered = sorted(function.blocks, key=lambda block: block.start)
    ends = [block.start for block in ordered[1:]] + [function.info.start + function.info.slots]
    return {
        block: [texts[slot] for slot in range(block.start, end) if slot in texts]
        for block, end in zip(ordered, ends, strict=True)
    }


def _quote(name: str) -> str:
    return f'"{_escape(name)}"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
