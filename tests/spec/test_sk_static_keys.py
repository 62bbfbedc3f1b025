"""Acceptance cases of static keys: SK-01 to SK-22."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import bpfc
from backends.targets import riscv64
from backends.targets.riscv64 import RISCV64
from bpfc import Loaded, Options, RejectedError, UnsupportedError
from bpfc.cli.listings import list_xlated
from bpfc.cli.native import disassemble
from bpfc.insn_sets import track, transformed
from bpfc.running_program import RunningProgram
from ir.asm import assemble as parse
from ir.asm import format_insn
from ir.bytecode import rewrite
from ir.diagnostics import DiagnosticError
from ir.encoding import decode, encode
from ir.isa import ROW_BY_NAME, Insn
from ir.kinds import MapType
from ir.object import Map, Program
from ir.passes.remove_nops import remove_nops
from runtime.insn_set import DELETED, Entry, InsnSet
from runtime.linker import LinkedImage
from runtime.static_keys import State
from tests.engines import require_emulator

OBJECT = Path(__file__).parent.parent / "objects" / "static_keys.o"
PACKET = bytes(64)
OFF_OR_ON = "r0 = 3\nnop_or_goto +1\nexit\nr0 = 7\nexit"
FORMS = {
    "goto_or_nop": "05100500 00000000",
    "nop_or_goto": "05300500 00000000",
    "gotol_or_nop": "06100000 05000000",
    "nop_or_gotol": "06300000 05000000",
}


def compile_all(loaded: Loaded) -> None:
    with loaded.start() as runtime:
        for name in loaded.programs:
            assert runtime[name]


def refusal(load: Callable[[], Loaded]) -> DiagnosticError:
    with pytest.raises(DiagnosticError) as caught:
        compile_all(load())
    return caught.value


def with_first(insn: bytes) -> bytes:
    """Five instructions, of which the first is `insn`."""
    return insn + encode(parse("r0 = 1\nr0 = 2\nr0 = 3\nexit"))


def changed_bytes(image: LinkedImage, before: bytes) -> set[int]:
    after = image.block.read()
    return {at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def site_bytes(running: RunningProgram, key: str) -> set[int]:
    starts = [point.address - running.image.address for point in running.keys[key].sites]
    length = running.image.target.patching.length
    return {start + byte for start in starts for byte in range(length)}


@pytest.mark.parametrize("name", FORMS)
def test_sk_01_each_form_is_accepted_and_printed_with_its_signed_distance(name: str) -> None:
    (insn,) = decode(bytes.fromhex(FORMS[name]))
    assert format_insn(insn) == f"{name} +5"
    text = f"r0 = 0\n{name} +1\nr0 = 1\nr0 += 1\nif r0 > 3 goto +1\n{name} -3\nexit"
    loaded = bpfc.assemble(text)
    assert "\n".join(format_insn(insn) for insn in loaded.program("main").insns) == text
    compile_all(loaded)


@pytest.mark.no_code
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bits", [4, 8])
def test_sk_02_other_source_bits_are_refused_at_that_insn(name: str, bits: int) -> None:
    bad = bytearray(bytes.fromhex(FORMS[name]))
    bad[1] |= bits << 4
    error = refusal(lambda: bpfc.from_bytes(encode(parse("r0 = 1")) + bytes(bad) + encode(parse("exit"))))
    assert (error.errno, error.diagnostics[0].at.insn) == (errno.EINVAL, 1)


@pytest.mark.no_code
@pytest.mark.parametrize("opcode", [0x05, 0x06])
def test_sk_03_the_nop_flag_alone_is_refused(opcode: int) -> None:
    error = refusal(lambda: bpfc.from_bytes(with_first(bytes([opcode, 0x20, 0, 0, 0, 0, 0, 0]))))
    assert error.errno == errno.EINVAL


@pytest.mark.no_code
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("change", [{"dst": dst} for dst in (1, 2, 3, 4)] + [{"other": 1}])
def test_sk_04_reserved_fields_are_refused(name: str, change: dict[str, int]) -> None:
    row = ROW_BY_NAME[name]
    assert isinstance(row.src, int)
    is_far = "gotol" in name
    if "other" in change:
        change = {"offset" if is_far else "imm": 1}
    insn = Insn(row.opcode, src=row.src, **{"imm" if is_far else "offset": 1})
    assert (
        refusal(lambda: bpfc.from_bytes(with_first(encode((insn._replace(**change),))))).errno == errno.EINVAL
    )
    misplaced = Insn(row.opcode, src=row.src, **{"offset" if is_far else "imm": 1})
    assert refusal(lambda: bpfc.from_bytes(with_first(encode((misplaced,))))).errno == errno.EINVAL


@pytest.mark.no_code
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("distance", [-2, 42])
def test_sk_05_targets_outside_the_program_are_refused(name: str, distance: int) -> None:
    error = refusal(lambda: bpfc.assemble(f"{name} {distance:+}\nr0 = 1\nr0 = 2\nr0 = 3\nexit"))
    assert (error.errno, error.diagnostics[0].at.insn) == (errno.EINVAL, 0)


@pytest.mark.no_code
@pytest.mark.parametrize(
    "text",
    [
        "nop_or_goto +2\nr0 = 0\nexit\nr0 = r3\nexit",
        "goto_or_nop +2\nr0 = r3\nexit\nr0 = 0\nexit",
    ],
    ids=["the jump's side", "the nop's side"],
)
def test_sk_06_the_side_that_is_not_taken_at_first_is_verified_too(text: str) -> None:
    error = refusal(lambda: bpfc.assemble(text))
    assert error.diagnostics[0].code == "uninitialized-register"
    assert error.diagnostics[0].at.insn in (1, 3)


@pytest.mark.parametrize("name", ["unlikely", "likely"])
@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_sk_07_off_on_off_for_the_likely_and_the_unlikely_macro(name: str, level: str) -> None:
    with bpfc.load(OBJECT).start(Options(level=level)) as runtime:
        key, program = runtime.static_keys["debug"], runtime[name]
        seen = [program.run(PACKET).ret]
        key.enable()
        seen.append(program.run(PACKET).ret)
        assert list(program.run_batch([PACKET] * 20)) == [7] * 20
        key.disable()
        seen.append(program.run(PACKET).ret)
        assert list(program.run_batch([PACKET] * 20)) == [3] * 20
    assert seen == [3, 7, 3]


def test_sk_08_one_key_at_three_sites_adds_9_off_and_21_on() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        program = runtime["three_sites"]
        assert program.run(PACKET).ret == 9
        runtime.static_keys["debug"].enable()
        assert program.run(PACKET).ret == 21


def test_sk_09_two_keys_with_three_sites_each_in_any_order() -> None:
    text = "r0 = 0\n" + "nop_or_goto +1\ngoto +1\nr0 += 1\nnop_or_goto +1\ngoto +1\nr0 += 10\n" * 3 + "exit"
    keys = {"k5": [1, 7, 13], "k6": [4, 10, 16]}
    expected = {(False, False): 0, (True, False): 3, (False, True): 30, (True, True): 33}
    with bpfc.assemble(text, keys=keys).start() as runtime:
        program, live = runtime["main"], runtime.static_keys
        for k5, k6 in [*expected, *reversed(expected), *list(expected)[::2], *list(expected)[1::2]]:
            live["k6"].switch(k6)
            live["k5"].switch(k5)
            assert program.run(PACKET).ret == expected[k5, k6]


def far_branch(form: str, padding: int) -> tuple[tuple[Insn, ...], int]:
    """A static branch over much code, `padding` of it wide instructions that leave none; and its distance in slots."""
    row, rounds = ROW_BY_NAME[form], 2500
    assert isinstance(row.src, int)
    distance = 4 * rounds + 2 * padding + 3
    branch = Insn(row.opcode, src=row.src)._replace(**{"imm" if padding else "offset": distance})
    steps = [
        insn
        for number in range(rounds)
        for insn in (*parse("r6 *= r2"), Insn(0x18, 3, imm=number << 40 | 0x1234_5678), *parse("r6 ^= r3"))
    ]
    steps += parse("r4 = 0 ll") * padding
    end = parse("r0 = 1000\nr0 += r6\nexit\nr0 = 2000\nr0 += r6\nexit")
    return (*parse("r6 = r2"), branch, *steps, *end), distance


@pytest.mark.no_code
@pytest.mark.parametrize("form", ["nop_or_goto", "goto_or_nop"])
def test_sk_10_beyond_a_jumps_reach_riscv64_has_a_pair_and_says_so(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """As if its jumps reached 16 KiB, not 1 MiB: so much code takes minutes to compile."""
    require_emulator("riscv64")
    pytest.importorskip("capstone")
    patching = replace(RISCV64.patching, near_low=-(1 << 14), near_high=1 << 14)
    monkeypatch.setattr(riscv64, "RISCV64", replace(RISCV64, patching=patching))
    insns, _ = far_branch(form, 0)
    with (
        bpfc.emulate("riscv64") as machine,
        bpfc.from_insns(insns, keys={"key": [1]}).start(
            Options(level="O1", cache=False), target=machine
        ) as runtime,
    ):
        program, key = runtime["main"], runtime.static_keys["key"]
        (point,) = program.branches.points(1)
        assert point.site.target_offset - point.site.offset > 1 << 14
        (said,) = [line for line in disassemble(program.compiled.code, {1: "key"}) if "of key key" in line]
        assert said.endswith("by a pair with the instruction before it")
        before = program.image.block.read()
        off = program.run(b"").ret
        key.enable()
        on = program.run(b"").ret
        assert ([off == 2000, on == 2000]) == ([False, True] if form == "nop_or_goto" else [True, False])
        after = program.image.block.read()
        changed = {at // 4 * 4 for at, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        assert changed == {point.address - program.image.address}  # the second of the two, alone
        key.disable()
        assert (program.run(b"").ret, program.image.block.read()) == (off, before)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "padding"), [("nop_or_goto", 0), ("nop_or_gotol", 13_000)])
def test_sk_10_far_targets_in_native_code_and_in_bytecode(form: str, padding: int) -> None:
    insns, distance = far_branch(form, padding)
    with bpfc.from_insns(insns, keys={"key": [1]}).start(Options(level="O1")) as runtime:
        program = runtime["main"]
        reach = [point.site.target_offset - point.site.offset for point in program.branches.points(1)]
        if runtime.world.platform.target.flags is None:
            assert max(reach) > 32_767
        else:  # the site is a word, and the branch that tests it reaches as far as it has to
            assert reach == [0]
        assert distance > 32_767 or not padding
        off = program.run(b"").ret
        runtime.static_keys["key"].enable()
        assert (off != 2000, program.run(b"").ret) == (True, 2000)
        runtime.static_keys["key"].disable()
        assert program.run(b"").ret == off


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_sk_11_branches_of_main_and_of_a_subprogram_follow_their_keys(level: str) -> None:
    with bpfc.load(OBJECT).start(Options(level=level)) as runtime:
        program = runtime["with_callee"]
        runs = []
        for debug, trace in ((False, False), (True, False), (False, True), (True, True)):
            runtime.static_keys["debug"].switch(debug)
            runtime.static_keys["trace"].switch(trace)
            runs.append(program.run(PACKET, {"ingress_ifindex": 5}).ret)
        assert runs == [5, 10105, 1005, 11105]
        main, callee = program.program.functions
        assert program.program.name == main.name
        slots = {key: program.keys[key].slots for key in ("debug", "trace")}
        assert slots == {"debug": (2, callee.start + 1), "trace": (callee.start + 2,)}


def test_sk_12_programs_share_a_key_and_can_differ_in_it() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        first, second, key = runtime["unlikely"], runtime["likely"], runtime.static_keys["debug"]

        def results() -> list[int]:
            return [program.run(PACKET).ret for program in (first, second)]

        key.enable()
        assert results() == [7, 7]
        second.keys["debug"].disable()
        assert results() == [7, 3]
        assert (key.state, key.enabled, State.MIXED.value) == (State.MIXED, None, "mixed")
        assert (first.keys["debug"].enabled, second.keys["debug"].enabled) == (True, False)
        key.disable()
        assert (results(), key.state) == ([3, 3], State.OFF)


def test_sk_13_enabling_twice_changes_nothing_the_second_time() -> None:
    with bpfc.load(OBJECT).start() as runtime:
        program, key = runtime["three_sites"], runtime.static_keys["debug"]
        key.enable()
        patcher = runtime.world.space.patcher
        stores, code = patcher.stores, program.image.block.read()
        key.enable()
        assert (patcher.stores, program.image.block.read()) == (stores, code)


def test_sk_14_toggling_changes_site_bytes_and_no_dump_of_instructions() -> None:
    loaded = bpfc.load(OBJECT)
    with loaded.start() as runtime:
        program = runtime["three_sites"]
        before, text = program.image.block.read(), list_xlated(program.program, with_lines=True)
        runtime.static_keys["debug"].enable()
        assert list_xlated(runtime["three_sites"].program, with_lines=True) == text
        changed = changed_bytes(program.image, before)
        assert changed
        assert changed <= site_bytes(program, "debug")
        runtime.static_keys["debug"].disable()
        assert program.image.block.read() == before


@pytest.mark.parametrize("form", ["nop_or_goto", "goto_or_nop"])
def test_sk_15_a_static_branch_to_the_next_insn_stays_and_can_be_switched(form: str) -> None:
    loaded = bpfc.assemble(f"r0 = 5\ngoto +0\n{form} +0\nr0 += 1\nexit", keys={"key": [2]})
    done = remove_nops(loaded.program("main"))
    assert [format_insn(insn) for insn in done.program.insns] == ["r0 = 5", f"{form} +0", "r0 += 1", "exit"]
    with loaded.start() as runtime:
        program = runtime["main"]
        assert program.keys["key"].sites
        seen = []
        for on in (1, 0, 1):
            program.static_branch_update(2, on)
            seen.append(program.run(PACKET).ret)
        assert seen == [6, 6, 6]


RODATA = Map("rodata", MapType.ARRAY, 4, 8, 1, initial=bytes(8), is_read_only=True)
DECIDED = """
r1 = map_value(3, 0)
r2 = *(u32 *)(r1 + 0)
if r2 == 0 goto +2
nop_or_goto +0
r0 = 1
r0 = 3
nop_or_goto +1
exit
r0 = 7
exit
"""


def test_sk_16_a_site_behind_a_decided_branch_is_deleted_and_the_key_still_works() -> None:
    loaded = bpfc.assemble(DECIDED, maps={3: RODATA}, keys={"key": [4, 7]})
    with loaded.start() as runtime:
        program = runtime["main"]
        tracked = frozen(4, 7)
        track(program, tracked, is_key=True)
        assert [entry.xlated_off for entry in tracked.entries] == [DELETED, 4]
        assert program.branches.points(4) == ()
        assert program.run(PACKET).ret == 3
        runtime.static_keys["key"].enable()
        assert program.run(PACKET).ret == 7


def frozen(*offsets: int) -> InsnSet:
    tracked = InsnSet(len(offsets))
    for index, offset in enumerate(offsets):
        tracked.update(index, Entry(offset))
    tracked.freeze()
    return tracked


def moved(program: Program, new: tuple[int | None, ...]) -> list[int]:
    return [-1 if new[slot] is None else int(new[slot] or 0) for slot in program.starts[:-1]]


def test_sk_17_tracked_instructions_follow_growth_and_removal() -> None:
    program = bpfc.assemble("r0 = 1\nr0 += 1\nr0 += 2\nr0 += 3\nr0 += 4\nexit").program("main")
    grown = rewrite(program, {1: parse("r0 += 1\nr1 = 0\nr2 = 0"), 3: parse("r0 += 3\nr1 = 0\nr2 = 0")})
    assert moved(program, grown.moved) == [0, 1, 4, 5, 8, 9]
    loaded = bpfc.assemble("r0 = 1\ngoto +0\nnop_or_goto +0\ngoto +0\ngoto_or_nop +0\nexit")
    program = loaded.program("main")
    assert moved(program, transformed(program, {}).moved) == [0, -1, 1, -1, 2, 3]
    with loaded.start() as runtime:
        tracked = InsnSet(5)
        for index, slot in enumerate((0, 1, 2, 3, 4)):
            tracked.update(index, Entry(slot))
        tracked.freeze()
        track(runtime["main"], tracked)
        assert [entry.xlated_off for entry in tracked.entries] == [0, DELETED, 1, DELETED, 2]
        image, branches = runtime["main"].image, runtime["main"].branches
        places = [tracked.entries[n].jitted_off for n in (0, 2, 4)]
        if image.target.flags is not None:  # what is switched is a word beside the code, and no place in it
            assert 0 == places[0] < places[1] < places[2] < image.functions[0].length
            return
        natives = [image.address_of("main"), *(min(p.address for p in branches.points(n)) for n in (2, 4))]
        assert places == [at - image.address for at in natives]


def test_sk_18_bad_sets_are_refused_and_a_set_has_one_program() -> None:
    text = "r1 = 5 ll\nr0 = 3\nnop_or_goto +1\nexit\nr0 = 7\nexit"
    unfrozen = InsnSet(1)
    with bpfc.assemble(text).start() as runtime, bpfc.assemble(text).start() as other:
        program = runtime["main"]
        for tracked, is_key in ((unfrozen, False), (frozen(7), False), (frozen(1), False), (frozen(2), True)):
            with pytest.raises(RejectedError) as caught:
                track(program, tracked, is_key)
            assert caught.value.errno == errno.EINVAL
        unfrozen.update(0, Entry(3))
        unfrozen.freeze()
        track(program, unfrozen, is_key=True)
        with pytest.raises(RejectedError) as caught:
            track(other["main"], unfrozen, is_key=True)
        assert caught.value.errno == errno.EBUSY


def test_tracked_instructions_have_the_places_of_their_code() -> None:
    text = "*(u32 *)(r10 - 4) = r2\nr0 = *(u32 *)(r10 - 4)\nr0 *= r0\nif r0 > 77 goto +1\nr0 ^= 5\nexit"
    with bpfc.assemble(text).start(Options(level="O0")) as runtime:
        program = runtime["main"]
        tracked = frozen(2, 4, 5)
        track(program, tracked)
        places = [entry.jitted_off for entry in tracked.entries]
        symbol = next(symbol for symbol in program.image.functions if symbol.name == "main")
        start = symbol.address - program.image.address
        assert all(start < place < start + symbol.length for place in places)
        assert len({*places}) == 3


def test_sk_19_updates_are_refused_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    with bpfc.assemble(OFF_OR_ON).start() as runtime:
        program = runtime["main"]
        refused: list[int] = []
        for insn, on in ((1, 2), (5, 1), (0, 1)):
            with pytest.raises(RejectedError) as caught:
                program.static_branch_update(insn, on)
            refused.append(caught.value.errno)
        for insn in (666, -1):
            with pytest.raises(RejectedError) as caught:
                program.static_branch_update(insn, 1)
            assert caught.value.errno == errno.ERANGE
        program.static_branch_update(1, 1)
        assert program.run(PACKET).ret == 7
        runtime.unload("main")
        with pytest.raises(RejectedError) as caught:
            program.static_branch_update(1, 1)
        refused.append(caught.value.errno)
        with pytest.raises(RejectedError) as caught:
            runtime.static_keys.update(runtime, 1, 1)
        refused.append(caught.value.errno)
        program = runtime["main"]
        monkeypatch.setattr(
            runtime.world.space.patcher.publisher, "refusal", "as where membarrier(2) is missing"
        )
        with pytest.raises(UnsupportedError) as unsupported:
            program.static_branch_update(1, 1)
        refused.append(unsupported.value.errno)
        assert program.run(PACKET).ret == 3
    assert refused == [
        errno.EINVAL, errno.ERANGE, errno.EINVAL, errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP
    ]  # fmt: skip


def test_sk_20_no_write_to_data_changes_code() -> None:
    loaded = bpfc.load(OBJECT)
    loaded.data["debug"] = {"unused": 1}
    name = next(map.name for map in loaded.maps.values() if map.section == ".data.static_keys")
    with loaded.start() as runtime:
        program = runtime["three_sites"]
        code = program.image.block.read()
        assert program.run(PACKET).ret == 9
        runtime.data["debug"] = {"unused": (1 << 64) - 1}
        live = runtime.maps[name]
        live[0] = b"\xff" * live.live.declared.value_size
        start = live.live.layout.values_offset
        live.live.block.view[start : start + 8] = struct.pack("=Q", program.image.address)
        tracked = frozen(*program.branches.insns)
        track(program, tracked, is_key=True)
        with pytest.raises(RejectedError) as caught:
            tracked.update(0, Entry(0))
        assert caught.value.errno == errno.EPERM
        assert program.run(PACKET).ret == 9
        assert program.image.block.read() == code
        assert runtime.static_keys["debug"].enabled is False


@pytest.mark.no_code
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text", ["r0 = 1\n@ -2", "call pc+1\nexit\nr0 = 1\n@ -2"], ids=["of main", "of a subprogram"]
)
def test_sk_21_a_static_branch_is_no_end_of_a_function(form: str, text: str) -> None:
    error = refusal(lambda: bpfc.assemble(text.replace("@", form)))
    assert (error.errno, error.diagnostics[0].code) == (errno.EINVAL, "falls-off-end")


def self_compare(register: int, compare: str) -> bytes:
    load = Insn(0x18, register, 0, 0, 0x5174_0000_0001)
    branch = Insn(ROW_BY_NAME[compare].opcode, register, register, 1, 0)
    return encode((load, branch, *parse("goto +2\nr0 = 7\nexit\nr0 = 3\nexit")))


@pytest.mark.parametrize(("compare", "off", "on"), [("jeq64 reg", 7, 3), ("jne64 reg", 3, 7)])
def test_sk_22_a_marked_self_compare_is_a_static_branch_when_asked_for(
    compare: str, off: int, on: int
) -> None:
    code = self_compare(11, compare)
    error = refusal(lambda: bpfc.from_bytes(code))
    assert error.errno == errno.EINVAL  # r11 is no register
    loaded = bpfc.from_bytes(code, keys={"key": [2]}, self_compares=True)
    assert [format_insn(insn) for insn in loaded.program("main").insns[:2]] == ["goto +0", "goto +0"]
    with loaded.start() as runtime:
        assert runtime["main"].run(PACKET).ret == off
        runtime.static_keys["key"].enable()
        assert runtime["main"].run(PACKET).ret == on
        assert b"\x74\x51" not in runtime["main"].image.block.read()
    ordinary = self_compare(3, compare)
    with bpfc.from_bytes(ordinary, self_compares=True).start() as runtime:
        assert runtime["main"].run(PACKET).ret == (7 if compare == "jeq64 reg" else 3)
        assert runtime["main"].branches.insns == ()
