"""Every target: its relocations, calls near and far, static branches and entries, run in an emulator."""

from __future__ import annotations

import pytest

from backends.machine import Level
from backends.native_code import Form, PatchSite, SiteKind
from backends.registry import NAMES, target_named
from ir.diagnostics import UnsupportedError
from runtime.layout import layout_of
from tests.emulated import EMULATED, Emulated
from tests.native import DECLARE_BRANCH, compile_text, invoke_branch
from tests.unit.runtime.test_linker import EVERYTHING

HERE = 0x1000_0000
FAR = 0x2000_0000_0000
OUTSIDE = 0x5000_0000
TARGETS = [name for name in NAMES if name in EMULATED]

CALLEE = "define i64 @callee(i64 %x) { %y = mul i64 %x, 10 ret i64 %y }"
CALLER = """
declare i64 @callee(i64)
define i64 @caller(i64 %x) {
  %y = call i64 @callee(i64 %x)
  %z = add i64 %y, 1
  ret i64 %z
}
define i64 @tail(i64 %x) {
  %y = tail call i64 @callee(i64 %x)
  ret i64 %y
}
define ptr @address() { ret ptr @callee }
"""


@pytest.fixture(params=TARGETS)
def machine(request: pytest.FixtureRequest) -> Emulated:
    return Emulated(request.param)


@pytest.mark.parametrize("level", [Level.NONE, Level.DEFAULT])
def test_code_reaches_its_constants_variables_and_tables(machine: Emulated, level: Level) -> None:
    code = compile_text(EVERYTHING, machine.target, level)
    at = machine.load(code, HERE, {"outside": OUTSIDE})
    machine.uc.mem_map(OUTSIDE, 0x1000)
    machine.uc.mem_write(OUTSIDE, (42).to_bytes(8, machine.target.byte_order))
    assert [machine.call(at["constants"], i) for i in range(4)] == [100, 200, 300, 400]
    assert [machine.call(at["count"], by) for by in (10, 1)] == [15, 16]
    assert [machine.call(at["choose"], i) for i in range(2)] == [1, 2]
    assert [machine.call(at["jump_table"], i, 30) for i in range(6)] == [90, 83, 970, 10, 960, 2**64 - 1]
    assert machine.call(at["read"]) == 42


@pytest.mark.parametrize("callee_at", [HERE + 0x10000, FAR], ids=["near", "far"])
def test_calls_arrive_near_and_far(machine: Emulated, callee_at: int) -> None:
    callee = machine.load(compile_text(CALLEE, machine.target), callee_at)["callee"]
    at = machine.load(compile_text(CALLER, machine.target), HERE, {"callee": callee})
    assert machine.call(at["caller"], 4) == 41
    assert machine.call(at["tail"], 4) == 40
    assert machine.call(at["address"]) == callee


@pytest.mark.parametrize("level", [Level.NONE, Level.FAST, Level.DEFAULT])
def test_static_branches_go_where_they_are_told(machine: Emulated, level: Level) -> None:
    region = machine.target.patching.region
    text = f"""
    {DECLARE_BRANCH}
    define i64 @f(i64 %n) personality ptr @personality {{
    entry:
      br label %head
    head:
      %i = phi i64 [ 0, %entry ], [ %next, %join ]
      %sum = phi i64 [ 0, %entry ], [ %total, %join ]
      {invoke_branch(5, region)} to label %off unwind label %on
    off:
      br label %join
    on:
      %pad = landingpad {{ ptr, i32 }} cleanup
      br label %join
    join:
      %step = phi i64 [ 1, %off ], [ 1000, %on ]
      %total = add i64 %sum, %step
      %next = add i64 %i, 1
      %again = icmp ult i64 %next, %n
      br i1 %again, label %head, label %out
    out:
      ret i64 %total
    }}
    """
    code = compile_text(text, machine.target, level)
    at = machine.load(code, HERE)
    sites = static_sites(code.sites)
    assert sites
    seen = [machine.call(at["f"], 10)]
    for form in (Form.JUMP, Form.NOP):
        for site in sites:
            machine.patch(code, HERE, site, form)
        seen.append(machine.call(at["f"], 10))
    assert seen == [10, 10_000, 10]


def test_static_branches_can_start_as_jumps(machine: Emulated) -> None:
    text = f"""
    {DECLARE_BRANCH}
    define i64 @f() personality ptr @personality {{
      {invoke_branch(7, machine.target.patching.region)} to label %off unwind label %on
    off:
      ret i64 3
    on:
      %pad = landingpad {{ ptr, i32 }} cleanup
      ret i64 7
    }}
    """
    code = compile_text(text, machine.target, jumps_first={7})
    at = machine.load(code, HERE)
    assert machine.call(at["f"]) == 7
    (site,) = static_sites(code.sites)
    machine.patch(code, HERE, site, Form.NOP)
    assert machine.call(at["f"]) == 3


def static_sites(sites: tuple[PatchSite, ...]) -> list[PatchSite]:
    return [site for site in sites if site.kind is SiteKind.STATIC]


def test_an_entry_jumps_to_its_veneer_and_that_to_what_its_literal_says(machine: Emulated) -> None:
    target = machine.target
    text = f"""
    define i64 @hooked(i64 %x) {target.prologue} {{ %y = add i64 %x, 1 ret i64 %y }}
    define i64 @hook(i64 %x) {{ %y = mul i64 %x, 100 ret i64 %y }}
    """
    code = compile_text(text, target)
    at = machine.load(code, HERE)
    (site,) = code.sites
    veneer = HERE + layout_of(code, target).entries[site.function]
    entry = at["hooked"]
    assert machine.call(entry, 4) == 5
    machine.uc.mem_write(entry, target.patching.jump(veneer - entry))
    machine.uc.ctl_remove_cache(entry, entry + site.length)
    assert machine.call(entry, 4) == 5  # the literal leads back into the function
    literal = veneer + target.veneer.literal
    assert literal % 8 == 0
    machine.uc.mem_write(literal, at["hook"].to_bytes(8, target.byte_order))
    assert machine.call(entry, 4) == 400


@pytest.mark.parametrize("name", TARGETS)
def test_a_canary_is_a_function_that_one_store_changes(name: str) -> None:
    machine = Emulated(name)
    patching = machine.target.patching
    machine.uc.mem_map(HERE, 0x1000)
    for number, code in enumerate(patching.canary, 1):
        machine.uc.mem_write(HERE, code)
        machine.uc.ctl_remove_cache(HERE, HERE + 16)
        assert machine.call(HERE) == number
    before, after = patching.canary
    words = {i // patching.unit for i in range(len(before)) if before[i] != after[i]}
    assert len(words) == 1
    assert len(before) == len(after)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_aliases_find_the_target(name: str) -> None:
    assert target_named(name).name == name


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError) as caught:
        target_named("vax")
    assert "no target 'vax', wanted one of x86_64" in str(caught.value)


REACH = {
    "x86_64": (-(2**31) + 5, 2**31 + 4),
    "aarch64": (-128 * 2**20, 128 * 2**20 - 4),
    "riscv64": (-(2**20), 2**20 - 2),
    "s390x": (-(2**32), 2**32 - 2),
}


@pytest.mark.parametrize("name", TARGETS)
def test_jumps_reach_just_as_far_as_their_encoding(name: str) -> None:
    patching = target_named(name).patching
    low, high = REACH[name]
    assert [patching.is_near(d) for d in (low - 1, low, high, high + 4)] == [False, True, True, False]
    assert len({patching.jump(d) for d in (low, high, 4)}) == 3
