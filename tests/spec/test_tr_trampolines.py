"""Trampolines on BPF functions: TR-01 to TR-25 as far as they are about programs of ours."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpfc
from ir.diagnostics import Diagnostic
from runtime.epoch import epochs
from runtime.memory import Pool
from tests.storms import going_on
from tests.tracing import run, slots

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from runtime.space import Space

OBJECTS = Path(__file__).parent.parent / "objects"
SECONDS = float(os.environ.get("BPFC_STORM_SECONDS", "3"))  # the long form: 10
PACKET = bytes(64)
U64 = 1 << 64


def refusal(program: RunningProgram, target: object, name: str | None = None, how: str = "fentry") -> int:
    with pytest.raises(bpfc.RejectedError) as caught:
        getattr(program, f"attach_{how}")(target, name)
    return caught.value.errno


def total(tracers: Runtime) -> int:
    entries, exits = tracers.globals["entries"], tracers.globals["exits"]
    assert isinstance(entries, int)
    assert isinstance(exits, int)
    return entries + exits


def entry_bytes(program: RunningProgram, function: str) -> bytes:
    point = program.hooks.hook(function).entry.point
    return program.image.block.read(point.address - program.image.address, point.site.length)


def entry_forms(program: RunningProgram, function: str) -> tuple[bytes, bytes]:
    """The entry's bytes as a NOP and as the jump to its veneer."""
    image, point = program.image, program.hooks.hook(function).entry.point
    distance = image.jump_target_of(point.site) - image.offset_of_site(point.site)
    patching = image.target.patching
    return patching.nop(distance), patching.jump(distance)


def test_tr_01_fentry_sees_the_arguments(targets: Runtime, tracers: Runtime) -> None:
    with tracers["on_entry"].attach_fentry(targets["calls_f"], "f"):
        assert run(targets["calls_f"]) == 5
        assert (slots(tracers)[:2], tracers.globals["count"]) == ([2, 3], 2)
        assert list(targets["calls_f"].run_batch([PACKET], ctx={"ingress_ifindex": 2})) == [2]
    assert run(targets["calls_f"]) == 5
    assert (tracers.globals["entries"], slots(tracers)[:2]) == (2, [2, 0])


def test_tr_02_narrow_arguments_are_normalized(targets: Runtime, tracers: Runtime) -> None:
    with tracers["all_at_entry"].attach_fentry(targets["calls_widths"], "widths"):
        run(targets["calls_widths"])
    assert slots(tracers)[:5] == [1 << 40, U64 - 2, U64 - 3, U64 - 4, 65535]
    assert tracers.globals["count"] == 5


def test_tr_04_fexit_sees_arguments_and_result(targets: Runtime, tracers: Runtime) -> None:
    with tracers["on_exit"].attach_fexit(targets["calls_f"], "f"):
        assert run(targets["calls_f"], 7, 9) == 16
    seen = tracers.globals
    assert (seen["exits"], slots(tracers)[:2], seen["result"], slots(tracers)[12]) == (1, [7, 9], 16, 16)


def test_tr_05_results_of_bpf_functions_are_not_replaced(targets: Runtime, tracers: Runtime) -> None:
    assert refusal(tracers["override"], targets["calls_f"], "f", "fmod_ret") == errno.EINVAL


def test_tr_07_the_newest_runs_first(targets: Runtime, tracers: Runtime) -> None:
    with ExitStack() as links:
        for name in ("entry_a", "entry_b", "entry_c"):
            links.enter_context(tracers[name].attach_fentry(targets["calls_f"], "f"))
        for name in ("exit_a", "exit_b", "exit_c"):
            links.enter_context(tracers[name].attach_fexit(targets["calls_f"], "f"))
        assert run(targets["calls_f"]) == 5
    assert tracers.globals["order"] == 321654


def test_tr_08_what_tracers_may_not_do(targets: Runtime, tracers: Runtime) -> None:
    assert refusal(tracers["returns_one"], targets["calls_f"], "f") == errno.EINVAL
    assert refusal(tracers["reads_beyond"], targets["calls_f"], "f") == errno.EACCES
    assert refusal(tracers["writes_slot"], targets["calls_f"], "f") == errno.EACCES
    assert run(targets["calls_f"]) == 5


def test_tr_09_thirty_eight_programs_and_no_more(targets: Runtime, machine: Space) -> None:
    source = bpfc.load(OBJECTS / "tracers.o")
    most = 27 if machine.target.name == "s390x" else 38
    with ExitStack() as stack:
        worlds = [stack.enter_context(source.start()) for _ in range(most + 1)]
        names = [("on_entry", "attach_fentry"), ("on_exit", "attach_fexit")]
        links = []
        for number, world in enumerate(worlds[:most]):
            name, how = names[number % 2]
            links.append(getattr(world[name], how)(targets["calls_f"], "f"))
        assert refusal(worlds[most]["on_entry"], targets["calls_f"], "f") == errno.E2BIG
        assert run(targets["calls_f"]) == 5
        assert [total(world) for world in worlds] == [1] * most + [0]
        links.pop(5).close()
        links.append(worlds[most]["on_entry"].attach_fentry(targets["calls_f"], "f"))
        assert run(targets["calls_f"]) == 5
        assert worlds[most].globals["entries"] == 1
        for link in links:
            link.close()


def test_tr_10_a_program_once_a_function(targets: Runtime, tracers: Runtime) -> None:
    program = tracers["on_entry"]
    with program.attach_fentry(targets["calls_f"], "f", cookie=1):
        assert refusal(program, targets["calls_f"], "f") == errno.EBUSY
        with program.attach_fentry(targets["calls_f_and_g"], "f", cookie=2):
            seen = []
            for target in (targets["calls_f"], targets["calls_f_and_g"]):
                run(target)
                seen.append(tracers.globals["cookie"])
    assert seen == [1, 2]


def test_tr_11_an_extended_function_is_not_traced(targets: Runtime, tracers: Runtime) -> None:
    with (
        bpfc.load(OBJECTS / "replacements.o").start() as extensions,
        extensions["returns_five"].attach_freplace(targets["calls_g"], "g"),
    ):
        assert refusal(tracers["all_at_entry"], targets["calls_g"], "g") == errno.EBUSY


def test_tr_14_recursion_skips_the_program_itself_only(targets: Runtime, tracers: Runtime) -> None:
    program, other = targets["calls_f"], targets["calls_f"]
    depth = 0

    def again(*_: object) -> int:
        nonlocal depth
        depth += 1
        if depth == 1:
            other.run(PACKET, {"ingress_ifindex": 1})
        return 0

    tracers.helpers["bpf_trace_printk"] = again
    triggering = tracers["triggers"]
    with bpfc.load(OBJECTS / "hooked.o").start() as nested:
        other = nested["calls_f"]
        with (
            triggering.attach_fentry(program, "f"),
            triggering.attach_fentry(other, "f"),
            tracers["second_level"].attach_fentry(other, "f"),
        ):
            assert run(program) == 5
    assert (depth, tracers.globals["entries"], tracers.globals["exits"]) == (1, 1, 1)
    assert triggering.statistics.recursion_misses == 1


def test_tr_15_statistics_count_while_they_are_on(targets: Runtime, tracers: Runtime) -> None:
    program = tracers["on_entry"]
    with program.attach_fentry(targets["calls_f"], "f"):
        run(targets["calls_f"])
        assert (program.statistics.run_cnt, program.statistics.run_time_ns) == (0, 0)
        with bpfc.enable_stats():
            for _ in range(3):
                run(targets["calls_f"])
        run(targets["calls_f"])
        assert program.statistics.run_cnt == 3
        assert program.statistics.run_time_ns > 0
    assert tracers.globals["entries"] == 5


def test_tr_15_statistics_switched_on_inside_a_program_do_not_count_it(
    targets: Runtime, tracers: Runtime
) -> None:
    holder = ExitStack()

    def switch(*_: object) -> int:
        holder.enter_context(bpfc.enable_stats())
        return 0

    tracers.helpers["bpf_trace_printk"] = switch
    program = tracers["triggers"]
    with holder, program.attach_fentry(targets["calls_f"], "f"):
        assert run(targets["calls_f"]) == 5
        assert (program.statistics.run_cnt, program.statistics.run_time_ns) == (0, 0)


def test_tr_16_each_link_has_its_own_cookie(targets: Runtime, tracers: Runtime) -> None:
    both = targets["calls_f"], targets["calls_f_and_g"]
    with ExitStack() as links:
        for cookie, target in enumerate(both, 1):
            links.enter_context(tracers["on_entry"].attach_fentry(target, "f", cookie=cookie))
        seen = []
        for target in (*both, *both):
            run(target)
            seen.append(tracers.globals["cookie"])
    assert seen == [1, 2, 1, 2]


def test_tr_17_the_last_detach_restores_the_entry(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f"]
    nop, jump = entry_forms(target, "f")
    assert entry_bytes(target, "f") == nop
    link = tracers["on_entry"].attach_fentry(target, "f")
    assert entry_bytes(target, "f") == jump
    assert run(target) == 5
    link.close()
    assert entry_bytes(target, "f") == nop
    epochs().drain(5)
    assert run(target) == 5
    assert tracers.globals["entries"] == 1


def test_tr_18_without_memory_attaching_fails_and_detaching_does_not(
    targets: Runtime, tracers: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, pool = targets["calls_f"], targets.world.space.pool
    first = tracers["on_entry"].attach_fentry(target, "f")
    second = tracers["on_exit"].attach_fexit(target, "f")
    real = Pool.allocate_code

    def refuse(self: Pool, size: int, at: int | None = None) -> object:
        if self is not pool:
            return real(self, size, at)
        raise bpfc.UnsupportedError([Diagnostic("out-of-code-memory", "injected", errno=errno.ENOMEM)])

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "allocate_code", refuse)
        with pytest.raises(bpfc.UnsupportedError) as caught:
            tracers["all_slots"].attach_fexit(target, "f")
        assert caught.value.errno == errno.ENOMEM
        assert run(target) == 5
        assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 1)
        first.close()
        assert run(target) == 5
        assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 2)
        second.close()
    assert entry_bytes(target, "f") == entry_forms(target, "f")[0]
    assert run(target) == 5
    assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 2)


def test_tr_19_tail_calls_do_not_see_the_entry_but_subprograms_do(targets: Runtime, tracers: Runtime) -> None:
    program = targets["jumps_on"]
    targets.maps["jumps"][0] = program
    assert run(program) == 77
    plain = targets.globals["spins"]
    with (
        tracers["all_at_entry"].attach_fentry(program, "counted"),
        tracers["entry_a"].attach_fentry(program, "jumps_on"),
    ):
        assert run(program) == 77
    assert plain == 34
    assert targets.globals["spins"] == 68
    assert tracers.globals["entries"] == 34
    assert tracers.globals["order"] == 1


def test_tr_20_tracers_are_traced_once(targets: Runtime, tracers: Runtime) -> None:
    with (
        tracers["on_entry"].attach_fentry(targets["calls_f"], "f"),
        tracers["entry_a"].attach_fentry(tracers["on_entry"]) as link,
    ):
        assert run(targets["calls_f"]) == 5
        assert (tracers.globals["entries"], tracers.globals["order"]) == (1, 1)
        assert refusal(tracers["entry_b"], tracers["entry_a"]) == errno.EINVAL
        link.close()
        assert refusal(tracers["entry_b"], tracers["entry_a"]) == errno.EINVAL


def test_tr_21_a_target_lives_as_long_as_its_links(tracers: Runtime) -> None:
    runtime = bpfc.load(OBJECTS / "hooked.o").start()
    target = runtime["calls_f"]
    link = tracers["on_entry"].attach_fentry(target, "f")
    runtime.close()
    assert run(target) == 5
    assert tracers.globals["entries"] == 1
    link.close()
    epochs().drain(5)
    assert not target.image.block.is_open


@pytest.mark.slow
def test_tr_22_a_storm_of_attaching_under_running_threads(targets: Runtime) -> None:
    target = targets["calls_f"]
    source = bpfc.load(OBJECTS / "tracers.o")
    wrong: list[int] = []
    cycles: list[int] = []

    def call() -> None:
        while goes_on():
            rets = target.run_batch([PACKET] * 32, ctx={"ingress_ifindex": 2, "rx_queue_index": 3})
            wrong.extend(ret for ret in rets if ret != 5)

    def hook(tracers: Runtime) -> None:
        while goes_on():
            with (
                tracers["on_entry"].attach_fentry(target, "f"),
                tracers["on_exit"].attach_fexit(target, "f"),
            ):
                cycles.append(1)

    with source.start() as one, source.start() as two:
        goes_on = going_on(
            SECONDS,
            lambda: len(cycles) > 10 and all(tracers.globals["exits"] for tracers in (one, two)),
        )
        workers = [threading.Thread(target=call) for _ in range(4)]
        workers += [threading.Thread(target=hook, args=(tracers,)) for tracers in (one, two)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        epochs().drain(5)
        assert (wrong, entry_bytes(target, "f")) == ([], entry_forms(target, "f")[0])
        assert epochs().collect() == 0
        for tracers in (one, two):
            entries, exits = tracers.globals["entries"], tracers.globals["exits"]
            assert isinstance(entries, int)
            assert isinstance(exits, int)
            assert entries >= exits > 0
        assert len(cycles) > 10


def test_tr_24_two_functions_at_once(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f_and_g"]
    failed: list[BaseException] = []

    def hook(name: str, function: str) -> None:
        try:
            for _ in range(50 if targets.world.space.is_native else 5):
                with tracers[name].attach_fentry(target, function):
                    assert run(target, 9, 5) == 1005
        except BaseException as error:  # noqa: BLE001  # shown by the main thread
            failed.append(error)

    threads = [
        threading.Thread(target=hook, args=("entry_a", "f")),
        threading.Thread(target=hook, args=("entry_b", "g")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_tr_25_more_programs_change_a_literal_and_no_instruction(targets: Runtime, tracers: Runtime) -> None:
    target = targets["calls_f"]
    with tracers["on_entry"].attach_fentry(target, "f"):
        before = entry_bytes(target, "f")
        with tracers["on_exit"].attach_fexit(target, "f"):
            assert entry_bytes(target, "f") == before
            assert run(target) == 5
            patched = target.image.block.read()
        literal = [
            n for n, (a, b) in enumerate(zip(patched, target.image.block.read(), strict=True)) if a != b
        ]
        assert 0 < len(literal) <= 8
        assert literal[-1] - literal[0] < 8
    assert (tracers.globals["entries"], tracers.globals["exits"]) == (1, 1)


def test_helpers_of_tracers_answer_as_linux_does(targets: Runtime, tracers: Runtime) -> None:
    with tracers["on_entry"].attach_fentry(targets["calls_f"], "f"):
        run(targets["calls_f"])
    seen = tracers.globals
    assert seen["address"] == targets["calls_f"].image.address_of("f")
    assert seen["missing"] == U64 - errno.EINVAL
    assert seen["early"] == U64 - errno.EOPNOTSUPP
