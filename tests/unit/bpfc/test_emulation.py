"""Objects on emulated machines: the same answers, maps, packets and helper calls as on this one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bpfc
from bpfc.options import Options
from bpfc.pcap import read_pcap
from ir.kinds import MapType
from ir.object import Map
from runtime.limits import Limits
from tests.engines import EMULATED, require_emulator

OBJECTS = Path(__file__).parents[2] / "objects"
LITTLE = [name for name in EMULATED if name != "s390x"]
COUNTED = [name for name in EMULATED if name != "ppc64le"]  # qemu-user tells no counts
PACKETS = [packet.data for packet in read_pcap(OBJECTS / "sample.pcap")][:12]

COUNT = """
r1 = 5
*(u32 *)(r10 - 4) = r1
r1 = 700
*(u64 *)(r10 - 16) = r1
r1 = map_fd(1)
r2 = r10
r2 += -4
r3 = r10
r3 += -16
r4 = 0
call 2
r6 = r0
r1 = map_fd(1)
r2 = r10
r2 += -4
call 1
if r0 == 0 goto +3
r1 = 42
lock *(u64 *)(r0 + 0) += r1
r6 = *(u64 *)(r0 + 0)
r0 = r6
exit
"""


@pytest.fixture(autouse=True)
def _emulator(request: pytest.FixtureRequest) -> None:
    """Skip where the emulator of the test's target is missing; without one, the test is about s390x."""
    given = getattr(request.node, "callspec", None)
    require_emulator(given.params.get("target", "s390x") if given is not None else "s390x")


@pytest.mark.parametrize("target", LITTLE)
@pytest.mark.parametrize("name", ["xdp_stats", "tc_classify", "socket_filter"])
def test_a_real_object_does_the_same_on_every_target(name: str, target: str) -> None:
    def everything(target: str | None) -> tuple[object, ...]:
        loaded = bpfc.load(OBJECTS / f"{name}.o")
        with loaded.start(target=target) as runtime:
            program = runtime[next(iter(loaded.programs))]
            runs = [program.run(packet) for packet in PACKETS]
            maps = {name: sorted(map(repr, view.items())) for name, view in runtime.maps.items()}
            return [(run.ret, run.data, run.printk) for run in runs], maps

    assert everything(target) == everything(None)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("type", [MapType.HASH, MapType.ARRAY, MapType.LRU_HASH, MapType.PERCPU_ARRAY])
def test_maps_are_shared_between_programs_and_python(type: MapType, target: str) -> None:
    counts = Map("counts", type, 4, 8, 10)
    loaded = bpfc.assemble(COUNT, maps={1: counts}, big_endian=target == "s390x")
    with loaded.start(target=target) as runtime:
        view = runtime.maps["counts"]
        order = "big" if target == "s390x" else "little"
        assert runtime["main"].run(b"").ret == 742
        view[7] = 9
        found = {int.from_bytes(key, order): joined(value) for key, value in view.items()}
        assert {key: value[:8] for key, value in found.items() if any(value)} == {
            5: (742).to_bytes(8, order),
            7: (9).to_bytes(8, order),
        }
        if type in (MapType.HASH, MapType.LRU_HASH):
            assert len(view) == 2
            del view[7]
            assert list(view) == [(5).to_bytes(4, order)]


def joined(value: bytes | list[bytes]) -> bytes:
    """The bytes of a value, of all cpus for a per-cpu one."""
    return b"".join(value) if isinstance(value, list) else value


@pytest.mark.parametrize("target", EMULATED)
def test_a_queue_gives_back_what_was_pushed(target: str) -> None:
    text = """
    r1 = 77
    *(u64 *)(r10 - 8) = r1
    r1 = map_fd(1)
    r2 = r10
    r2 += -8
    r3 = 0
    call 87
    exit
    """
    queue = Map("queue", MapType.QUEUE, 0, 8, 4)
    with bpfc.assemble(text, maps={1: queue}, big_endian=target == "s390x").start(target=target) as runtime:
        assert runtime["main"].run(b"").ret == 0
        runtime.maps["queue"].push(5)
        popped = [runtime.maps["queue"].pop() for _ in range(2)]
    order = "big" if target == "s390x" else "little"
    assert [int.from_bytes(value, order) for value in popped] == [77, 5]


@pytest.mark.parametrize("target", EMULATED)
def test_events_arrive_from_every_target(target: str) -> None:
    text = """
    r1 = 0x1122334455667788 ll
    *(u64 *)(r10 - 8) = r1
    r1 = map_fd(1)
    r2 = r10
    r2 += -8
    r3 = 8
    r4 = 0
    call 130
    exit
    """
    events = Map("events", MapType.RINGBUF, 0, 0, 4096)
    with bpfc.assemble(text, maps={1: events}, big_endian=target == "s390x").start(target=target) as runtime:
        for _ in range(300):
            runtime["main"].run(b"")
        order = "big" if target == "s390x" else "little"
        seen = list(runtime.maps["events"])
    assert set(seen) == {0x1122334455667788.to_bytes(8, order)}
    assert len(seen) == 255


@pytest.mark.parametrize("target", EMULATED)
def test_helpers_run_in_python(target: str) -> None:
    loaded = bpfc.assemble("call 5\nr0 += 1\nexit", big_endian=target == "s390x")
    with loaded.start(target=target) as runtime:
        runtime.helpers["bpf_ktime_get_ns"] = lambda: 41
        assert runtime["main"].run(b"").ret == 42


@pytest.mark.parametrize("target", EMULATED)
def test_c_functions_of_this_machine_are_helpers_there(target: str) -> None:
    add = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(lambda a, b: a + 10 * b)
    loaded = bpfc.assemble("r1 = 5\nr2 = 7\ncall 109\nexit", big_endian=target == "s390x")
    with loaded.start(target=target) as runtime:
        runtime.helpers["bpf_send_signal"] = add
        assert runtime["main"].run(b"").ret % 10 == 5


@pytest.mark.parametrize("target", EMULATED)
def test_what_a_helper_raises_comes_out_of_the_run(target: str) -> None:
    def fail() -> int:
        raise KeyError("the helper's own")

    loaded = bpfc.assemble("call 5\nexit", big_endian=target == "s390x")
    with loaded.start(target=target) as runtime:
        runtime.helpers["bpf_ktime_get_ns"] = fail
        with pytest.raises(KeyError, match="the helper's own"):
            runtime["main"].run(b"")


@pytest.mark.parametrize("target", COUNTED)
def test_instructions_are_counted_and_limited(target: str) -> None:
    text = "r0 = 1\nr0 *= 3\nr0 ^= r2\nr2 += -1\nif r2 != 0 goto -4\nexit"  # no formula for LLVM to find
    loop = bpfc.assemble(text, big_endian=target == "s390x")
    with loop.start(target=target, counts=True) as runtime:
        few, many = (runtime["main"].run(bytes(size)).steps for size in (100, 1100))
    assert few is not None
    assert many is not None
    assert few + 1000 < many
    with loop.start(limits=Limits(steps=1000), target=target) as runtime:
        with pytest.raises(bpfc.TrapError, match="1000 machine instructions"):
            runtime["main"].run(bytes(5000))
        assert runtime["main"].run(bytes(2)).ret == (3 ^ 2) * 3 ^ 1


def test_a_big_endian_object_runs_on_s390x() -> None:
    loaded = bpfc.load(OBJECTS / "globals.eb.o")
    with loaded.start(target="s390x") as runtime:
        assert [runtime["count"].run(bytes(4)).ret for _ in range(2)] == [42, 42]
        assert runtime.globals["zeroed"] == 2
        assert runtime["loop"].run(bytes(4)).ret == 777
        runtime.globals["initialized"] = 100
        assert runtime["count"].run(bytes(4)).ret == 100


def test_one_call_compiles_for_every_target_of_a_byte_order() -> None:
    loaded = bpfc.load(OBJECTS / "xdp_stats.o")
    found = loaded.compile(LITTLE, options=Options(cache=False))
    assert {name: one.code.target for name, one in found.items()} == {name: name for name in LITTLE}
    for name in LITTLE:
        (alone,) = loaded.compile([name], "xdp_stats", Options(cache=False)).values()
        assert alone.code == found[name].code


def test_one_call_compiles_bare_instructions_for_every_target() -> None:
    loaded = bpfc.assemble("r0 = *(u16 *)(r1 + 0)\nr0 = be16 r0\nexit")
    found = loaded.compile(EMULATED)
    assert tuple(found) == EMULATED


@pytest.mark.parametrize(("name", "target"), [("globals.o", "s390x"), ("globals.eb.o", "aarch64")])
def test_the_byte_order_is_part_of_a_program(name: str, target: str) -> None:
    with pytest.raises(bpfc.UnsupportedError, match=f"-endian, {target} is"):
        bpfc.load(OBJECTS / name).start(target=target)


def test_a_machine_may_be_left_open_when_python_ends() -> None:
    program = (
        "from bpfc.testing.native import run\n"
        "from bpfc.testing.oracles.targets import draw\n"
        "for seed in range(8): run(draw(seed), 'O0', target='riscv64')\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_process_leaves_no_emulator_and_no_file_behind(tmp_path: Path) -> None:
    require_emulator("ppc64le")
    program = (
        "import bpfc, os, signal\n"
        "with bpfc.assemble('r0 = 7\\nexit').start(target='ppc64le') as runtime:\n"
        "    assert runtime['main'].run(b'').ret == 7\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    given = {**os.environ, "TMPDIR": str(tmp_path)}
    # stderr is inherited by the emulator: it is at its end when that has ended, too.
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, env=given, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["ppc64le", "riscv64"])
def test_memory_that_a_ring_buffer_showed_twice_is_used_again_for_something_else(target: str) -> None:
    require_emulator(target)
    ring = Map("ring", MapType.RINGBUF, 0, 0, 8 << 12)
    uses = "r1 = map_fd(3)\nr2 = 0\ncall 134\nr0 = 0\nexit"
    with bpfc.emulate(target) as machine:
        for _ in range(2):
            with bpfc.assemble(uses, maps={3: ring}).start(target=machine) as runtime:
                runtime["main"].run(b"")
        blocks = [machine.pool.allocate_data(4096) for _ in range(64)]
        for number, block in enumerate(blocks):
            block.view[0] = number + 1
        with bpfc.assemble("r0 = 0\nexit").start(target=machine) as runtime:
            runtime["main"].run(b"")
        reads = bpfc.assemble("r0 = *(u64 *)(r1 + 0)\nexit")
        with reads.start(bpfc.Options(cache=False), target=machine) as runtime:
            image = runtime["main"].image
            peek = machine.function(
                image.address_of("main"), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64
            )
            state = machine.allocate(256)
            seen = [peek(ctypes.addressof(state), block.address, 8) & 0xFF for block in blocks]
        assert seen == [number + 1 for number in range(len(blocks))]
        for block in blocks:
            block.close()
