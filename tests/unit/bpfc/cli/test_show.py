"""`bpfc show` and `bpfc btf`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]


def test_an_object_is_shown_whole(bpfc_json: RunJson, xdp: Path) -> None:
    said = bpfc_json("show", xdp)
    assert said["license"] == "Dual BSD/GPL"
    assert [one["name"] for one in said["programs"]] == ["xdp_stats"]
    assert said["programs"][0]["functions"][1] == {"name": "count_source", "insns": 24, "global": False}
    assert [one["key"] for one in said["maps"]][:2] == ["__be32", "__u32"]
    assert said["maps"][0]["value"] == "struct counters"
    assert {one["name"]: one["value"] for one in said["globals"]} == {
        "debug": 0,
        "blocked_port": 23,
        "xdp_stats.text": "type %x, verdict %d",
        "echo_port": 7,
        "packets": 0,
        "bytes": 0,
        "malformed": 0,
    }
    assert said["btf"]["types"] == 53
    assert {"xdp", ".maps", ".text", "license"} <= set(said["sections"])


@pytest.mark.parametrize("wanted", ["xdp_stats", "xdp", "xdp_*", "x?p"])
def test_a_program_is_named_by_function_section_or_glob(bpfc_json: RunJson, xdp: Path, wanted: str) -> None:
    said = bpfc_json("show", xdp, wanted)
    assert [one["name"] for one in said["programs"]] == ["xdp_stats"]
    assert "maps" not in said


def test_assembly_text_is_an_object_too(bpfc_json: RunJson, tmp_path: Path) -> None:
    source = tmp_path / "answer.s"
    source.write_text("r0 = 42\nexit\n")
    (program,) = bpfc_json("show", source)["programs"]
    assert (program["name"], program["insns"]) == ("main", 2)


def test_an_object_may_come_from_stdin(bpfc: Run, xdp: Path) -> None:
    said = bpfc("show", "-", stdin=xdp.read_bytes())
    assert said.exit_code == 0
    assert "sources" in said.stdout


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="bpftool is not installed")
def test_records_are_as_bpftool_prints_them(bpfc: Run, xdp: Path) -> None:
    theirs = subprocess.run(
        ["bpftool", "btf", "dump", "file", xdp], capture_output=True, text=True, check=True
    ).stdout
    assert bpfc("btf", "dump", xdp).stdout == theirs


def test_types_become_a_header(bpfc: Run, xdp: Path) -> None:
    said = bpfc("btf", "dump", xdp, "c", "--type", "counters").stdout
    assert "struct counters {\n\t__u64 packets;\n\t__u64 bytes;\n};\n" in said
    assert said.startswith("#ifndef BPFC_BTF_H\n")
    assert said.endswith("#endif /* BPFC_BTF_H */\n")


def test_types_become_json(bpfc_json: RunJson, xdp: Path) -> None:
    (record,) = bpfc_json("btf", "dump", xdp, "--type", "counters")["types"]
    assert (record["kind"], record["name"], record["size"]) == ("STRUCT", "counters", 16)
    assert [member["name"] for member in record["members"]] == ["packets", "bytes"]


def test_an_object_without_types_says_so(bpfc_json: RunJson, tmp_path: Path, xdp: Path) -> None:
    # A copy whose section names .BTF and .BTF.ext are others has no types.
    bare = tmp_path / "bare.o"
    bare.write_bytes(xdp.read_bytes().replace(b".BTF", b".XXX"))
    assert bpfc_json("btf", "dump", bare, code=1)["error"]["kind"] == "no-btf"
