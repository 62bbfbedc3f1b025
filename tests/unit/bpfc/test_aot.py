"""Ahead of time: C programs that link against what was compiled, on this machine and, under qemu-user, on others."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import bpfc
from backends import abi
from backends.registry import NAMES, host, target_named
from bpfc.aot import emit_aot, find_compiler
from bpfc.pcap import read_pcap
from ir.context import HEADER, Pointer
from ir.diagnostics import UnsupportedError
from ir.kinds import MapType
from ir.object import Map

ROOT = Path(__file__).parents[3]
OBJECTS = ROOT / "tests" / "objects"
SAMPLE = OBJECTS / "sample.pcap"
QEMU = {"armv7": "qemu-arm"}
FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{ROOT / 'bpfc' / 'include'}")


def compiler_of(target: str) -> list[str]:
    found = find_compiler(target_named(target))
    if found is None:
        pytest.skip(f"no C compiler for {target} is installed")
    return found


def emulator_of(target: str) -> list[str]:
    if target == platform.machine():
        return []
    name = QEMU.get(target, f"qemu-{target}")
    found = shutil.which(name) or shutil.which(f"{name}-static")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return [found]


def build(
    folder: Path, target: str, source: Path, *objects: bytes, defines: tuple[str, ...] = ()
) -> list[str]:
    """The command that runs a C program linked with objects."""
    emulator = emulator_of(target)
    files = []
    for number, data in enumerate(objects):
        files.append(folder / f"{number}.o")
        files[-1].write_bytes(data)
    program = folder / "host"
    command = [
        *compiler_of(target),
        *FLAGS,
        "-static",
        *defines,
        str(source),
        *map(str, files),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    return [*emulator, str(program)]


def run_c(folder: Path, text: str, *objects: bytes) -> str:
    """What a C program linked with objects prints, on this machine."""
    source = folder / "host.c"
    source.write_text(text)
    return subprocess.run(
        build(folder, host().name, source, *objects), check=True, capture_output=True, text=True
    ).stdout


def expected_of_sample() -> list[str]:
    """What the sample host prints, by the runtime's own results."""
    with bpfc.load(OBJECTS / "xdp_stats.o").start() as runtime:
        program = runtime["xdp_stats"]
        answers = Counter(program.run(packet.data).verdict for packet in read_pcap(SAMPLE))
        lines = [f"xdp_stats answered {answer}: {answers[answer]}" for answer in sorted(answers)]
        for name in ("protocols", "sources", "xdp_stat.bss", "xdp_stat.data", "xdp_stat.rodata"):
            live = runtime.world.live[name]
            size = live.declared.value_size
            keys = range(live.declared.max_entries)
            values = (live.lookup(key.to_bytes(4, "little")) for key in keys)
            total = sum(sum(value[:size]) for value in values if value is not None)
            lines.append(f"map {name}: type {int(live.declared.type)}, bytes add up to {total}")
    return lines


@pytest.mark.parametrize("target", NAMES)
def test_the_sample_host_runs_what_the_runtime_runs(tmp_path: Path, target: str) -> None:
    machine = target_named(target)
    name = "xdp_stats.eb.o" if machine.byte_order == "big" else "xdp_stats.o"
    loaded = bpfc.load(OBJECTS / name)
    object_ = emit_aot(loaded, ["xdp_stats"], machine, "obj")
    define = f"-DOBJECT={loaded.object.name.replace('.', '_')}"
    command = build(tmp_path, target, ROOT / "docs" / "aot_host.c", object_, defines=(define,))
    done = subprocess.run([*command, "xdp_stats", str(SAMPLE)], check=True, capture_output=True, text=True)
    wanted = expected_of_sample()
    prefix = loaded.object.name[:8]
    assert done.stdout.splitlines() == [line.replace("xdp_stat.", f"{prefix}.") for line in wanted]


def test_the_header_says_what_the_compiler_does(tmp_path: Path) -> None:
    """bpfc_aot.h states the layouts of backends/abi.py a second time, for C."""
    places = {
        "fuel": abi.FUEL, "trap_code": abi.TRAP_CODE, "trap_insn": abi.TRAP_INSN, "cpu": abi.CPU,
        "tail_calls": abi.TAIL_CALLS, "random": abi.RNG, "segments": abi.SEGMENTS,
        "segment_count": abi.SEGMENT_COUNT, "depth": abi.DEPTH, "insns": abi.INSNS, "redirect": abi.REDIRECT,
        "host": abi.HOST, "stack": abi.STACK, "cookie": abi.COOKIE, "context": abi.CONTEXT, "retval": abi.RETVAL,
    }  # fmt: skip
    facts = [f"offsetof(struct bpfc_run, {name}) == {place}" for name, place in places.items()]
    facts += [f"sizeof(struct bpfc_run) == {abi.RUN_STATE_SIZE}"]
    facts += [f"BPFC_STACK_SIZE == {abi.STACK_SIZE}", f"BPFC_TAIL_CALLS == {abi.TAIL_CALL_LIMIT}"]
    facts += [f"BPFC_TRAP_{trap.name} == {int(trap)}" for trap in abi.Trap]
    facts += [f"offsetof(struct bpfc_context, {p.name.lower()}) == {p.value}" for p in Pointer]
    facts += [f"offsetof(struct bpfc_context, fields) == {HEADER}"]
    source = tmp_path / "facts.c"
    asserts = [f'_Static_assert({fact}, "{fact}");' for fact in facts]
    source.write_text("\n".join(["#include <stddef.h>", '#include "bpfc_aot.h"', *asserts]))
    subprocess.run([*compiler_of(host().name), *FLAGS, "-fsyntax-only", str(source)], check=True)


TAIL_CALLS = """
#include <stdio.h>
#include "bpfc_aot.h"
BPFC_OBJECT(hooked);
static struct bpfc_machine machine;
int main(void)
{
	const struct bpfc_object *object = &BPFC_NAME(hooked);
	uint8_t packet[64] = {0};
	uint32_t one = 1, answers[2], sizes[2] = {64, 64};
	uint8_t *packets[2] = {packet, packet};
	if (bpfc_start(object, 0))
		return 1;
	bpfc_prepare(&machine, object, 0);
	const struct bpfc_program *jumps_on = bpfc_find_program(object, "jumps_on");
	const struct bpfc_program *calls_g = bpfc_find_program(object, "calls_g");
	const struct bpfc_map *table = bpfc_find_map(object, "jumps");
	memcpy(machine.context.fields + 12, &one, 4);
	printf("%d", (int)bpfc_run_packet(&machine, jumps_on, packet, 64));
	printf(" %d", (int)bpfc_put_program(table, 0, calls_g));
	printf(" %d", (int)bpfc_run_packet(&machine, jumps_on, packet, 64));
	printf(" %d", (int)bpfc_put_program(table, 0, jumps_on));
	printf(" %d", (int)bpfc_run_packet(&machine, jumps_on, packet, 64));
	printf(" %llu", (unsigned long long)*(uint64_t *)bpfc_values(bpfc_find_map(object, "hooked.bss")));
	printf(" %d", (int)bpfc_put_program(table, 99, jumps_on));
	printf(" %d", (int)bpfc_put_program(table, 0, 0));
	printf(" %d", (int)bpfc_run_batch(&machine, calls_g, packets, sizes, 2, answers));
	printf(" %d %d\\n", (int)answers[0], (int)answers[1]);
	return bpfc_find_program(object, "nobody") || bpfc_find_map(object, "nothing");
}
"""


def test_tail_calls_go_through_a_table_that_the_host_fills(tmp_path: Path) -> None:
    loaded = bpfc.load(OBJECTS / "hooked.o")
    data = emit_aot(loaded, list(loaded.programs), host(), "obj")
    #        empty, put, 1 - 122, put, after 33 jumps, runs in all, no such place, taken out, packets done, answers
    assert run_c(tmp_path, TAIL_CALLS, data) == "77 0 -121 0 77 36 -7 0 2 -121 -121\n"


MAPS = """
#include <stdio.h>
#include "bpfc_aot.h"
BPFC_OBJECT(xdp_stats);
BPFC_OBJECT(hooked);
static struct bpfc_machine machine;
int main(void)
{
	const struct bpfc_object *object = &BPFC_NAME(xdp_stats);
	const struct bpfc_map *map = bpfc_find_map(object, "sources");
	for (int round = 0; round < 2; round++) {
		if (bpfc_start(object, 7) || bpfc_start(&BPFC_NAME(hooked), 7))
			return 1;
		bpfc_prepare(&machine, object, 0);
		int failed = 0;
		for (uint32_t key = 0; key < 1100; key++) {
			uint64_t value[2] = {key, ~key};
			failed += bpfc_update(&machine, map, &key, value, 0) != 0;
		}
		uint32_t key = 500, missing = 5000;
		printf("%d %d %d ", failed, *(int *)bpfc_value(map, &key, 0), bpfc_value(map, &missing, 0) != 0);
		printf("%d ", (int)bpfc_erase(&machine, map, &key));
		printf("%d ", (int)bpfc_erase(&machine, map, &key));
		printf("%d\\n", bpfc_value(map, &key, 0) != 0);
	}
	return 0;
}
"""


def test_hosts_use_maps_of_two_objects_and_start_anew(tmp_path: Path) -> None:
    objects = [
        emit_aot(loaded, list(loaded.programs), host(), "obj")
        for loaded in (bpfc.load(OBJECTS / "xdp_stats.o"), bpfc.load(OBJECTS / "hooked.o"))
    ]
    #  1100 keys into a hash of 1024; there; not there; deleted; ENOENT
    assert run_c(tmp_path, MAPS, *objects) == 2 * "76 500 0 0 -2 0\n"


ALL = """
#include <stdio.h>
#include "bpfc_aot.h"
BPFC_OBJECT(NAME);
static struct bpfc_machine machine;
int main(void)
{
	const struct bpfc_object *object = &BPFC_NAME(NAME);
	for (uint32_t i = 0; i < object->program_count; i++) {
		uint8_t room[256 + 64 + 320] = {0}, *packet = room + 256;
		for (int byte = 0; byte < 64; byte++)
			packet[byte] = byte;
		if (bpfc_start(object, 0))
			return 1;
		bpfc_prepare(&machine, object, 0);
		uint64_t r0 = bpfc_run_in_room(&machine, &object->programs[i], packet, 64, 256, 320);
		printf("%s %llu %u\\n", object->programs[i].name, (unsigned long long)r0, machine.run.trap_code);
	}
	return 0;
}
"""


@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("tables", ["proved", "masked", "nested", "deep", "strided"]),
        ("hooked", ["calls_g", "calls_f", "calls_widths", "calls_many", "calls_siblings", "classifies"]),
        ("extended", ["goes_deep", "rechecks", "calls_mover", "adds_value", "connects4"]),
    ],
)
def test_programs_answer_as_they_do_in_the_runtime(tmp_path: Path, name: str, programs: list[str]) -> None:
    loaded = bpfc.load(OBJECTS / f"{name}.o")
    data = emit_aot(loaded, programs, host(), "obj")
    expected = []
    for program in programs:
        with loaded.start() as runtime:
            expected.append(f"{program} {runtime[program].run(bytes(range(64))).ret} 0")
    assert run_c(tmp_path, ALL.replace("NAME)", f"{name})"), data).splitlines() == expected


def test_a_shared_library_is_loaded_at_run_time(tmp_path: Path) -> None:
    compiler_of(host().name)
    loaded = bpfc.load(OBJECTS / "hooked.o")
    path = tmp_path / "hooked.so"
    path.write_bytes(emit_aot(loaded, ["calls_g"], host(), "so"))
    library = ctypes.CDLL(str(path))
    library.bpfc_init_hooked(ctypes.c_uint64(0))
    run = (ctypes.c_uint64 * (abi.RUN_STATE_SIZE // 8))()
    context = (ctypes.c_uint64 * 64)()
    context[(HEADER + 12) // 8] = 130 << 32  # ingress_ifindex
    entry = library.bpfc_program_calls_g
    entry.restype = ctypes.c_int64
    assert entry(ctypes.byref(run), ctypes.byref(context)) & 0xFFFF_FFFF == 130 - 122


def test_helpers_without_native_form_are_the_hosts(tmp_path: Path) -> None:
    loaded = bpfc.load(OBJECTS / "xdp_stats.o")
    loaded.rodata["debug"] = 1
    data = emit_aot(loaded, ["xdp_stats"], host(), "obj")
    text = TAIL_CALLS.replace("hooked", "xdp_stats")
    with pytest.raises(subprocess.CalledProcessError):
        run_c(tmp_path, text, data)
    command = build(
        tmp_path, host().name, ROOT / "docs" / "aot_host.c", data, defines=("-DOBJECT=xdp_stats",)
    )
    done = subprocess.run([*command, "xdp_stats", str(SAMPLE)], check=True, capture_output=True, text=True)
    with loaded.start() as runtime:
        results = [runtime["xdp_stats"].run(packet.data) for packet in read_pcap(SAMPLE)]
    assert len(done.stderr.splitlines()) == sum(len(result.printk) for result in results) > 0


def test_what_only_the_runtime_has_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        emit_aot(bpfc.load(OBJECTS / "static_keys.o"), ["unlikely"], host(), "obj")
    assert caught.value.diagnostics[0].code == "aot-branch"
    with pytest.raises(UnsupportedError) as caught:
        emit_aot(bpfc.load(OBJECTS / "replacements.o"), ["returns_five"], host(), "obj")
    assert caught.value.diagnostics[0].code == "aot-extension"
    ring = Map("ring", MapType.RINGBUF, 0, 0, 4096)
    loaded = bpfc.assemble("r1 = map_fd(3)\nr2 = 0\ncall 134\nr0 = 0\nexit", maps={3: ring})
    with pytest.raises(UnsupportedError) as caught:
        emit_aot(loaded, ["main"], host(), "obj")
    assert caught.value.diagnostics[0].code == "aot-map"
    with pytest.raises(UnsupportedError) as caught:
        emit_aot(bpfc.load(OBJECTS / "xdp_stats.o"), ["xdp_stats"], target_named("s390x"), "obj")
    assert caught.value.diagnostics[0].code == "foreign-byte-order"


def test_without_a_linker_it_says_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    loaded = bpfc.load(OBJECTS / "hooked.o")
    with pytest.raises(UnsupportedError) as caught:
        emit_aot(loaded, ["calls_g"], target_named("aarch64"), "so")
    assert "wants a C compiler to link it: aarch64-linux-gnu-gcc" in str(caught.value)


def test_the_same_input_gives_the_same_bytes() -> None:
    loaded = bpfc.load(OBJECTS / "xdp_stats.o")
    once, again = (emit_aot(loaded, ["xdp_stats"], target_named("riscv64"), "obj") for _ in range(2))
    assert once == again
