"""What each pass makes of small functions: `passes/*.txt`, cases of text before, pipeline and text after.

A file holds cases: `==== title`, `pipeline: ...`, the module before; after `----` the module afterwards and
the branches that read-only data decided. `make bless` writes what the code says now below the `----`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ir.core import Module
from ir.explain import Decision
from ir.parse import parse_module
from ir.pipeline import PASSES, parse_pipeline
from ir.text import format_module
from ir.validate import validate
from ir.watchers import ValidateEach

FOLDER = Path(__file__).parent / "passes"
FILES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_passes_give_what_the_golden_file_says(path: Path, golden: Callable[[Path, str], None]) -> None:
    cases = path.read_text().split("==== ")[1:]
    golden(path, "".join(f"==== {_case(text)}" for text in cases))


def test_every_pass_has_golden_cases() -> None:
    assert {path.stem.replace("_", "-") for path in FILES} >= set(PASSES)


def _case(text: str) -> str:
    title, pipeline, rest = text.split("\n", 2)
    module = parse_module(rest.partition("----\n")[0])
    validate(module)
    before = _show(module)
    changes = parse_pipeline(pipeline.removeprefix("pipeline: ")).run(module, [ValidateEach()])
    after = _show(module) if changes.changed else "unchanged"
    decisions = "".join(f"{_explain(each)}\n" for each in changes.decisions)
    return f"{title}\n{pipeline}\n{before}\n----\n{after}\n{decisions}\n"


def _show(module: Module) -> str:
    slots = any(block.terminator.at >= 0 for block in module.main.blocks)
    return format_module(module, slots=slots, maps=True)


def _explain(decision: Decision) -> str:
    way = "taken" if decision.is_taken else "not taken"
    because = ", ".join(f"{load.map}[{load.offset}:{load.size}] = {load.value:#x}" for load in decision.loads)
    return f"; branch at {decision.at.insn} is {way}: {because or 'constants'}"
