"""Pipelines: their text form, and what watchers see."""

from __future__ import annotations

import pytest

from ir.diagnostics import RejectedError
from ir.parse import parse_module
from ir.passes.fold_rodata import FoldRodata
from ir.pipeline import DEFAULT, DEFAULT_FAST, PASSES, PROGRAM_PASSES, Pipeline, parse_pipeline
from ir.watchers import PrintAfter, Timing

TEXT = """\
program t
function t (v0: r1) global:
block 0:
  v1 = add64 1, 2
  return v1
"""


@pytest.mark.parametrize("text", [*PASSES, *PROGRAM_PASSES, str(DEFAULT), str(DEFAULT_FAST), ""])
def test_a_pipeline_is_printed_as_it_was_written(text: str) -> None:
    assert str(parse_pipeline(text)) == text


def test_options_are_printed_unless_they_are_the_default() -> None:
    text = " remove-nops , prune-branches{max=7},remove-dead-code { verified=true },prune-branches{max=3}"
    wanted = "remove-nops,prune-branches{max=7},remove-dead-code{verified=true},prune-branches"
    assert str(parse_pipeline(text)) == wanted


def test_the_printed_default_is_the_default() -> None:
    assert parse_pipeline(str(DEFAULT)) == DEFAULT
    assert parse_pipeline(str(DEFAULT_FAST)) == DEFAULT_FAST


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("fold", "unknown-pass", "no pass is named 'fold'"),
        ("fold-constants;", "bad-pipeline", "';' is not a list of passes"),
        ("fold-constants,,", "bad-pipeline", "',' is not a list of passes"),
        ("prune-branches{max=x}", "bad-option", "option 'max' of 'prune-branches' wants int, found 'x'"),
        ("prune-branches{min=1}", "unknown-option", "'min=1' is not an option of 'prune-branches'"),
        ("remove-dead-code{verified=1}", "bad-option", "wants bool, found '1'"),
        ("fold-constants,remove-nops", "bad-pipeline", "'remove-nops' works on bytecode"),
    ],
)
def test_what_is_not_a_pipeline_is_refused(text: str, code: str, said: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_pipeline(text)
    assert caught.value.diagnostics[0].code == code
    assert said in caught.value.diagnostics[0].message


def test_watchers_see_each_pass_after_it_ran() -> None:
    timing, texts = Timing(), list[str]()
    changes = parse_pipeline("fold-constants,prune-branches,remove-dead-code").run(
        parse_module(TEXT), [timing, PrintAfter(texts.append)]
    )
    assert changes.changed
    assert [name for name, _ in timing.passes] == ["fold-constants", "prune-branches", "remove-dead-code"]
    assert all(ns > 0 for _, ns in timing.passes)
    assert [text.splitlines()[0] for text in texts] == ["; after fold-constants", "; after remove-dead-code"]
    assert texts[1].splitlines()[1:] == ["program t", "function t (v0: r1) global:", "block 0:", "  return 3"]


def test_print_after_prints_the_passes_named() -> None:
    texts = list[str]()
    watcher = PrintAfter(texts.append, frozenset(["prune-branches"]))
    parse_pipeline("fold-constants,prune-branches").run(parse_module(TEXT), [watcher])
    assert [text.splitlines()[0] for text in texts] == ["; after prune-branches"]


def test_an_empty_pipeline_changes_nothing() -> None:
    assert not Pipeline(()).run(parse_module(TEXT)).changed


def test_a_pipeline_without_a_pass_has_the_others_in_order() -> None:
    pipeline = parse_pipeline("fold-rodata,prune-branches,fold-rodata,remove-dead-code")
    assert str(pipeline.without(FoldRodata)) == "prune-branches,remove-dead-code"
