"""Program extensions: what may be attached where, what excludes what, and when the extension runs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import bpfc
from runtime.epoch import epochs
from tests.extensions import OBJECTS, PACKET, refusal, run

if TYPE_CHECKING:
    from bpfc.running import Runtime


@pytest.fixture
def extensions() -> Iterator[Runtime]:
    with bpfc.load(OBJECTS / "replacements.o").start() as runtime:
        yield runtime


def test_fr_01_the_extension_runs_from_attach_to_detach(targets: Runtime, extensions: Runtime) -> None:
    seen = [run(targets["calls_g"], 130)]
    with extensions["returns_five"].attach_freplace(targets["calls_g"], "g"):
        seen.append(run(targets["calls_g"], 130))
        batch = targets["calls_g"].run_batch([PACKET] * 3, ctx={"ingress_ifindex": 130})
        assert list(batch) == [5, 5, 5]
    seen.append(run(targets["calls_g"], 130))
    assert seen == [8, 5, 8]
    assert extensions.globals["calls"] == 4


@pytest.mark.parametrize(
    ("extension", "program", "function", "why"),
    [
        ("two_arguments", "calls_g", "g", "2 parameters, wanted 1"),
        ("takes_struct", "calls_g", "g", "a pointer, wanted an integer"),
        ("takes_u32", "calls_g", "g", "4 bytes, wanted 8"),
        ("takes_other", "calls_many", "takes_pair", "struct other, wanted struct pair"),
    ],
)
def test_fr_02_mismatched_signatures_are_refused(
    targets: Runtime, extensions: Runtime, extension: str, program: str, function: str, why: str
) -> None:
    number, said = refusal(extensions[extension], targets[program], function)
    assert number == errno.EINVAL
    assert why in said


def test_fr_02_another_size_of_result_is_accepted_with_a_warning(
    targets: Runtime, extensions: Runtime
) -> None:
    extension = extensions["returns_u32"]
    with extension.attach_freplace(targets["calls_g"], "g"):
        assert targets["calls_g"].run(PACKET).ret == 0xFFFF_FFFF
    assert [warning.code for warning in extension.warnings] == ["result-size"]


def test_fr_03_only_global_functions_and_mains_of_the_right_type(
    targets: Runtime, extensions: Runtime
) -> None:
    assert refusal(extensions["hidden_replaced"], targets["calls_many"], "hidden")[0] == errno.EINVAL
    assert refusal(extensions["whole_program"], targets["wrong_context"], "wrong_context")[0] == errno.EINVAL
    with extensions["whole_program"].attach_freplace(targets["calls_g"], "calls_g"):
        assert run(targets["calls_g"], 130) == 1
        assert list(targets["calls_g"].run_batch([PACKET] * 2)) == [1, 1]


def test_fr_04_extensions_and_tracers_are_no_targets_but_extensions_can_be_traced(
    targets: Runtime, extensions: Runtime, tracers: Runtime
) -> None:
    number, said = refusal(extensions["returns_six"], extensions["returns_five"], "returns_five")
    assert (number, "is an extension itself" in said) == (errno.EINVAL, True)
    number, said = refusal(extensions["returns_six"], tracers["on_entry"], "on_entry")
    assert (number, "is a tracing program" in said) == (errno.EINVAL, True)
    with (
        extensions["returns_five"].attach_freplace(targets["calls_g"], "g") as link,
        tracers["all_at_entry"].attach_fentry(link),
    ):
        assert [run(targets["calls_g"], 130) for _ in range(3)] == [5, 5, 5]
        seen = tracers.globals["slots"]
        assert isinstance(seen, list | tuple), seen
        assert (tracers.globals["entries"], seen[0]) == (3, 130)


def test_fr_05_one_extension_a_function_but_several_a_program(targets: Runtime, extensions: Runtime) -> None:
    both = targets["calls_f_and_g"]
    with extensions["returns_five"].attach_freplace(both, "g"):
        assert refusal(extensions["returns_six"], both, "g")[0] == errno.EBUSY
        with extensions["difference"].attach_freplace(both, "f"):
            assert run(both, 9, 0) == 805
        assert run(both, 9, 0) == 1005


def test_fr_06_tracing_and_extending_exclude_each_other(
    targets: Runtime, extensions: Runtime, tracers: Runtime
) -> None:
    target = targets["calls_g"]
    with tracers["all_at_entry"].attach_fentry(target, "g"):
        assert refusal(extensions["returns_five"], target, "g")[0] == errno.EBUSY
    with extensions["returns_five"].attach_freplace(target, "g"):
        with pytest.raises(bpfc.RejectedError) as caught:
            tracers["all_at_entry"].attach_fentry(target, "g")
        assert caught.value.errno == errno.EBUSY
        assert run(target, 130) == 5
    with tracers["all_at_entry"].attach_fentry(target, "g"):
        assert run(target, 130) == 8
    assert tracers.globals["entries"] == 1


def test_fr_07_helpers_are_those_of_the_target(targets: Runtime, extensions: Runtime) -> None:
    with extensions["moves_too"].attach_freplace(targets["calls_many"], "moves"):
        assert run(targets["calls_many"], 1, 0) // 10000 == 3
    assert refusal(extensions["uses_skb_helper"], targets["calls_many"], "takes_context")[0] == errno.EINVAL


def test_fr_08_the_context_is_the_targets(targets: Runtime, extensions: Runtime) -> None:
    with extensions["reads_context"].attach_freplace(targets["calls_many"], "takes_context"):
        assert run(targets["calls_many"], 0, 5) == 100 * PACKET[0] + 2
    assert refusal(extensions["beyond_context"], targets["calls_many"], "takes_context")[0] == errno.EACCES


def test_fr_10_both_target_and_function_or_neither(targets: Runtime, extensions: Runtime) -> None:
    extension = extensions["returns_five"]
    for arguments in ((targets["calls_g"], None), (None, "g")):
        with pytest.raises(bpfc.RejectedError) as caught:
            extension.attach_freplace(*arguments)
        assert caught.value.errno == errno.EINVAL
    with bpfc.load(OBJECTS / "hooked.o").start() as other:
        closed = other["calls_g"]
    assert refusal(extension, closed, "g")[0] == errno.EBADF


def test_fr_11_a_function_eliminated_as_dead_code_is_no_target(targets: Runtime, extensions: Runtime) -> None:
    number, said = refusal(extensions["sibling_replaced"], targets["calls_siblings"], "eliminated")
    assert (number, "'eliminated'" in said) == (errno.EINVAL, True)
    with extensions["sibling_replaced"].attach_freplace(targets["calls_siblings"], "sibling"):
        assert run(targets["calls_siblings"], 2) == 2000


def test_fr_12_one_extension_in_two_programs(targets: Runtime, extensions: Runtime) -> None:
    with bpfc.load(OBJECTS / "hooked.o").start() as other:
        extension = extensions["returns_five"]
        extension.set_attach_target(targets["calls_g"], "g")
        first = extension.attach_freplace()
        with extension.attach_freplace(other["calls_g"], "g"):
            assert (run(targets["calls_g"], 130), run(other["calls_g"], 130)) == (5, 5)
            first.close()
            assert (run(targets["calls_g"], 130), run(other["calls_g"], 130)) == (8, 5)


def test_fr_13_attaching_again_wants_a_target(targets: Runtime, extensions: Runtime) -> None:
    extension = extensions["returns_five"]
    extension.set_attach_target(targets["calls_g"], "g")
    extension.attach_freplace().close()
    with pytest.raises(bpfc.RejectedError) as caught:
        extension.attach_freplace()
    assert caught.value.errno == errno.EINVAL
    with extension.attach_freplace(targets["calls_g"], "g"):
        assert run(targets["calls_g"], 130) == 5


def test_fr_14_a_second_target_is_of_the_same_type(targets: Runtime, extensions: Runtime) -> None:
    extension = extensions["returns_five"]
    with extension.attach_freplace(targets["calls_g"], "g"):
        assert refusal(extension, targets["classifies"], "g")[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("extension", "function", "is_fine"),
    [
        ("reads_context", "takes_context", True),
        ("moves_head", "takes_context", False),
        ("stays", "moves", True),
        ("moves_too", "moves", True),
    ],
)
def test_fr_15_only_what_changes_packets_may_be_replaced_by_what_does(
    targets: Runtime, extensions: Runtime, extension: str, function: str, is_fine: bool
) -> None:
    if is_fine:
        extensions[extension].attach_freplace(targets["calls_many"], function).close()
    else:
        number, said = refusal(extensions[extension], targets["calls_many"], function)
        assert (number, "changes packet data" in said) == (errno.EINVAL, True)


def test_fr_16_extensions_and_tail_call_tables(targets: Runtime, extensions: Runtime) -> None:
    table = targets.maps["jumps"]
    extension, target = extensions["returns_five"], targets["calls_g"]
    with pytest.raises(bpfc.RejectedError) as caught:
        table[0] = extension
    assert caught.value.errno == errno.EINVAL
    with extension.attach_freplace(target, "g"):
        with pytest.raises(bpfc.RejectedError) as caught:
            table[0] = target
        assert caught.value.errno == errno.EBUSY
    table[0] = target
    assert refusal(extension, target, "g")[0] == errno.EBUSY
    del table[0]
    with extension.attach_freplace(target, "g"):
        assert run(target, 130) == 5
    table[0] = target
    assert run(targets["jumps_on"], 130) == 8


def test_fr_17_a_program_stays_extended_until_the_last_detach(targets: Runtime, extensions: Runtime) -> None:
    both, table = targets["calls_f_and_g"], targets.maps["jumps"]
    first = extensions["returns_five"].attach_freplace(both, "g")
    with extensions["difference"].attach_freplace(both, "f"):
        first.close()
        with pytest.raises(bpfc.RejectedError) as caught:
            table[0] = both
        assert caught.value.errno == errno.EBUSY
    table[0] = both
    assert run(targets["jumps_on"], 9, 5) == 1005


def test_fr_21_callers_do_not_rely_on_what_the_original_returned(
    targets: Runtime, extensions: Runtime
) -> None:
    with extensions["product"].attach_freplace(targets["calls_many"], "takes_pair"):
        assert run(targets["calls_many"], 21, 0) % 100 == (42 + 3 * 21) % 100
    with extensions["returns_five"].attach_freplace(targets["classifies"], "g"):
        assert targets["classifies"].run(PACKET).verdict == 5


def test_freplace_links_say_what_they_are(targets: Runtime, extensions: Runtime) -> None:
    link = bpfc.attach(extensions["returns_five"], targets["calls_g"])
    assert repr(link) == "<freplace link of returns_five to calls_g:g>"
    link.close()
    link.close()
    assert repr(link) == "<freplace link of returns_five to calls_g:g, detached>"


def test_objects_live_as_long_as_their_links(extensions: Runtime) -> None:
    runtime = bpfc.load(OBJECTS / "hooked.o").start()
    target = runtime["calls_g"]
    link = extensions["returns_five"].attach_freplace(target, "g")
    runtime.close()
    assert run(target, 130) == 5
    link.close()
    epochs().drain(5)
    assert not target.image.block.is_open


def test_an_attached_extension_is_not_unloaded(targets: Runtime, extensions: Runtime) -> None:
    with extensions["returns_five"].attach_freplace(targets["calls_g"], "g"):
        with pytest.raises(bpfc.RejectedError) as caught:
            extensions.unload("returns_five")
        assert caught.value.errno == errno.EBUSY
        assert run(targets["calls_g"], 130) == 5
    extensions.unload("returns_five")
    epochs().drain(5)
    with extensions["returns_five"].attach_freplace(targets["calls_g"], "g"):
        assert run(targets["calls_g"], 130) == 5


def test_an_extension_can_be_traced_before_it_is_attached(
    targets: Runtime, extensions: Runtime, tracers: Runtime
) -> None:
    extension = extensions["returns_five"]
    extension.set_attach_target(targets["calls_g"], "g")
    with tracers["all_at_entry"].attach_fentry(extension), extension.attach_freplace():
        assert [run(targets["calls_g"], 130) for _ in range(3)] == [5, 5, 5]
    assert tracers.globals["entries"] == 3


def test_an_object_is_attached_at_its_start_as_its_sections_say(targets: Runtime) -> None:
    source = bpfc.load(OBJECTS / "extending.o")
    only = {name: program for name, program in source.programs.items() if name == "answers_1000"}
    source.object = replace(source.object, programs=only)
    with bpfc.load(OBJECTS / "extended.o").start() as others:
        target = others["rechecks"]
        with source.start(replaces=target) as extensions:
            assert [repr(link) for link in extensions.links] == [
                "<freplace link of answers_1000 to rechecks:below_ten>"
            ]
            assert run(target, 3) == 99
        assert run(target, 3) == 0
        with pytest.raises(bpfc.RejectedError) as caught:
            source.start(replaces=targets["calls_g"])
        assert "has no function 'below_ten'" in str(caught.value)


def test_a_program_lets_itself_be_replaced_in(targets: Runtime, extensions: Runtime) -> None:
    target = targets["calls_g"]
    with target.replace("g", extensions["returns_five"]):
        assert run(target, 130) == 5


def test_an_extension_takes_the_place_of_another_without_a_call_in_between(
    targets: Runtime, extensions: Runtime
) -> None:
    target = targets["calls_g"]
    first = target.replace("g", extensions["returns_five"])
    stores = target.hooks.space.patcher.stores
    second = target.replace("g", extensions["returns_six"], instead_of=first)
    assert target.hooks.space.patcher.stores - stores <= 1  # none where the way is through a veneer
    assert (first.is_attached, second.is_attached, run(target, 130)) == (False, True, 6)
    first.close()
    assert run(target, 130) == 6
    with pytest.raises(bpfc.RejectedError) as caught:
        target.replace("g", extensions["returns_five"], instead_of=first)
    assert (caught.value.errno, "is not what replaces 'g'" in str(caught.value)) == (errno.EINVAL, True)
    second.close()
    assert (run(target, 130), target.hooks.extended) == (8, 0)


@pytest.mark.parametrize(
    ("extension", "program", "function", "remedy"),
    [
        ("takes_u32", "calls_g", "g", "wanted: long takes_u32(long v)"),
        ("hidden_replaced", "calls_many", "hidden", "define it without `static`"),
        ("returns_five", "calls_g", "h", "functions that can be replaced: g, calls_g"),
        ("sibling_replaced", "calls_siblings", "eliminated", "set the constants"),
        ("whole_program", "wrong_context", "wrong_context", "declare its parameter as struct xdp_md *"),
        ("moves_head", "calls_many", "takes_context", "let 'takes_context' call such a helper"),
    ],
)
def test_refusals_say_what_would_help(
    targets: Runtime, extensions: Runtime, extension: str, program: str, function: str, remedy: str
) -> None:
    number, said = refusal(extensions[extension], targets[program], function)
    assert number == errno.EINVAL
    assert said.startswith(str(OBJECTS / "replacements."))
    assert remedy in said


def test_what_was_compiled_for_nobody_to_replace_says_so(extensions: Runtime) -> None:
    with bpfc.load(OBJECTS / "hooked.o").start(bpfc.Options(extensible=False)) as runtime:
        assert run(runtime["calls_g"], 130) == 8
        number, said = refusal(extensions["returns_five"], runtime["calls_g"], "g")
        assert (number, "start it without Options(extensible=False)" in said) == (errno.EINVAL, True)
