"""`bpfc run --replace`: programs of other objects in the place of functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bpfc.cli.replacements import split_place

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]

OBJECTS = Path(__file__).parents[3] / "objects"
TARGET = OBJECTS / "hooked.o"
OTHERS = OBJECTS / "replacements.o"
GIVEN = ("--ctx", "ingress_ifindex=9", "--ctx", "rx_queue_index=3")


def test_functions_are_replaced_for_the_run(bpfc: Run, bpfc_json: RunJson) -> None:
    two = ("--replace", f"g={OTHERS}:returns_five", "--replace", f"f={OTHERS}:difference")
    said = bpfc_json("run", TARGET, "calls_f_and_g", *GIVEN, *two)
    assert said["verdicts"] == {"805": 1}
    assert said["replaced"] == [
        {"function": "g", "program": "returns_five", "object": str(OTHERS)},
        {"function": "f", "program": "difference", "object": str(OTHERS)},
    ]
    text = bpfc("run", TARGET, "calls_f_and_g", *GIVEN, *two).stdout
    assert f"replaced\n  g by returns_five of {OTHERS}\n  f by difference of {OTHERS}\n" in text
    assert bpfc_json("run", TARGET, "calls_f_and_g", *GIVEN)["verdicts"] == {"1003": 1}


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        (f"g={OTHERS}:takes_u32", 1, "note: wanted: long takes_u32(long v)"),
        (f"h={OTHERS}:returns_five", 1, "functions that can be replaced: g, calls_g"),
        (f"g={OTHERS}:nobody", 1, "no program is called 'nobody'"),
        (f"g={OTHERS}", 2, "name one program"),
        ("g", 2, "--replace wants NAME=VALUE, not 'g'"),
        ("g=/nowhere.o:f", 3, "cannot read '/nowhere.o'"),
    ],
)
def test_what_is_not_replaced_is_said(bpfc: Run, value: str, code: int, said: str) -> None:
    result = bpfc("run", TARGET, "calls_g", "--replace", value)
    assert (result.exit_code, said in result.stderr) == (code, True)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.o:f", ("a.o", "f")),
        ("a.o", ("a.o", None)),
        ("dir:1/a.o", ("dir:1/a.o", None)),
        ("dir:1/a.o:f", ("dir:1/a.o", "f")),
        ("a.o:xdp*", ("a.o", "xdp*")),
    ],
)
def test_an_object_and_its_program_are_told_apart(place: str, expected: tuple[str, str | None]) -> None:
    assert split_place(place) == expected
