"""All of Debian's BPF objects are read, except those that were made to be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfc.elf.reader import read_object
from bpfc.testing.readers import OBJECT
from ir.diagnostics import DiagnosticError
from tools.collect_objects import iterate_objects

REFUSED = {
    "invalid_map-eb.elf": "unknown-map-options",
    "invalid_map-el.elf": "unknown-map-options",
    "invalid_map_static-eb.elf": "static-map",
    "invalid_map_static-el.elf": "static-map",
}


def test_every_object_is_read_or_precisely_refused(debian_objects: Path) -> None:
    objects = iterate_objects(debian_objects)
    outcomes = {name: OBJECT.outcome(data, name) for name, data in objects}
    refused = {Path(name).name: outcome for name, outcome in outcomes.items() if outcome != "object"}
    assert outcomes
    assert refused == {name: code for name, code in REFUSED.items() if name in refused}


def test_both_byte_orders_of_an_object_say_the_same(debian_objects: Path) -> None:
    found = dict(iterate_objects(debian_objects))
    little_ones = [name for name in found if name.endswith("-el.elf")]
    pairs = [(found[name], found[name.replace("-el.elf", "-eb.elf")]) for name in little_ones]
    if not pairs:
        pytest.skip("no objects in both byte orders here")
    for little, big in pairs:
        try:
            one, other = read_object(little, "x.o"), read_object(big, "x.o")
        except DiagnosticError:
            continue
        assert {name: m.value_size for name, m in one.maps.items()} == {
            name: m.value_size for name, m in other.maps.items()
        }
        assert {name: len(program.insns) for name, program in one.programs.items()} == {
            name: len(program.insns) for name, program in other.programs.items()
        }
