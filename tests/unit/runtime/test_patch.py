"""The contract of patching: sites change in place, all or none, and running threads see one of two forms."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backends.native_code import SiteKind
from backends.registry import host
from backends.targets import x86_64
from backends.targets.x86_64 import X86_64
from ir.diagnostics import RejectedError
from runtime.linker import LinkedImage, link
from runtime.memory import Pool
from runtime.patch import EntryHook, Patcher, PatchPoint, patch_points
from runtime.publish import Mode, Publisher
from runtime.region import Protection
from tests.native import DECLARE_BRANCH, branch_function, compile_text, function_at, invoke_branch, load_text
from tests.storms import going_on

HOOKED = f"""
define i64 @answer() noinline {host().prologue} {{
  ret i64 42
}}
define i64 @other() noinline {{
  ret i64 7
}}
"""
LOOP = f"""
{DECLARE_BRANCH}
define i64 @loop(i64 %n) personality ptr @personality {{
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %join ]
  %sum = phi i64 [ 0, %entry ], [ %total, %join ]
  {invoke_branch(5)} to label %off unwind label %on
off:
  br label %join
on:
  %pad = landingpad {{ ptr, i32 }} cleanup
  br label %join
join:
  %step = phi i64 [ 1, %off ], [ 1000000, %on ]
  %total = add i64 %sum, %step
  %next = add i64 %i, 1
  %again = icmp ult i64 %next, %n
  br i1 %again, label %head, label %out
out:
  ret i64 %total
}}
"""


@pytest.fixture(params=list(Mode), ids=lambda mode: f"publish-{mode.value}")
def patcher(request: pytest.FixtureRequest) -> Patcher:
    """A patcher for each way of publishing; all three work on the host."""
    return Patcher(Publisher(host(), request.param))


@pytest.fixture
def pool(patcher: Patcher) -> Iterator[Pool]:
    """A pool protected as the way of publishing needs it."""
    is_both = patcher.publisher.mode is Mode.RWX
    with Pool(protection=Protection.WRITE_EXECUTE if is_both else Protection.WRITE_XOR_EXECUTE) as pool:
        yield pool


def branches(image: LinkedImage) -> tuple[PatchPoint, ...]:
    return patch_points(image, SiteKind.STATIC)


def test_a_static_branch_goes_where_it_is_told(patcher: Patcher, pool: Pool) -> None:
    image = load_text(DECLARE_BRANCH + branch_function("f", 1, 3, 7), pool=pool)
    run = function_at(image.address_of("f"))
    (point,) = branches(image)
    seen = [run()]
    assert patcher.poke(jumps=[point]) == 1
    seen.append(run())
    assert patcher.poke(nops=[point]) == 1
    seen.append(run())
    assert seen == [3, 7, 3]


def test_every_copy_that_the_optimizer_made_is_a_site(patcher: Patcher, pool: Pool) -> None:
    image = load_text(LOOP, pool=pool)
    run = function_at(image.address_of("loop"))
    points = branches(image)
    assert len(points) > 1
    assert {point.site.key for point in points} == {5}
    assert run(10) == 10
    patcher.poke(jumps=points)
    assert run(10) == 10_000_000


def test_a_site_in_the_wanted_form_is_not_stored_to(patcher: Patcher, pool: Pool) -> None:
    image = load_text(DECLARE_BRANCH + branch_function("f", 1, 3, 7), pool=pool)
    (point,) = branches(image)
    assert patcher.poke(nops=[point]) == 0
    assert patcher.poke(jumps=[point]) == 1
    assert patcher.poke(jumps=[point]) == 0
    assert patcher.stores == 1


def test_one_site_that_was_tampered_with_keeps_all_others_as_they_are(patcher: Patcher, pool: Pool) -> None:
    text = DECLARE_BRANCH + branch_function("f", 1, 3, 7) + branch_function("g", 1, 30, 70)
    image = load_text(text, pool=pool)
    points = branches(image)
    tampered = next(point for point in points if point.function == "g")
    image.block.write(tampered.address - image.address, b"\x90")
    with pytest.raises(RejectedError) as caught:
        patcher.poke(jumps=points)
    assert caught.value.errno == errno.EBUSY
    assert "does not hold its nop" in str(caught.value)
    assert function_at(image.address_of("f"))() == 3
    assert patcher.stores == 0


def test_a_site_of_an_unloaded_image_is_refused(patcher: Patcher, pool: Pool) -> None:
    image = load_text(DECLARE_BRANCH + branch_function("f", 1, 3, 7), pool=pool)
    (point,) = branches(image)
    image.close()
    with pytest.raises(RejectedError) as caught:
        patcher.poke(jumps=[point])
    assert caught.value.errno == errno.ENOENT


def test_a_patch_changes_only_the_five_bytes_of_its_site(pool: Pool, patcher: Patcher) -> None:
    image = load_text(DECLARE_BRANCH + branch_function("f", 1, 3, 7), pool=pool)
    (point,) = branches(image)
    before = image.block.read()
    patcher.poke(jumps=[point])
    after = image.block.read()
    changed = {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    start = point.address - image.address
    assert changed
    assert changed <= set(range(start, start + 5))
    assert start % 8 <= 3


def test_a_hooked_function_runs_the_hook_until_it_is_disarmed(patcher: Patcher, pool: Pool) -> None:
    image = load_text(HOOKED, pool=pool)
    run = function_at(image.address_of("answer"))
    (point,) = patch_points(image, SiteKind.ENTRY)
    hook = EntryHook(image, point, patcher)
    assert hook.target == image.address_of("answer") + 5
    seen = [run()]
    hook.arm(image.address_of("other"))
    seen.append(run())
    hook.disarm()
    seen.append(run())
    assert seen == [42, 7, 42]
    assert hook.target == image.address_of("answer") + 5


def test_changing_an_armed_hook_stores_data_only(patcher: Patcher, pool: Pool) -> None:
    image = load_text(HOOKED, pool=pool)
    (point,) = patch_points(image, SiteKind.ENTRY)
    hook = EntryHook(image, point, patcher)
    hook.arm(image.address_of("other"))
    stores = patcher.stores
    hook.arm(image.address_of("answer") + 5)
    assert function_at(image.address_of("answer"))() == 42
    assert patcher.stores == stores


def test_a_near_hook_can_be_jumped_to_at_once(patcher: Patcher, pool: Pool) -> None:
    image = load_text(HOOKED, pool=pool)
    run = function_at(image.address_of("answer"))
    (point,) = patch_points(image, SiteKind.ENTRY)
    hook = EntryHook(image, point, patcher)
    hook.arm(image.address_of("other"), is_direct=True)
    direct = image.block.read()
    assert run() == 7
    assert hook.target == image.address_of("other")
    hook.arm(image.address_of("other"))
    assert image.block.read() != direct
    assert run() == 7
    hook.arm(image.address_of("other"), is_direct=True)
    assert image.block.read() == direct
    hook.disarm()
    assert run() == 42
    hook.arm(image.address_of("other"))
    assert run() == 7


def test_a_far_hook_is_reached_through_the_veneer_either_way(patcher: Patcher, pool: Pool) -> None:
    far = 0x2000_0000_0000
    with link(compile_text(HOOKED), {}, pool, at=far) as other:
        image = load_text(HOOKED, pool=pool)
        (point,) = patch_points(image, SiteKind.ENTRY)
        hook = EntryHook(image, point, patcher)
        hook.arm(other.address_of("other"), is_direct=True)
        armed = image.block.read()
        assert function_at(image.address_of("answer"))() == 7
        hook.arm(other.address_of("other"))
        assert image.block.read() == armed


@pytest.mark.slow
def test_threads_running_through_a_site_see_one_of_its_two_forms(patcher: Patcher, pool: Pool) -> None:
    image = load_text(LOOP, pool=pool)
    run = function_at(image.address_of("loop"))
    points = branches(image)
    illegal: list[int] = []
    both = [0, 0]
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            total = run(1000)
            on = total // 1_000_000
            both[0] += on < 1000
            both[1] += on > 0
            if total != on * 1_000_000 + (1000 - on):
                illegal.append(total)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    toggles = 0
    goes_on = going_on(2, lambda: min(both) > 0 and toggles > 100)
    while goes_on():
        toggles += 1
        if toggles % 2:
            patcher.poke(jumps=points)
        else:
            patcher.poke(nops=points)
    stop.set()
    for thread in threads:
        thread.join()
    assert not illegal
    assert min(both) > 0
    assert toggles > 100


def test_an_entry_too_far_from_its_veneer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image larger than a jump reaches, as riscv64's may be."""
    near = replace(host().patching, near_low=-8, near_high=8)
    monkeypatch.setattr(x86_64, "X86_64", replace(X86_64, patching=near))
    with load_text(HOOKED) as image:
        (point,) = patch_points(image, SiteKind.ENTRY)
        hook = EntryHook(image, point, Patcher(Publisher(host(), Mode.NONE)))
        with pytest.raises(RejectedError) as caught:
            hook.arm(image.address_of("other"))
        assert (caught.value.errno, hook.is_armed) == (errno.ERANGE, False)
        assert function_at(image.address_of("answer"))() == 42
