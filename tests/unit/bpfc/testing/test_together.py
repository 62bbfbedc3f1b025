"""Cases that are prepared at once: judged as each alone would be, and alone where a process died over them."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from backends.text import Text
from bpfc.testing.case import Case
from bpfc.testing.oracle import Finding, Judge, Oracle, Surroundings, Tally
from bpfc.testing.oracles import targets
from bpfc.testing.registry import ORACLES
from bpfc.testing.shard import TOGETHER, Order, run
from bpfc.testing.supervisor import _Supervisor

HERE = Surroundings(("riscv64", "s390x"))
emulated = pytest.mark.skipif(find_spec("unicorn") is None, reason="the extra 'emu' is not installed")


@emulated
def test_cases_together_do_what_the_interpreter_does() -> None:
    cases = [targets.draw(seed) for seed in range(24)]
    tally = Tally()
    judge_one = targets.judge_together(cases, HERE)
    assert [judge_one(case, tally, HERE) for case in cases] == [None] * 24
    runs = 24 * targets.STYLE.inputs
    assert dict(tally.outcomes) == {"emulated riscv64": runs, "emulated s390x": runs}


@emulated
def test_a_bug_is_found_together_as_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Text, "xor", Text.or_)
    cases = [targets.draw(seed) for seed in range(24)]
    judge_one = targets.judge_together(cases, HERE)
    found = {case.seed: judge_one(case, Tally(), HERE) for case in cases}
    wrong = [case for case in cases if found[case.seed] is not None]
    assert len(wrong) > 6
    for case in wrong[:2]:
        assert targets.judge(case, Tally(), HERE) == found[case.seed]


def test_a_process_that_died_over_many_cases_is_no_find(tmp_path: Path) -> None:
    place = tmp_path / "current"
    place.write_text(json.dumps({"oracle": "targets", "case": {"inputs": [], "seed": 3}, "last": 50}))
    supervisor = _Supervisor({"oracles": ("targets",), "first": 3, "count": 100})
    supervisor._died(place, -signal.SIGSEGV, "")
    assert (supervisor.order["alone"], supervisor.next, supervisor.finds) == (51, 3, [])


def test_cases_that_a_process_died_over_are_judged_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[list[int]] = []
    alone: list[int] = []

    def judge(case: Case, tally: Tally, surroundings: Surroundings) -> Finding | None:
        alone.append(case.seed)
        return None

    def company(cases: Sequence[Case], surroundings: Surroundings) -> Judge:
        prepared.append([case.seed for case in cases])
        return lambda case, tally, surroundings: None

    def draw(seed: int) -> Case:
        return Case(None, {}, (), seed=seed)

    monkeypatch.setitem(ORACLES, "sample", Oracle("sample", "", draw, judge, company=company))  # type: ignore[index]  # a dict, but for readers
    out = io.StringIO()
    run(Order(("sample",), 0, 100, str(tmp_path / "current"), alone=30), out)
    assert alone == list(range(30))
    assert prepared == [list(range(30, 30 + TOGETHER)), list(range(30 + TOGETHER, 100))]
    said: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["next"] for line in said[:-1]] == list(range(1, 101))
