"""Static keys and instruction sets over linked code, without programs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping

import pytest

from backends.native_code import Form
from backends.registry import host
from ir.diagnostics import RejectedError, UnsupportedError
from ir.static_keys import Polarity
from runtime.insn_set import DELETED, Entry, InsnSet, Stage
from runtime.linker import LinkedImage, link
from runtime.memory import Pool
from runtime.patch import Patcher
from runtime.publish import Mode, Publisher
from runtime.static_keys import State, StaticKeys
from tests.native import DECLARE_BRANCH, branch_function, compile_text, function_at, invoke_branch

NOP_OR_GOTO, GOTO_OR_NOP = Form.NOP, Form.JUMP


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


@pytest.fixture
def changer() -> Patcher:
    return Patcher(Publisher(host(), Mode.NONE))


def load(pool: Pool, text: str, forms: Mapping[int, Form]) -> LinkedImage:
    jumps_first = {insn for insn, form in forms.items() if form is Form.JUMP}
    return link(compile_text(DECLARE_BRANCH + text, jumps_first=jumps_first), {}, pool)


def sum_function(name: str, branches: list[tuple[int, int, int]]) -> str:
    """A function that adds, for each (key, nop side, jump side), one of the two."""
    lines = [f"define i64 @{name}() personality ptr @personality {{", "entry:", "  br label %b0", "b0:"]
    for number, (key, nop, jump) in enumerate(branches):
        before = f"%s{number}" if number else "0"
        lines += [
            f"  {invoke_branch(key)} to label %nop{number} unwind label %jump{number}",
            f"nop{number}:",
            f"  br label %b{number + 1}",
            f"jump{number}:",
            f"  %pad{number} = landingpad {{ ptr, i32 }} cleanup",
            f"  br label %b{number + 1}",
            f"b{number + 1}:",
            f"  %d{number} = phi i64 [ {nop}, %nop{number} ], [ {jump}, %jump{number} ]",
            f"  %s{number + 1} = add i64 {before}, %d{number}",
        ]
    return "\n".join([*lines, f"  ret i64 %s{len(branches)}", "}", ""])


@pytest.mark.parametrize(
    ("form", "nop", "jump"), [(NOP_OR_GOTO, 3, 7), (GOTO_OR_NOP, 7, 3)], ids=["unlikely", "likely"]
)
def test_off_on_off(pool: Pool, changer: Patcher, form: Form, nop: int, jump: int) -> None:
    image = load(pool, branch_function("f", 1, nop, jump), {1: form})
    keys = StaticKeys(["key"], changer)
    keys.load("f", 3, {1: form}, image, {"key": [1]})
    run = function_at(image.address_of("f"))
    seen = [run()]
    keys["key"].enable()
    seen.append(run())
    keys["key"].disable()
    seen.append(run())
    assert seen == [3, 7, 3]


def test_the_polarity_of_2025_starts_on(pool: Pool, changer: Patcher) -> None:
    image = load(pool, branch_function("f", 1, 3, 7), {1: GOTO_OR_NOP})
    keys = StaticKeys(["key"], changer)
    keys.load("f", 3, {1: GOTO_OR_NOP}, image, {"key": [1]}, Polarity.FIRST_IS_ON)
    run = function_at(image.address_of("f"))
    assert (keys["key"].state, run()) == (State.ON, 7)
    keys["key"].disable()
    assert (keys["key"].state, run()) == (State.OFF, 3)


def test_one_key_at_three_sites(pool: Pool, changer: Patcher) -> None:
    forms = {1: GOTO_OR_NOP, 4: NOP_OR_GOTO, 7: GOTO_OR_NOP}
    image = load(pool, sum_function("f", [(1, 7, 3), (4, 3, 7), (7, 7, 3)]), forms)
    keys = StaticKeys(["key"], changer)
    keys.load("f", 9, forms, image, {"key": [1, 4, 7]})
    run = function_at(image.address_of("f"))
    assert run() == 9
    keys["key"].enable()
    assert run() == 21


def test_two_keys_with_three_sites_each(pool: Pool, changer: Patcher) -> None:
    branches = [(1, 0, 1), (2, 0, 10), (3, 0, 1), (4, 0, 10), (5, 0, 1), (6, 0, 10)]
    forms = dict.fromkeys(range(1, 7), NOP_OR_GOTO)
    image = load(pool, sum_function("f", branches), forms)
    keys = StaticKeys(["k5", "k6"], changer)
    keys.load("f", 9, forms, image, {"k5": [1, 3, 5], "k6": [2, 4, 6]})
    run = function_at(image.address_of("f"))
    expected = {(False, False): 0, (True, False): 3, (False, True): 30, (True, True): 33}
    order = [*expected, *reversed(expected), *list(expected)[1::2], *list(expected)[::2]]
    for k5, k6 in order:
        keys["k6"].switch(k6)
        keys["k5"].switch(k5)
        assert run() == expected[k5, k6]


def test_a_site_whose_target_is_far_away_in_the_code(pool: Pool, changer: Patcher) -> None:
    filler = "\n".join(f"  store volatile i64 {i * 0x123456789}, ptr @sink" for i in range(4000))
    text = f"""
    @sink = internal global i64 0
    define i64 @f() personality ptr @personality {{
      {invoke_branch(1)} to label %off unwind label %on
    off:
    {filler}
      ret i64 1000
    on:
      %pad = landingpad {{ ptr, i32 }} cleanup
      ret i64 2000
    }}
    """
    image = load(pool, text, {1: NOP_OR_GOTO})
    keys = StaticKeys(["key"], changer)
    branches = keys.load("f", 9, {1: NOP_OR_GOTO}, image, {"key": [1]})
    (point,) = branches.points(1)
    assert point.site.target_offset - point.site.offset > 32_767
    run = function_at(image.address_of("f"))
    assert run() == 1000
    keys["key"].enable()
    assert run() == 2000


def test_two_programs_share_a_key(pool: Pool, changer: Patcher) -> None:
    keys = StaticKeys(["key"], changer)
    images = [load(pool, branch_function("f", 1, 3, 7), {1: NOP_OR_GOTO}) for _ in range(2)]
    first, second = (keys.load("f", 3, {1: NOP_OR_GOTO}, image, {"key": [1]}) for image in images)
    runs = [function_at(image.address_of("f")) for image in images]
    key = keys["key"]
    key.enable()
    assert [run() for run in runs] == [7, 7]
    key.disable(second)
    assert [run() for run in runs] == [7, 3]
    assert (key.state, key.enabled) == (State.MIXED, None)
    key.disable(first)
    assert (key.state, key.enabled) == (State.OFF, False)


def test_a_program_that_comes_later_gets_the_state_of_its_key(pool: Pool, changer: Patcher) -> None:
    keys = StaticKeys(["key"], changer)
    keys["key"].enable()
    assert keys["key"].enabled is True
    image = load(pool, branch_function("f", 1, 3, 7), {1: NOP_OR_GOTO})
    keys.load("f", 3, {1: NOP_OR_GOTO}, image, {"key": [1]})
    assert function_at(image.address_of("f"))() == 7


def test_enabling_twice_stores_once(pool: Pool, changer: Patcher) -> None:
    image = load(pool, branch_function("f", 1, 3, 7), {1: NOP_OR_GOTO})
    keys = StaticKeys(["key"], changer)
    keys.load("f", 3, {1: NOP_OR_GOTO}, image, {"key": [1]})
    keys["key"].enable()
    stores, code = changer.stores, image.block.read()
    keys["key"].enable()
    assert (changer.stores, image.block.read()) == (stores, code)


def test_toggling_changes_site_bytes_only(pool: Pool, changer: Patcher) -> None:
    forms = {1: GOTO_OR_NOP, 4: NOP_OR_GOTO, 7: GOTO_OR_NOP}
    image = load(pool, sum_function("f", [(1, 7, 3), (4, 3, 7), (7, 7, 3)]), forms)
    keys = StaticKeys(["key"], changer)
    keys.load("f", 9, forms, image, {"key": [1, 4, 7]})
    before = image.block.read()
    keys["key"].enable()
    after = image.block.read()
    length = host().patching.length
    starts = [point.address - image.address for point in keys["key"].sites]
    inside = {start + byte for start in starts for byte in range(length)}
    changed = {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert changed
    assert changed <= inside
    keys["key"].disable()
    assert image.block.read() == before


def test_a_deleted_branch_is_switched_without_a_site(pool: Pool, changer: Patcher) -> None:
    forms = {1: NOP_OR_GOTO, 4: NOP_OR_GOTO}
    image = load(pool, branch_function("f", 1, 3, 7), forms)
    keys = StaticKeys(["key"], changer)
    branches = keys.load("f", 9, forms, image, {"key": [1, 4]})
    keys["key"].enable()
    assert function_at(image.address_of("f"))() == 7
    assert (branches.points(4), branches.is_on(4)) == ((), True)


def frozen_set(*offsets: int) -> InsnSet:
    tracked = InsnSet(len(offsets))
    for index, offset in enumerate(offsets):
        tracked.update(index, Entry(offset))
    tracked.freeze()
    return tracked


def every_insn_starts(_: int) -> bool:
    return True


def test_entries_follow_insertions_and_removals() -> None:
    grown = frozen_set(0, 1, 2, 3, 4, 5)
    grown.begin_load(6, every_insn_starts)
    grown.insert(1, 3)
    grown.insert(5, 3)
    assert [entry.xlated_off for entry in grown.entries] == [0, 1, 4, 5, 8, 9]
    shrunk = frozen_set(0, 1, 2, 3, 4, 5)
    shrunk.begin_load(6, every_insn_starts)
    shrunk.remove(1, 1)
    shrunk.remove(2, 1)
    assert [entry.xlated_off for entry in shrunk.entries] == [0, DELETED, 1, DELETED, 2, 3]
    shrunk.end_load({0: 100, 1: 110, 2: 120, 3: 130}.get)
    assert [entry.jitted_off for entry in shrunk.entries] == [100, 0, 110, 0, 120, 130]
    assert shrunk.stage is Stage.READY


@pytest.mark.parametrize(
    ("tracked", "is_start", "static_branches"),
    [
        (InsnSet(1), every_insn_starts, None),
        (frozen_set(5), every_insn_starts, None),
        (frozen_set(3), lambda insn: insn != 3, None),
        (frozen_set(3), every_insn_starts, {4}),
    ],
    ids=["not frozen", "entry = length", "middle of a wide load", "not a static branch"],
)
def test_bad_sets_are_refused(
    tracked: InsnSet, is_start: Callable[[int], bool], static_branches: set[int] | None
) -> None:
    with pytest.raises(RejectedError) as caught:
        tracked.begin_load(5, is_start, static_branches)
    assert caught.value.errno == errno.EINVAL
    assert tracked.stage is Stage.FREE


def test_a_set_has_one_program_unless_its_load_failed() -> None:
    tracked = frozen_set(0, 4)
    tracked.begin_load(5, every_insn_starts)
    with pytest.raises(RejectedError) as caught:
        tracked.begin_load(5, every_insn_starts)
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(RejectedError) as caught:
        tracked.end_load({0: 0}.get)
    assert caught.value.errno == errno.EFAULT
    tracked.begin_load(5, every_insn_starts)
    tracked.end_load({0: 0, 4: 8}.get)
    with pytest.raises(RejectedError) as caught:
        tracked.begin_load(5, every_insn_starts)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ({"max_entries": 0}, errno.EINVAL),
        ({"max_entries": 1, "key_size": 8}, errno.EINVAL),
        ({"max_entries": 1, "value_size": 8}, errno.EINVAL),
        ({"max_entries": 1, "flags": 1}, errno.EINVAL),
    ],
)
def test_sets_of_another_shape_are_refused(arguments: dict[str, int], number: int) -> None:
    with pytest.raises(RejectedError) as caught:
        InsnSet(**arguments)
    assert caught.value.errno == number


def test_writes_to_a_set_are_refused_as_linux_does() -> None:
    tracked = InsnSet(200)
    cases: list[tuple[Callable[[], None], int]] = [
        (lambda: tracked.update(200, Entry(0)), errno.E2BIG),
        (lambda: tracked.update(0, Entry(0), flags=1), errno.EEXIST),
        (lambda: tracked.update(0, Entry(0, xlated_off=1)), errno.EINVAL),
        (lambda: tracked.update(0, Entry(0, jitted_off=1)), errno.EINVAL),
        (lambda: tracked.delete(0), errno.EINVAL),
        (tracked.require_ready, errno.EINVAL),
    ]
    for write, number in cases:
        with pytest.raises(RejectedError) as caught:
            write()
        assert caught.value.errno == number
    tracked.freeze()
    with pytest.raises(RejectedError) as caught:
        tracked.update(0, Entry(0))
    assert caught.value.errno == errno.EPERM


def test_updates_are_refused_as_linux_does(pool: Pool, changer: Patcher) -> None:
    image = load(pool, branch_function("f", 1, 3, 7), {1: NOP_OR_GOTO})
    keys = StaticKeys((), changer)
    branches = keys.load("f", 5, {1: NOP_OR_GOTO}, image, {})
    for insn, on, number in [(1, 2, errno.EINVAL), (5, 1, errno.ERANGE), (0, 1, errno.EINVAL)]:
        with pytest.raises(RejectedError) as caught:
            keys.update(branches, insn, on)
        assert caught.value.errno == number
    changer.publisher.refusal = "as on a machine without membarrier(2)"
    with pytest.raises(UnsupportedError) as unsupported:
        keys.update(branches, 1, 1)
    assert unsupported.value.errno == errno.EOPNOTSUPP
    changer.publisher.refusal = ""
    keys.update(branches, 1, 1)
    assert function_at(image.address_of("f"))() == 7
    keys.unload(branches)
    with pytest.raises(RejectedError) as caught:
        keys.update(branches, 1, 0)
    assert caught.value.errno == errno.EBADF
