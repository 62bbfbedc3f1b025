"""What threads do to a key of a map at once has an order in which the answers are right (tests/objects/map_histories.c).

An element that is deleted while somebody reads its value may be another key's by then, as in Linux: such a value says
only that the key was there.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from errno import E2BIG, EEXIST, EINVAL, ENOENT
from functools import partial
from pathlib import Path

import pytest

import bpfc
from bpfc.batch import Batch
from tests.histories import WRONG, Operation, out_of_order, overlaps
from tests.kernel_maps import kernel_object

OBJECT = Path(__file__).parent.parent / "objects" / "map_histories.o"
USUAL = 12_000
MOST = 100_000  # of a thread at once
OPERATIONS = int(os.environ.get("BPFC_MAP_OPERATIONS", USUAL))
THREADS, BATCH = 4, 48
NAMES = ["lookup", "update", "delete", "push", "pop", "peek"]
KEYS = 4
ENTRIES = 8  # of a list: two values pushed at once may stand in either order, and both are followed until a pop tells
KEYED = ["array", "hash", "lazy", "lru", "trie"]
LISTED = ["queue", "stack"]
REQUEST = struct.Struct("<2B2xI24sQ8xQQ")
FOUND = 0x8000_0000
Prepare = Callable[[list[bytearray]], Callable[[], object]]


def key_of(name: str, number: int) -> bytes:
    return struct.pack("<II", 32, number) if name == "trie" else struct.pack("<I", number)


def draw(source: random.Random, name: str, thread: int, count: int) -> list[bytearray]:
    """Packets of operations; every value is given once, and names its key."""
    packets = []
    for _ in range(0, count, BATCH):
        packet = bytearray()
        for _ in range(BATCH):
            key, unique = source.randrange(KEYS), thread << 40 | source.getrandbits(40)
            ops = [0, 0, 1, 2] if name in KEYED else [3, 4, 5]
            flags = source.choice([0, 0, 1, 2]) if name in KEYED else source.choice([0, 0, 2])
            packet += REQUEST.pack(
                source.choice(ops), flags, 0, key_of(name, key), (key + 1) << 48 | unique, 0, 0
            )
        packets.append(packet)
    return packets


def play(name: str, prepare: Prepare, number: int, count: int) -> dict[bytes, list[Operation]]:
    """What the threads did and were answered, by key. They start when all of them have laid out what to do."""
    history: dict[bytes, list[Operation]] = defaultdict(list)
    done: list[tuple[list[bytes], list[bytearray]]] = []
    start = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        packets = draw(random.Random(f"{name} {number} {thread}"), name, thread, count)
        given, run = [bytes(packet) for packet in packets], prepare(packets)
        start.wait()
        run()
        done.append((given, packets))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == THREADS
    for before, after in done:
        both = (REQUEST.iter_unpack(b"".join(packets)) for packets in (before, after))
        for was, now in zip(*both, strict=True):
            op, flags, _, key, given, _, _ = was
            _, _, result, _, found, begin, end = now
            history[key].append(Operation(begin, end, NAMES[op], flags, given, result, found))
    return history


def keyed(state: Hashable, operation: Operation) -> Hashable:
    """A key that has a value or None."""
    wanted, after = 0, state
    match operation.name:
        case "lookup":
            wanted = 0 if state is None else FOUND
            is_anothers = state is not None and operation.found >> 48 != operation.given >> 48
            if state is not None and operation.found != state and not is_anothers:
                return WRONG
        case "delete":
            wanted, after = -ENOENT if state is None else 0, None
        case _:
            if operation.flags == 1 and state is not None:
                wanted = -EEXIST
            elif operation.flags == 2 and state is None:
                wanted = -ENOENT
            else:
                after = operation.given
    return after if operation.result == (wanted if wanted == FOUND else wanted & 0x7FFF_FFFF) else WRONG


def of_array(state: Hashable, operation: Operation) -> Hashable:
    """A value that is always there, and is nobody else's."""
    match operation.name:
        case "lookup":
            return state if (operation.result, operation.found) == (FOUND, state) else WRONG
        case "delete":
            wanted, after = EINVAL, state
        case _:
            wanted, after = (EEXIST, state) if operation.flags == 1 else (0, operation.given)
    return after if operation.result == -wanted & 0x7FFF_FFFF else WRONG


def listed(state: Hashable, operation: Operation, *, at: int) -> Hashable:
    """A list of up to ENTRIES values: a queue is read at its start, a stack at its end."""
    assert isinstance(state, tuple)
    wanted, after, found = 0, state, operation.found
    if operation.name == "push":
        if len(state) < ENTRIES:
            after = (*state, operation.given)
        elif operation.flags == 2:
            after = (*state[1:], operation.given)
        else:
            wanted = E2BIG
    elif not state:
        wanted = ENOENT
    else:
        found = state[at]
        after = (state[1:] if at == 0 else state[:-1]) if operation.name == "pop" else state
    return after if (operation.result, operation.found) == (-wanted & 0x7FFF_FFFF, found) else WRONG


def check(name: str, history: dict[bytes, list[Operation]]) -> int:
    """How many operations ran while another on the same key did. All must have an order."""
    if name in LISTED:
        history = {b"": [one for some in history.values() for one in some]}
    for operations in history.values():
        if name in KEYED:
            model, first = (of_array, 0) if name == "array" else (keyed, None)
            assert out_of_order(operations, model, first) is None
        else:
            assert out_of_order(operations, partial(listed, at=0 if name == "queue" else -1), ()) is None
    return sum(map(overlaps, history.values()))


def play_natively(loaded: bpfc.Loaded, name: str, number: int) -> dict[bytes, list[Operation]]:
    """A round on a new map."""
    with loaded.start() as runtime:
        program = runtime[name]
        program.run(bytes(REQUEST.size - 1))  # compiled before the threads start

        def prepare(packets: list[bytearray]) -> Callable[[], object]:
            return partial(program.run_batch, Batch(packets))

        return play(name, prepare, number, min(OPERATIONS // THREADS, MOST))


@pytest.mark.parametrize("name", [*KEYED, *LISTED])
def test_operations_of_threads_on_a_key_have_an_order(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, done, at_once = bpfc.load(OBJECT), 0, 0
    while done < OPERATIONS:
        history = play_natively(loaded, name, done)
        done += sum(map(len, history.values()))
        at_once += check(name, history)
    if OPERATIONS > USUAL:
        said = (
            f"{name}: {done} operations of {THREADS} threads are linearizable, {at_once} of them overlapped"
        )
        with capsys.disabled():
            sys.stdout.write(f"\n{said}\n")


@pytest.mark.kernel
@pytest.mark.parametrize("name", [*KEYED, *LISTED])
def test_operations_of_threads_in_the_kernel_have_an_order_too(name: str) -> None:
    """What is asked of our maps is no more than what Linux keeps."""
    loaded = bpfc.load(OBJECT)
    allowed = os.sched_getaffinity(0)
    with kernel_object(loaded.object) as kernel:
        os.sched_setaffinity(0, allowed)
        kernel.run(name, bytes(REQUEST.size - 1))  # loaded before the threads start

        def prepare(packets: list[bytearray]) -> Callable[[], object]:
            def run() -> None:
                for packet in packets:
                    count, packet[:] = kernel.run(name, bytes(packet))
                    assert count == BATCH

            return run

        check(name, play(name, prepare, 0, USUAL // (4 * THREADS)))


def test_an_answer_without_an_order_is_found() -> None:
    first = Operation(0, 10, "update", 0, 1, 0, 0)
    second = Operation(5, 20, "update", 0, 2, 0, 0)
    early, late = (Operation(begin, 30, "lookup", 0, 1, FOUND, 1) for begin in (15, 25))
    assert out_of_order([first, second, early], of_array, 0) is None
    assert (
        out_of_order([first, second, Operation(11, 12, "lookup", 0, 1, FOUND, 2), late], of_array, 0) is late
    )
    assert out_of_order([first, second, late], of_array, 0) is None
    assert out_of_order([first, Operation(11, 20, "lookup", 0, 1, FOUND, 0)], of_array, 0) is not None


@pytest.mark.parametrize(("at", "order"), [(0, (2, 1)), (-1, (1, 2))])
def test_values_that_leave_a_list_in_the_wrong_order_are_found(at: int, order: tuple[int, int]) -> None:
    def history(between: int) -> list[Operation]:
        """Two pushes, the second begun at `between`, and two pops, which find `order`."""
        pushes = [Operation(0, 10, "push", 0, 1, 0, 1), Operation(between, 20, "push", 0, 2, 0, 2)]
        pops = [Operation(30 + n, 30 + n, "pop", 0, 0, 0, value) for n, value in enumerate(order)]
        return pushes + pops

    one_after_the_other, at_once = history(11), history(5)
    assert out_of_order(one_after_the_other, partial(listed, at=at), ()) is not None
    assert out_of_order(at_once, partial(listed, at=at), ()) is None
