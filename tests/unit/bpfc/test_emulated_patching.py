"""Code that changes on emulated machines: several objects on one, keys and hooks in the middle of a run."""

from __future__ import annotations

import ctypes
import errno
import gc
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bpfc
from backends.object_reader import parse_object
from backends.registry import target_named
from backends.target import Pairs
from bpfc.aot import find_compiler
from bpfc.loaded import Loaded
from ir.function_model import Model, Value
from runtime.epoch import epochs
from runtime.linker import LinkedImage, link
from runtime.native_entry import NativeFunction, function_at_pointer
from runtime.platform import Platform
from runtime.publish import Mode
from runtime.words import word_type
from tests.engines import EMULATED, require_emulator
from tests.native import compile_text

OBJECTS = Path(__file__).parents[2] / "objects"
PACKET = bytes(64)
ASKS = "r6 = 0\n" + "nop_or_goto +1\ngoto +1\nr6 += 1\ncall 5\n" * 3 + "r0 = r6\nexit"


@pytest.fixture(params=EMULATED)
def machine(request: pytest.FixtureRequest) -> Iterator[Platform]:
    require_emulator(request.param)
    with bpfc.emulate(request.param) as machine:
        yield machine


def load(name: str, machine: Platform) -> Loaded:
    return bpfc.load(OBJECTS / f"{name}.{'eb.o' if machine.target.byte_order == 'big' else 'o'}")


def test_changed_code_is_published_by_telling_the_emulator(machine: Platform) -> None:
    assert machine.space.patcher.publisher.mode is Mode.REMAP


def test_a_key_is_switched_in_the_middle_of_a_run(machine: Platform) -> None:
    is_big = machine.target.byte_order == "big"
    loaded = bpfc.assemble(ASKS, keys={"key": [1, 5, 9]}, big_endian=is_big)
    states = iter([True, False, True] * 2)
    with loaded.start(target=machine) as runtime:
        runtime.helpers["bpf_ktime_get_ns"] = lambda: runtime.static_keys["key"].switch(next(states))
        seen = [runtime["main"].run(b"").ret for _ in range(2)]
    assert seen == [1, 2]  # off, on, off; then on, on, off


def test_programs_of_two_objects_meet_on_one_machine(machine: Platform) -> None:
    with load("hooked", machine).start(target=machine) as targets:
        program = targets["calls_f"]
        with load("tracers", machine).start(target=machine) as tracers:
            with tracers["on_exit"].attach_fexit(program, "f"):
                for _ in range(3):
                    assert program.run(PACKET, {"ingress_ifindex": 2, "rx_queue_index": 3}).verdict == 5
            assert (tracers.globals["exits"], tracers.globals["result"]) == (3, 5)
        assert program.run(PACKET, {"ingress_ifindex": 4, "rx_queue_index": 3}).verdict == 7
    epochs().drain(5)


def test_programs_of_two_machines_are_not_attached_to_each_other(machine: Platform) -> None:
    with (
        load("hooked", machine).start(target=machine.target.name) as targets,
        load("tracers", machine).start(target=machine) as tracers,
        load("replacements", machine).start(target=machine) as extensions,
    ):
        for attach in (
            lambda: tracers["on_entry"].attach_fentry(targets["calls_f"], "f"),
            lambda: extensions["returns_five"].attach_freplace(targets["calls_g"], "g"),
        ):
            with pytest.raises(bpfc.RejectedError) as caught:
                attach()
            assert (caught.value.errno, caught.value.diagnostics[0].code) == (
                errno.EINVAL,
                "other-machine",
            )


def test_a_machine_gets_back_what_objects_used(machine: Platform) -> None:
    def use() -> None:
        with load("hooked", machine).start(target=machine) as runtime:
            assert runtime["calls_f"].run(PACKET, {"ingress_ifindex": 2}).verdict == 2
        del runtime
        epochs().drain(5)
        gc.collect()  # threads' memory goes with the objects of a cycle

    use()
    before = machine.pool.code.take(1 << 20), machine.pool.data.take(1 << 20)
    for start, pool in zip(before, (machine.pool.code, machine.pool.data), strict=True):
        assert start is not None
        pool.give(start, 1 << 20)
    for _ in range(20):
        use()
    assert (machine.pool.code.take(1 << 20), machine.pool.data.take(1 << 20)) == before


def test_a_program_runs_another_from_a_helper(machine: Platform) -> None:
    is_big = machine.target.byte_order == "big"
    outer = bpfc.assemble("r6 = 40\ncall 5\nr0 += r6\nexit", big_endian=is_big)
    inner = bpfc.assemble("r0 = 2\nexit", big_endian=is_big)
    with outer.start(target=machine) as first, inner.start(target=machine) as second:
        first.helpers["bpf_ktime_get_ns"] = lambda: second["main"].run(b"").ret
        assert first["main"].run(b"").ret == 42


STRAY = "define i64 @stray() {\n  %x = load volatile i64, ptr inttoptr (i64 4096 to ptr)\n  ret i64 %x\n}"


@pytest.mark.parametrize("name", EMULATED)
def test_a_stray_access_is_a_diagnostic(name: str) -> None:
    require_emulator(name)
    with bpfc.emulate(name) as machine, link(compile_text(STRAY, machine.target), {}, machine.pool) as image:
        with pytest.raises(bpfc.TrapError) as caught:
            machine.function(image.address_of("stray"))()
        assert caught.value.diagnostics[0].code == "emulation-failed"


@pytest.mark.parametrize("name", EMULATED)
def test_poison_is_a_diagnostic(name: str) -> None:
    require_emulator(name)
    with bpfc.emulate(name) as machine:
        image = link(compile_text(STRAY, machine.target), {}, machine.pool)
        run = machine.function(image.address_of("stray"))
        image.close()
        with pytest.raises(bpfc.TrapError) as caught:
            run()
        assert caught.value.diagnostics[0].code == "emulation-failed"


@pytest.mark.parametrize("name", EMULATED)
def test_a_closed_machine_says_so(name: str) -> None:
    require_emulator(name)
    with bpfc.emulate(name) as machine:
        run = machine.function(machine.pool.address)
    with pytest.raises(bpfc.UnsupportedError) as caught:
        run()
    assert (caught.value.diagnostics[0].code, caught.value.errno) == ("closed", errno.EBADF)


MODIFY = """
define i64 @modify(i64 %a, ptr %p) {
  store i64 1, ptr %p
  %sum = add i64 %a, 3
  ret i64 %sum
}
"""
U64 = Value(8)


def native(
    machine: Platform, image: LinkedImage, name: str, arguments: int
) -> tuple[NativeFunction, Callable[..., int]]:
    """A native function of the machine that is called through a pointer, and what calls it so."""
    place = machine.allocate(8)
    word = word_type(machine.target.byte_order).from_buffer(place)
    word.value = image.address_of(name)
    model = Model((U64, Value(machine.target.word))[:arguments], U64)
    function = function_at_pointer(name, ctypes.addressof(place), model, True, machine.space)
    kinds = (ctypes.c_uint64, ctypes.c_void_p)[:arguments]
    return function, lambda *given: machine.function(word.value, *kinds)(*given)


@pytest.mark.parametrize(("answer", "result", "effect"), [(0, 33, 1), (-22, 2**64 - 22, 0)])
def test_native_functions_of_a_machine_are_hooked(
    machine: Platform, answer: int, result: int, effect: int
) -> None:
    place = machine.allocate(8)
    seen = word_type(machine.target.byte_order).from_buffer(place)
    with (
        link(compile_text(MODIFY, machine.target), {}, machine.pool) as image,
        load("tracers", machine).start(target=machine) as tracers,
    ):
        target, call = native(machine, image, "modify", 2)
        tracers.globals["answer"] = answer
        with (
            tracers["before_override"].attach_fentry(target),
            tracers["override"].attach_fmod_ret(target),
            tracers["after_override"].attach_fexit(target),
        ):
            assert call(30, ctypes.addressof(place)) == result
        assert (tracers.globals["order"], tracers.globals["result"], seen.value) == (123, result, effect)
        seen.value = 0
        assert (call(30, ctypes.addressof(place)), seen.value) == (33, 1)
    epochs().drain(5)


WITH_PAIRS = [name for name in EMULATED if target_named(name).calling.pairs is not Pairs.UNKNOWN]
OPTIONS = {
    "x86_64": ["-fcf-protection=none"],
    "s390x": ["-msoft-float"],
}  # Unicorn has half of its float registers off
STRUCTURES = """
struct pair { long a, b; };
struct odd { long a; int b; };
typedef long (*function)(struct pair, long, struct odd, struct pair, long, struct pair, struct pair);
long structures(struct pair p, long x, struct odd o, struct pair q, long y, struct pair r, struct pair s)
{
	long sum = p.a + 10 * p.b + 100 * x + 1000 * o.a + 10000 * o.b + 100000 * q.a + 1000000 * q.b;
	volatile struct pair *mine = &s; /* a parameter is the callee's to change */
	sum += y * 10000000 + r.a * 100000000 + r.b * 1000000000 + s.a * 10000000000 + s.b * 100000000000;
	mine->a = mine->b = 77;
	return sum;
}
long caller(function *slot)
{
	struct pair p = { 1, 2 }, q = { 6, 7 }, r = { 9, 1 }, s = { 2, 3 };
	struct odd o = { 4, 5 };
	return (*slot)(p, 3, o, q, 8, r, s);
}
"""


@pytest.mark.parametrize("machine", WITH_PAIRS, indirect=True)
def test_structures_of_two_words_travel_as_c_has_them(machine: Platform, tmp_path: Path) -> None:
    """Called by and calling what the machine's own C compiler made: in registers, in memory, and half in each."""
    compiler = find_compiler(machine.target)
    if compiler is None:
        pytest.skip(f"no C compiler for {machine.target.name} is installed")
    (tmp_path / "s.c").write_text(STRUCTURES)
    options = ["-O1", "-fno-pic", *OPTIONS.get(machine.target.name, ())]
    command = [*compiler, *options, "-c", str(tmp_path / "s.c"), "-o", str(tmp_path / "s.o")]
    subprocess.run(command, check=True)
    code = parse_object((tmp_path / "s.o").read_bytes(), machine.target)
    model = Model(
        (
            *(Value(16, is_struct=True), U64, Value(12, is_struct=True), Value(16, is_struct=True), U64),
            *(Value(16, is_struct=True), Value(16, is_struct=True)),
        ),
        U64,
    )
    with (
        link(code, machine.external, machine.pool) as image,
        load("tracers", machine).start(target=machine) as tracers,
    ):
        place = machine.allocate(8)
        word_type(machine.target.byte_order).from_buffer(place).value = image.address_of("structures")
        target = function_at_pointer("structures", ctypes.addressof(place), model, space=machine.space)
        call = machine.function(image.address_of("caller"), ctypes.c_void_p)
        plain = call(ctypes.addressof(place))
        assert plain == 321987654321
        for attach in (tracers["all_slots"].attach_fexit, tracers["all_at_entry"].attach_fentry):
            tracers.globals["slots"] = [0] * 12
            with attach(target):
                assert call(ctypes.addressof(place)) == plain
            assert list(tracers.globals["slots"])[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]  # type: ignore[call-overload]  # an array
    epochs().drain(5)


def test_a_structure_of_two_words_is_refused_where_its_way_is_not_known(machine: Platform) -> None:
    with (
        link(compile_text(MODIFY, machine.target), {}, machine.pool) as image,
        load("tracers", machine).start(target=machine) as tracers,
    ):
        place = machine.allocate(8)
        word_type(machine.target.byte_order).from_buffer(place).value = image.address_of("modify")
        model = Model((Value(16, is_struct=True),), U64)
        target = function_at_pointer("modify", ctypes.addressof(place), model, space=machine.space)
        if machine.target.calling.pairs is not Pairs.UNKNOWN:
            tracers["all_at_entry"].attach_fentry(target).close()
            return
        with pytest.raises(bpfc.RejectedError) as caught:
            tracers["all_at_entry"].attach_fentry(target)
        assert (caught.value.errno, caught.value.diagnostics[0].code) == (errno.EOPNOTSUPP, "wide-argument")
