"""Extensions as the verifier sees them: they are checked as the function that they stand for, and callers trust no body."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import bpfc
from bpfc.verification import verify_object
from ir.isa import Callee, Insn, row_of
from tests.extensions import OBJECTS, PACKET, refusal, run, started

if TYPE_CHECKING:
    from bpfc.running import Runtime
    from ir.diagnostics import Diagnostic


MOV64_IMM = 0xB7


@pytest.fixture
def targets() -> Iterator[Runtime]:
    with started("extended") as runtime:
        yield runtime


@pytest.fixture
def extensions() -> Iterator[Runtime]:
    with started("extending") as runtime:
        yield runtime


def verdict(program: str) -> tuple[Diagnostic, ...]:
    return bpfc.load(OBJECTS / "extended.o").verify(program)[program].diagnostics


def test_fr_02_a_wider_result_is_accepted_with_a_warning_and_cut_to_what_callers_expect(
    targets: Runtime, extensions: Runtime
) -> None:
    assert run(targets["calls_narrow"], 5) == 1
    with extensions["wide"].attach_freplace(targets["calls_narrow"], "narrow"):
        assert run(targets["calls_narrow"], 5) == 1
    assert [warning.code for warning in extensions["wide"].warnings] == ["result-size"]


def test_fr_02_a_larger_struct_than_callers_give_is_refused(targets: Runtime, extensions: Runtime) -> None:
    number, said = refusal(extensions["larger_pair"], targets["gives_pair"], "reads_pair")
    assert (number, "a struct pair of 24 bytes, callers give 16" in said) == (errno.EINVAL, True)


def test_fr_07_a_helper_that_only_the_targets_type_has(targets: Runtime, extensions: Runtime) -> None:
    assert targets["classifies"].run(PACKET).verdict == len(PACKET)
    with extensions["loads_bytes"].attach_freplace(targets["classifies"], "classify"):
        assert targets["classifies"].run(PACKET).verdict == PACKET[0]


def test_fr_07_a_helper_that_the_targets_type_lacks_fails_the_load(extensions: Runtime) -> None:
    with started("hooked") as xdp, started("replacements") as others:
        with pytest.raises(bpfc.RejectedError) as caught:
            others["uses_skb_helper"].set_attach_target(xdp["calls_many"], "takes_context")
        first = caught.value.diagnostics[0]
        assert (first.code, first.errno) == ("helper-unavailable", errno.EINVAL)
        assert first.message.startswith("bpf_skb_change_type is not available to XDP")


def test_fr_08_context_fields_are_those_of_the_targets_type(targets: Runtime, extensions: Runtime) -> None:
    with extensions["sets_mark"].attach_freplace(targets["classifies"], "classify"):
        result = targets["classifies"].run(PACKET)
        assert (result.verdict, result.ctx["mark"]) == (6, 5)
    number, said = refusal(extensions["reads_address"], targets["classifies"], "classify")
    assert (number, "not allowed in SCHED_CLS programs" in said) == (errno.EACCES, True)


@pytest.mark.host_only("starts machines of its own")
@pytest.mark.parametrize("arch", ["aarch64", "s390x"])
def test_fr_09_a_target_that_is_not_native_code_is_refused(extensions: Runtime, arch: str) -> None:
    pytest.importorskip("unicorn")
    if arch == "s390x":
        emulated = bpfc.load(OBJECTS / "everything.eb.o")
        name, function = next(iter(emulated.programs)), "f"
    else:
        emulated, name, function = bpfc.load(OBJECTS / "extended.o"), "calls_narrow", "narrow"
    with emulated.start(target=arch) as runtime:
        number, said = refusal(extensions["wide"], runtime[name], function)
        assert (number, f"runs on an emulated {arch}" in said) == (errno.EINVAL, True)


@pytest.mark.host_only("starts machines of its own")
def test_fr_09_an_extension_that_is_not_native_code_is_refused(targets: Runtime) -> None:
    pytest.importorskip("unicorn")
    with bpfc.load(OBJECTS / "extending.o").start(target="aarch64") as runtime:
        assert refusal(runtime["wide"], targets["calls_narrow"], "narrow")[0] == errno.EINVAL


def test_fr_14_a_second_target_has_the_same_attach_type(targets: Runtime, extensions: Runtime) -> None:
    extension = extensions["decides"]
    with extension.attach_freplace(targets["connects4"], "decide"):
        number, said = refusal(extension, targets["connects6"], "decide")
        assert (number, "loaded for a program of another type" in said) == (errno.EINVAL, True)


@pytest.mark.parametrize(
    ("extension", "main", "before", "after"),
    [
        ("keeps", "keeps_packet", 1, 3),
        ("moves", "keeps_packet", 1, None),
        ("keeps", "moves_packet", 2, 3),
        ("moves", "moves_packet", 2, 4),
    ],
)
def test_fr_15_mains_too_are_replaced_by_what_changes_packets_only_if_they_do(
    targets: Runtime, extensions: Runtime, extension: str, main: str, before: int, after: int | None
) -> None:
    program = targets[main]
    assert run(program) == before
    if after is None:
        number, said = refusal(extensions[extension], program, main)
        assert (number, "changes packet data" in said) == (errno.EINVAL, True)
    else:
        with extensions[extension].attach_freplace(program, main):
            assert run(program) == after
    assert run(program) == before


def test_fr_18_the_deepest_chain_and_the_deepest_extension_run_together(
    targets: Runtime, extensions: Runtime
) -> None:
    program = targets["goes_deep"]
    assert run(program, 10) == 18
    seen: list[int] = []
    with extensions["goes_on"].attach_freplace(program, "deepest"):
        before = threading.stack_size(256 << 10)  # a little stack: 16 frames must not want more
        try:
            thread = threading.Thread(target=lambda: seen.append(run(program, 10)))
            thread.start()
            thread.join()
        finally:
            threading.stack_size(before)
    assert seen == [10 + 7 + 8 * 100]  # negative, were one of the patterns on the stack not there any more
    assert run(program, 10) == 18


@pytest.mark.parametrize(
    ("extension", "number", "why"),
    [
        ("nine_frames", errno.E2BIG, "9 functions deep"),
        ("goes_528", errno.EACCES, "take 528 bytes of stack together"),
    ],
)
def test_fr_18_an_extension_has_8_frames_and_512_bytes_of_its_own(
    targets: Runtime, extensions: Runtime, extension: str, number: int, why: str
) -> None:
    with pytest.raises(bpfc.RejectedError) as caught:
        extensions[extension].set_attach_target(targets["goes_deep"], "deepest")
    assert (caught.value.errno, why in str(caught.value)) == (number, True)


def test_fr_19_a_global_function_is_verified_for_every_argument_of_its_type() -> None:
    (found,) = verdict("gives_pair")
    assert (found.code, found.at.function, found.errno) == ("null-dereference", "reads_pair", errno.EACCES)


def test_fr_19_a_global_function_that_nobody_calls_is_not_looked_at(targets: Runtime) -> None:
    assert verdict("gives_no_pair") == ()
    strict = bpfc.load(OBJECTS / "extended.o")
    with strict.start(bpfc.Options(hardened=False)) as runtime:
        assert run(runtime["gives_no_pair"]) == 4
        with pytest.raises(bpfc.RejectedError):
            runtime["gives_pair"]


def test_fr_19_a_global_function_is_verified_once_however_often_it_is_called() -> None:
    loaded = bpfc.load(OBJECTS / "extended.o")
    program = loaded.programs["calls_mover"]
    once = verify_object(loaded.object, {"once": program})["once"].steps
    insns = list(program.insns)
    calls = [number for number, insn in enumerate(insns) if row_of(insn).callee is Callee.SUBPROGRAM]
    assert len(calls) == 2
    insns[calls[1]] = Insn(MOV64_IMM, imm=1)
    changed = replace(program, insns=tuple(insns))
    assert verify_object(loaded.object, {"single": changed})["single"].steps == once


def test_fr_20_callers_know_nothing_of_a_global_functions_result() -> None:
    (found,) = verdict("relies")
    assert (found.code, found.errno) == ("map-value-out-of-bounds", errno.EACCES)
    assert verdict("rechecks") == ()


def test_fr_21_a_result_that_the_original_never_had_does_no_harm(
    targets: Runtime, extensions: Runtime
) -> None:
    strict = bpfc.load(OBJECTS / "extended.o")
    with strict.start(bpfc.Options(hardened=False)) as runtime:
        assert run(runtime["rechecks"], 23) == 0
        with extensions["answers_1000"].attach_freplace(runtime["rechecks"], "below_ten"):
            assert run(runtime["rechecks"], 23) == 99
            assert list(runtime["rechecks"].run_batch([PACKET])) == [99]


def test_fr_21_an_extension_of_main_answers_what_the_type_allows(
    targets: Runtime, extensions: Runtime
) -> None:
    number, said = refusal(extensions["answers_255"], targets["connects4"], "connects4")
    assert (number, "r0 is 255 at exit, wanted 0..1" in said) == (errno.EINVAL, True)
    with extensions["answers_0"].attach_freplace(targets["connects4"], "connects4"):
        assert targets["connects4"].run().verdict == 0
    assert targets["connects4"].run().verdict == 1
    with extensions["decides"].attach_freplace(targets["connects4"], "decide"):
        assert targets["connects4"].run().verdict == 0
    with extensions["answers_12345"].attach_freplace(targets["classifies"], "classifies"):
        assert targets["classifies"].run(PACKET).verdict == 12345


def test_fr_22_an_extension_shares_the_tail_calls_of_the_run(targets: Runtime, extensions: Runtime) -> None:
    table, turns = extensions.maps["jumps"], extensions.globals
    program, target = extensions["for_ever"], targets["calls_mover"]
    table[0] = program
    with extensions["jumps_on"].attach_freplace(target, "may_move"):
        assert run(target) == 1000 * 5 + 7  # the second call has no tail call left
        assert turns["turns"] == 33
        assert list(target.run_batch([PACKET] * 2)) == [5007, 5007]
        assert turns["turns"] == 3 * 33
        with pytest.raises(bpfc.RejectedError) as caught:
            table[0] = target
        assert caught.value.errno == errno.EBUSY
    table[0] = target
    assert refusal(extensions["jumps_on"], target, "may_move")[0] == errno.EBUSY


def test_arguments_reach_whatever_a_proved_caller_passes(targets: Runtime, extensions: Runtime) -> None:
    """A value of a hash is no memory that a run's checks know; the verifier knows it for both sides."""
    target, couples = targets["adds_value"], targets.maps["couples"]
    couples[1] = {"x": 2, "y": 5}
    assert (run(target, 1), run(target, 2)) == (7, 100)
    with extensions["multiplies"].attach_freplace(target, "adds"):
        assert (run(target, 1), run(target, 2)) == (15, 200)
    assert couples[1] == {"x": 3, "y": 5}
