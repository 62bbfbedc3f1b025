"""Static keys in programs that others run: extensions and tracers are switched where they are attached."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator

import pytest

import bpfc
from bpfc.running import Runtime
from ir.diagnostics import RejectedError
from runtime.epoch import epochs
from runtime.static_keys import State
from tests.extensions import OBJECTS, run
from tests.storms import going_on


@pytest.fixture
def switched() -> Iterator[Runtime]:
    with bpfc.load(OBJECTS / "switched.o").start() as runtime:
        yield runtime


def test_an_attached_extension_follows_its_key(targets: Runtime, switched: Runtime) -> None:
    key = switched.static_keys["loud"]
    with switched["replaces_g"].attach_freplace(targets["calls_g"], "g"):
        seen = [run(targets["calls_g"], 130)]
        key.enable()
        seen.append(run(targets["calls_g"], 130))
        key.disable()
        seen.append(run(targets["calls_g"], 130))
        assert len(key.sites) == 1
    assert seen == [33, 77, 33]


def test_what_is_attached_later_begins_with_what_was_told_before(targets: Runtime, switched: Runtime) -> None:
    switched.static_keys["loud"].enable()
    with switched["also_replaces_g"].attach_freplace(targets["calls_g"], "g"):
        assert run(targets["calls_g"], 130) == 7
        switched["also_replaces_g"].keys["loud"].disable()
        assert run(targets["calls_g"], 130) == 3
    one = switched["replaces_g"]
    one.keys["loud"].disable()
    with one.attach_freplace(targets["calls_g"], "g"):
        assert run(targets["calls_g"], 130) == 33


def test_tracers_around_functions_follow_their_key(targets: Runtime, switched: Runtime) -> None:
    key, seen = switched.static_keys["loud"], []
    with (
        switched["enters"].attach_fentry(targets["calls_g"], "g"),
        switched["leaves"].attach_fexit(targets["calls_g"], "g"),
    ):
        for on in (False, True, False):
            key.switch(on)
            run(targets["calls_g"], 130)
            seen.append((switched.globals["entries"], switched.globals["exits"]))
    assert seen == [(1, 1), (1001, 1001), (1002, 1002)]


def test_a_tracer_of_several_models_is_switched_in_all_its_images(
    targets: Runtime, switched: Runtime
) -> None:
    """Each model of a function makes an image of its own."""
    key, tracer = switched.static_keys["loud"], switched["enters"]
    with (
        tracer.attach_fentry(targets["calls_g"], "g"),
        tracer.attach_fentry(targets["calls_g"]),
    ):
        assert len({point.block for point in key.sites}) == 2
        key.enable()
        run(targets["calls_g"], 130)
        assert switched.globals["entries"] == 2000
        slot = tracer.keys["loud"].slots[0]
        tracer.static_branch_update(slot, 0)
        run(targets["calls_g"], 130)
        assert switched.globals["entries"] == 2002
        assert key.state is State.OFF


def test_updates_of_an_extension_are_checked_though_it_is_not_attached(switched: Runtime) -> None:
    program = switched["replaces_g"]
    refused = []
    for slot, on in ((0, 2), (666, 1)):
        with pytest.raises(RejectedError) as caught:
            program.static_branch_update(slot, on)
        refused.append(caught.value.errno)
    assert refused == [errno.EINVAL, errno.ERANGE]
    program.static_branch_update(program.keys["loud"].slots[0], 1)
    assert program.keys["loud"].enabled is True


@pytest.mark.host_only("wants threads that run at the same time")
@pytest.mark.slow
def test_a_key_is_switched_while_extensions_come_and_go(targets: Runtime) -> None:
    """A writer switches, another attaches, detaches and frees; callers see the function or one side of the branch."""
    stop = threading.Event()
    legal = {8, 33, 77}
    seen: set[int] = set()
    errors: list[BaseException] = []

    def guarded(body: object) -> None:
        try:
            assert callable(body)
            body()
        except BaseException as error:  # noqa: BLE001  # reported by the test below
            errors.append(error)
            stop.set()

    def call() -> None:
        while not stop.is_set():
            seen.add(run(targets["calls_g"], 130))

    def attach() -> None:
        while not stop.is_set():
            with bpfc.load(OBJECTS / "switched.o").start() as switched:
                key = switched.static_keys["loud"]
                with switched["replaces_g"].attach_freplace(targets["calls_g"], "g"):
                    for _ in range(50):
                        key.enable()
                        key.disable()

    threads = [threading.Thread(target=guarded, args=(body,)) for body in (call, call, attach)]
    for thread in threads:
        thread.start()
    goes_on = going_on(2, lambda: seen == legal)
    while goes_on() and not stop.is_set():
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    epochs().drain(10)
    assert not errors
    assert seen == legal
