"""`bpfc run --attach`: programs around functions of the one that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]

OBJECTS = Path(__file__).parents[3] / "objects"
TARGET = OBJECTS / "hooked.o"
TRACERS = OBJECTS / "tracers.o"
GIVEN = ("--ctx", "ingress_ifindex=2", "--ctx", "rx_queue_index=3", "--repeat", "7")
BOTH = ("--attach", f"fentry:f={TRACERS}:on_entry", "--attach", f"fexit:f={TRACERS}:on_exit")


def test_programs_run_around_functions_and_are_counted(bpfc: Run, bpfc_json: RunJson) -> None:
    said = bpfc_json("run", TARGET, "calls_f", *GIVEN, *BOTH)
    assert said["verdicts"] == {"5": 7}
    rows = [(one["kind"], one["function"], one["program"], one["run_cnt"]) for one in said["attached"]]
    assert rows == [("fentry", "f", "on_entry", 7), ("fexit", "f", "on_exit", 7)]
    assert all(one["run_time_ns"] > 0 and one["recursion_misses"] == 0 for one in said["attached"])
    variables = said["tracers"][str(TRACERS)]["globals"]
    assert [variables[name]["value"] for name in ("entries", "exits", "result")] == [7, 7, 5]
    text = bpfc("run", TARGET, "calls_f", *GIVEN, *BOTH).stdout
    assert f"attached\n  fentry f: on_entry of {TRACERS}, 7 runs, " in text
    assert f"globals of {TRACERS}\n  entries = 7\n" in text


def test_a_program_of_the_same_object_is_named_alone(bpfc_json: RunJson) -> None:
    said = bpfc_json("run", TRACERS, "on_entry", "--attach", "fentry:on_entry=entry_a")
    assert [(one["program"], one["object"], one["run_cnt"]) for one in said["attached"]] == [
        ("entry_a", None, 1)
    ]
    assert said["tracers"] == {}


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("fentri:f=x", 2, "'fentri:f' is not HOW:FUNC; HOW is one of fentry, fexit, fmod_ret, fsession"),
        ("f=x", 2, "'f' is not HOW:FUNC"),
        ("fentry:f=nothing.o:x", 3, "cannot read 'nothing.o'"),
        (f"fentry:f={TRACERS}:x", 1, "no program is called 'x'"),
        (f"fentry:h={TRACERS}:on_entry", 1, "function 'h' of 'calls_f' can't be traced"),
        (f"fmod_ret:f={TRACERS}:override", 1, "the result of BPF function 'f' can't be replaced"),
        (f"fentry:f={TRACERS}:reads_beyond", 1, "access of 8 bytes at 16"),
    ],
)
def test_what_cannot_be_attached_says_why(bpfc: Run, value: str, code: int, said: str) -> None:
    result = bpfc("run", TARGET, "calls_f", "--attach", value)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
