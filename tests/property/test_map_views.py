"""Maps seen from the host: like a dictionary that follows the rules, and like the kernel's maps where it may be asked."""

from __future__ import annotations

import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from errno import E2BIG, EEXIST, EINVAL, ENOENT

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.registry import host
from ir.diagnostics import RejectedError
from ir.kinds import MapFlag, MapType
from ir.map_layout import value_bytes
from ir.maps import is_per_cpu
from ir.object import Map
from runtime.maps.host import HostOperations
from runtime.maps.live import LiveMap, create
from runtime.memory import Pool
from tests.kernel_maps import KernelMap, kernel_map, possible_cpus

Create = Callable[..., LiveMap]
Operation = tuple[str, int, int, int]
ENTRIES = 8
HASH = Map("hash", MapType.HASH, 4, 8, ENTRIES)
WIDE = Map("wide", MapType.HASH, 19, 33, ENTRIES)
LAZY = Map("lazy", MapType.HASH, 4, 8, ENTRIES, MapFlag.NO_PREALLOC)
ARRAY = Map("array", MapType.ARRAY, 4, 12, ENTRIES)
TRIE = Map("trie", MapType.LPM_TRIE, 8, 4, ENTRIES, MapFlag.NO_PREALLOC)
LONG_TRIE = Map("long", MapType.LPM_TRIE, 24, 4, ENTRIES, MapFlag.NO_PREALLOC)
QUEUE = Map("queue", MapType.QUEUE, 0, 8, 4)
STACK = Map("stack", MapType.STACK, 0, 5, 4)
LONG = [
    *(HASH, WIDE, LAZY, ARRAY, TRIE, LONG_TRIE, QUEUE, STACK),
    Map("per_cpu", MapType.PERCPU_HASH, 4, 13, ENTRIES),
    Map("per_cpu_array", MapType.PERCPU_ARRAY, 4, 8, ENTRIES),
    Map("lru", MapType.LRU_HASH, 4, 8, 4096),
    Map("lru_per_cpu", MapType.LRU_PERCPU_HASH, 4, 8, 4096),
]
USUAL = 2000
HOST_OPERATIONS = int(os.environ.get("BPFC_MAP_OPERATIONS", USUAL))
FLAGS = [*[0] * 6, 1, 1, 2, 2, 3, 4, 5, 8, 1 << 32, 1 << 63]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["update", "update", "delete", "lookup"]),
        st.integers(0, 11),
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 1, 2, 3]),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def made() -> Iterator[Create]:
    """Makes maps, and closes them in the end."""
    live: list[LiveMap] = []
    with Pool(poison=host().poison) as pool:
        operations = HostOperations(pool)

        def make(declared: Map, cpus: int = 2) -> LiveMap:
            live.append(create(declared, pool, operations, cpus, seed=len(live)))
            return live[-1]

        yield make
        operations.close()
        for one in live:
            one.close()


def key_of(declared: Map, number: int) -> bytes:
    """One of twelve keys; those of a trie are prefixes of each other."""
    if declared.type is MapType.LPM_TRIE:
        bits = (0, 1, 7, 8, 9, 16, 17, 24, 31, 32, 8 * (declared.key_size - 4), 8)[number]
        data = (b"\x80\x00\xff\x01" if number % 2 else b"\x80\xff\x00\x01").ljust(
            declared.key_size - 4, b"\xaa"
        )
        return bits.to_bytes(4, sys.byteorder) + data
    return number.to_bytes(4, sys.byteorder).ljust(declared.key_size, b"\x5a")


def attempt(map: LiveMap | KernelMap, operation: Operation) -> bytes | int | None:
    """What one operation answers: a value, None, or an errno."""
    name, number, content, flags = operation
    key = key_of(map.declared, number)
    try:
        match name:
            case "update":
                copies = possible_cpus() if is_per_cpu(map.declared.type) else 1
                map.update(key, bytes([content]) * value_bytes(map.declared) * copies, flags)
            case "delete":
                map.delete(key)
            case _:
                return map.lookup(key)
    except (RejectedError, OSError) as error:
        return error.errno
    return None


class Model:
    """A dictionary with the rules of a hash map of ENTRIES entries."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}

    def attempt(self, operation: Operation) -> int | None:
        name, number, content, flags = operation
        has = number in self.entries
        if name == "lookup":
            return self.entries.get(number)
        if name == "delete":
            return None if self.entries.pop(number, None) is not None else ENOENT
        if flags > 2:
            return EINVAL
        if has and flags == 1:
            return EEXIST
        if not has and flags == 2:
            return ENOENT
        if not has and len(self.entries) == ENTRIES:
            return E2BIG
        self.entries[number] = content
        return None


@pytest.mark.parametrize("declared", [HASH, WIDE, LAZY], ids=lambda declared: declared.name)
def test_a_hash_map_is_a_dictionary_of_limited_size(declared: Map, made: Create) -> None:
    @given(OPERATIONS)
    def check(operations: list[Operation]) -> None:
        ours, model = made(declared), Model()
        for operation in operations:
            wanted = model.attempt(operation)
            answer = attempt(ours, operation)
            if operation[0] == "lookup" and wanted is not None:
                assert answer == bytes([wanted]) * declared.value_size
            else:
                assert answer == wanted
        found = {key: value[0] for key, value in ours.items()}
        assert found == {key_of(declared, number): content for number, content in model.entries.items()}
        assert len(ours) == len(model.entries)

    check()


@pytest.mark.kernel
@pytest.mark.parametrize(
    "declared", [HASH, WIDE, LAZY, ARRAY, TRIE, LONG_TRIE], ids=lambda declared: declared.name
)
def test_a_map_answers_the_host_as_the_kernel_does(declared: Map, made: Create) -> None:
    @given(OPERATIONS)
    def check(operations: list[Operation]) -> None:
        ours = made(declared)
        with kernel_map(declared) as kernels:
            for operation in operations:
                assert attempt(ours, operation) == attempt(kernels, operation), operation
            ordered = declared.type is not MapType.HASH
            found, wanted = list(ours.items()), list(kernels.items())
            assert (found if ordered else sorted(found)) == (wanted if ordered else sorted(wanted))

    check()


@pytest.mark.parametrize("declared", [QUEUE, STACK], ids=lambda declared: declared.name)
def test_a_queue_or_stack_is_a_list_of_limited_size(declared: Map, made: Create) -> None:
    @given(st.lists(st.sampled_from(["push", "replace", "pop", "peek"]), max_size=40))
    def check(operations: list[str]) -> None:
        ours = made(declared)
        model: deque[bytes] = deque()
        for number, operation in enumerate(operations):
            value = bytes([number]) * declared.value_size
            if operation in ("pop", "peek"):
                at = 0 if declared.type is MapType.QUEUE else -1
                assert ours.take(operation) == (model[at] if model else None)
                if operation == "pop" and model:
                    del model[at]
            elif len(model) == 4 and operation == "push":
                with pytest.raises(RejectedError) as caught:
                    ours.push(value)
                assert caught.value.errno == E2BIG
            else:
                ours.push(value, 2 if operation == "replace" else 0)
                if len(model) == 4:
                    model.popleft()
                model.append(value)
            assert len(ours) == len(model)

    check()


@pytest.mark.kernel
@pytest.mark.parametrize("declared", [QUEUE, STACK], ids=lambda declared: declared.name)
def test_a_queue_or_stack_answers_the_host_as_the_kernel_does(declared: Map, made: Create) -> None:
    @given(st.lists(st.tuples(st.sampled_from(["push", "pop", "peek"]), st.integers(0, 3)), max_size=40))
    def check(operations: list[tuple[str, int]]) -> None:
        ours = made(declared)
        with kernel_map(declared) as kernels:
            for number, (operation, flags) in enumerate(operations):
                value = bytes([number]) * declared.value_size
                assert listed(ours, operation, value, flags) == listed(kernels, operation, value, flags)

    check()


@pytest.mark.kernel
@pytest.mark.parametrize("declared", LONG, ids=lambda declared: declared.name)
def test_a_long_sequence_of_operations_is_answered_as_by_the_kernel(
    declared: Map, made: Create, capsys: pytest.CaptureFixture[str]
) -> None:
    source = random.Random(declared.name)
    ours, done = made(declared, possible_cpus()), 0
    is_keyed = declared.key_size > 0
    with kernel_map(declared) as kernels:
        while done < HOST_OPERATIONS:
            for _ in range(1000):
                if is_keyed:
                    name = source.choice(("update", "update", "delete", "lookup"))
                    operation = (name, source.randrange(12), source.randrange(256), source.choice(FLAGS))
                    assert attempt(ours, operation) == attempt(kernels, operation), (done, operation)
                else:
                    name = source.choice(("push", "push", "pop", "peek"))
                    push = (name, source.randbytes(declared.value_size), source.choice(FLAGS))
                    assert listed(ours, *push) == listed(kernels, *push), (done, push)
                done += 1
            if is_keyed:
                assert sorted(ours.items()) == sorted(kernels.items())
    if HOST_OPERATIONS > USUAL:
        with capsys.disabled():
            sys.stdout.write(f"\n{declared.name}: {done} operations of the host as by the kernel\n")


def listed(map: LiveMap | KernelMap, operation: str, value: bytes, flags: int) -> bytes | int | None:
    """What an operation on a queue or stack answers."""
    if operation != "push":
        return map.take(operation)
    try:
        map.push(value, flags)
    except (RejectedError, OSError) as error:
        return error.errno
    return None


def test_an_lru_map_has_what_was_written_last(made: Create) -> None:
    @given(st.lists(st.integers(0, 5000), max_size=200))
    def check(keys: list[int]) -> None:
        map = made(Map("lru", MapType.LRU_HASH, 4, 4, 32))
        for key in keys:
            raw = key.to_bytes(4, sys.byteorder)
            map.update(raw, raw)
            assert map.lookup(raw) == raw
        assert len(map) == min(32, len(set(keys)))
        assert all(key == value for key, value in map.items())

    check()
