"""Global variables by name: initial values before the start, live memory afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import bpfc
from ir.diagnostics import RejectedError

OBJECT = Path(__file__).parents[2] / "objects" / "xdp_stats.o"
TELNET = bytes.fromhex("ffffffffffff 020000000001 0800 45000028 00000000 4006 0000 c0000201 c6336401")
TELNET += bytes.fromhex("1234 0017 00000000 00000000 5002 0000 0000 0000")


@pytest.fixture
def obj() -> bpfc.Loaded:
    return bpfc.load(OBJECT)


def test_variables_are_mappings_and_attributes(obj: bpfc.Loaded) -> None:
    assert dict(obj.data) == {"echo_port": 7}
    assert obj.rodata.blocked_port == 23
    assert list(obj.bss) == ["packets", "bytes", "malformed"]
    assert len(obj.globals) == 7


def test_a_constant_set_before_the_start_decides(obj: bpfc.Loaded) -> None:
    with obj.start() as rt:
        assert rt["xdp_stats"].run(TELNET).verdict == 1
    obj.rodata.blocked_port = 24
    assert obj.rodata["blocked_port"] == 24
    with obj.start() as rt:
        assert rt["xdp_stats"].run(TELNET).verdict == 2


def test_variables_of_a_started_object_are_its_memory(obj: bpfc.Loaded) -> None:
    with obj.start() as rt:
        rt["xdp_stats"].run(TELNET)
        assert (rt.bss.packets, rt.bss.bytes) == (1, len(TELNET))
        rt.bss["packets"] = 41
        rt["xdp_stats"].run(TELNET)
        assert rt.bss.packets == 42
    assert obj.bss.packets == 0


def test_constants_of_a_started_object_are_frozen(obj: bpfc.Loaded) -> None:
    with obj.start() as rt:
        assert rt.rodata.blocked_port == 23
        with pytest.raises(RejectedError) as caught:
            rt.rodata.blocked_port = 1
    assert caught.value.errno == 1


@pytest.mark.parametrize(("name", "value"), [("nope", 1), ("debug", "x"), ("blocked_port", 1 << 16)])
def test_what_does_not_fit_is_refused(obj: bpfc.Loaded, name: str, value: object) -> None:
    before = dict(obj.globals)
    with pytest.raises(RejectedError, match=name):
        obj.globals[name] = value
    assert dict(obj.globals) == before


def test_without_types_sizes_come_from_symbols(obj: bpfc.Loaded) -> None:
    bare = bpfc.Loaded(replace(obj.object, btf=None))
    assert bare.rodata.blocked_port == 23
    bare.rodata.blocked_port = 80
    assert bare.rodata["blocked_port"] == 80
    assert bare.rodata["xdp_stats.text"] == b"type %x, verdict %d\0"
    with pytest.raises(RejectedError):
        bare.rodata.blocked_port = 1 << 16


def test_a_word_that_holds_an_address_is_no_value(obj: bpfc.Loaded) -> None:
    name = "xdp_stat.data"
    moved = replace(obj.object.maps[name], relocated=((0, 2),))
    held = bpfc.Loaded(replace(obj.object, maps={**obj.maps, name: moved}))
    with pytest.raises(RejectedError) as caught:
        held.data.echo_port = 1
    assert caught.value.diagnostics[0].code == "relocated-variable"


def test_shared_constants_decide_by_what_they_hold_and_not_by_what_an_object_says() -> None:
    first, second = (bpfc.load(OBJECT.with_name("globals.o")) for _ in range(2))
    first.rodata["numbers"] = [1, 1, 1, 5]
    with first.start() as owner:
        constants = {name: view for name, view in owner.maps.items() if name.endswith(".rodata")}
        with second.start(maps=constants) as sharer:
            assert sharer.rodata["numbers"] == [1, 1, 1, 5]
            assert sharer["loop"].run(bytes(64)).ret == 3 << 8 | 3
    with second.start() as alone:
        assert alone["loop"].run(bytes(64)).ret == 3 << 8 | 9
