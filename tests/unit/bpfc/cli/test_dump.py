"""`bpfc dump` and `bpfc compile`."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import bpfc as library
from ir.core import Module
from ir.explain import Notes
from ir.passes.fold_constants import FoldConstants

Run = Callable[..., Result]
RunJson = Callable[..., dict[str, Any]]

ELF = b"\x7fELF"


@pytest.fixture
def filter(objects: Path) -> Path:
    return objects / "socket_filter.o"


def test_a_listing_assembles_to_the_program_again(bpfc: Run, tmp_path: Path) -> None:
    source = tmp_path / "loop.s"
    source.write_text("r0 = 0\nagain:\nr0 += 1\nif r0 < 10 goto again\nexit\n")
    listing = bpfc("dump", "xlated", source).stdout
    insns = library.assemble(source.read_text()).programs["main"].insns
    assert library.assemble(listing).programs["main"].insns == insns


def test_c_lines_come_when_asked_for(bpfc: Run, filter: Path) -> None:
    line = "; return skb->len < SNAP ? skb->len : SNAP; @ ./tests/objects/socket_filter.c:25"
    assert line in bpfc("dump", "xlated", "-S", filter).stdout
    assert "SNAP" not in bpfc("dump", "xlated", filter).stdout
    assert "socket_filter.c:25" in bpfc("dump", "ir", "-S", filter).stdout


def test_instructions_come_as_json(bpfc_json: RunJson, filter: Path) -> None:
    (program,) = bpfc_json("dump", "xlated", filter)["programs"]
    assert program["insns"][0] == {
        "slot": 0,
        "text": "r6 = r1",
        "bytes": "bf16000000000000",
        "source": {
            "file": "./tests/objects/socket_filter.c",
            "line": 17,
            "column": 0,
            "text": program["insns"][0]["source"]["text"],
        },
    }
    (reference,) = [one["reference"] for one in program["insns"] if "reference" in one]
    assert reference == {"kind": "map-value", "name": "socket_f.bss", "offset": 0}


@pytest.mark.parametrize("form", ["xlated", "ir"])
def test_a_graph_has_a_node_for_each_block_and_an_edge_for_each_way(
    bpfc: Run, filter: Path, form: str
) -> None:
    level = ["--level", "O0"] if form == "ir" else []
    lines = bpfc("dump", form, "--visual", *level, filter).stdout.splitlines()
    assert lines[0] == 'digraph "udp_or_icmp" {'
    assert lines[-1] == "}"
    assert sum("[label=" in line for line in lines) == 5
    assert sum(" -> " in line for line in lines) == 7


def test_the_form_is_printed_pass_by_pass(bpfc: Run, xdp: Path) -> None:
    passes = "fold-rodata,fold-constants"
    said = bpfc("dump", "ir", xdp, "--pass-by-pass", "--passes", passes).stdout
    heads = [line.split(" (")[0] for line in said.splitlines() if line.startswith("; ")]
    assert heads == ["; lifted", "; after fold-rodata", "; after fold-constants"]


def test_the_form_is_printed_after_a_pass(bpfc: Run, filter: Path) -> None:
    said = bpfc("dump", "ir", filter, "--print-after", "fold-constants").stdout
    assert said.startswith("; after fold-constants (")
    assert said.count("program udp_or_icmp") == 1


def test_a_pass_that_is_not_run_has_nothing_after_it(bpfc: Run, filter: Path) -> None:
    for name, level in (("no-such-pass", "O2"), ("merge-blocks", "O1")):
        said = bpfc("dump", "ir", filter, "--print-after", name, "--level", level)
        assert (said.exit_code, said.stdout) == (1, "")
        assert f"no pass '{name}' is run" in said.stderr


def test_passes_over_bytecode_run_before_the_form_is_made(bpfc: Run, tmp_path: Path) -> None:
    source = tmp_path / "nops.s"
    source.write_text("r0 = 1\ngoto +0\nexit\n")
    assert "jump block 1" in bpfc("dump", "ir", source, "--level", "O0").stdout
    assert "jump" not in bpfc("dump", "ir", source, "--passes", "remove-nops").stdout
    assert "remove-nops" in bpfc("passes").stdout


def test_the_form_is_validated_after_each_pass(
    bpfc: Run, filter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bpfc("dump", "ir", filter)
    assert bpfc("dump", "ir", filter, "--validate-each").stdout == whole.stdout

    def damage(each: FoldConstants, module: Module, notes: Notes) -> bool:
        module.main.blocks.append(module.main.blocks[0])
        return True

    monkeypatch.setattr(FoldConstants, "run", damage)
    found = bpfc("dump", "ir", filter, "--validate-each").exception
    assert isinstance(found, AssertionError)
    assert str(found).startswith("after fold-constants: ")


@pytest.mark.parametrize("form", ["ir", "xlated", "llvm", "jited"])
def test_a_branch_is_explained_by_the_constant_that_decided_it(bpfc: Run, xdp: Path, form: str) -> None:
    first, second, sizes = bpfc("dump", form, xdp, "--explain-branches").stdout.splitlines()
    assert first.startswith("./tests/objects/xdp_stats.c:183:6: branch at insn ")
    assert first.endswith("always taken")
    assert second.strip().startswith(
        "debug = 0x0 (xdp_stat.rodata+0x0, 4 bytes), read at ./tests/objects/xdp_stats.c:183"
    )
    assert re.fullmatch(r"\d+ of \d+ operations are left; \d+ bytes of native code, \d+ without", sizes)


def test_what_constants_decided_is_part_of_the_json(
    bpfc: Run, bpfc_json: RunJson, xdp: Path, tmp_path: Path
) -> None:
    output = tmp_path / "code.o"
    (compiled,) = bpfc_json("compile", xdp, "-o", output, "--explain-branches")["explanations"]
    ran = bpfc_json("run", xdp, "--explain-branches")["explanation"]
    assert compiled == ran
    assert [cause["variable"] for branch in ran["branches"] for cause in branch["because"]] == ["debug"]
    assert ran["native_bytes"] < ran["native_bytes_without"]
    assert "debug = 0x0" in bpfc("compile", xdp, "-o", output, "--explain-branches").stderr
    assert "debug = 0x0" in bpfc("run", xdp, "--explain-branches").stdout


@pytest.mark.parametrize("form", ["xlated", "ir"])
def test_branches_of_the_other_byte_order_are_explained(bpfc: Run, objects: Path, form: str) -> None:
    said = bpfc("dump", form, objects / "xdp_stats.eb.o", "--explain-branches").stdout
    assert "debug = 0x0" in said


def test_a_program_that_needs_its_branches_decided_is_explained(bpfc: Run, objects: Path) -> None:
    said = bpfc("dump", "ir", objects / "globals.o", "guarded", "--explain-branches").stdout
    assert "use_missing = 0x0 (globals.rodata+" in said
    assert said.endswith("without, it would be refused: there is no helper 2000\n")


def test_live_instructions_are_those_that_constants_leave(bpfc: Run, objects: Path) -> None:
    words = ("dump", "xlated", objects / "globals.o", "guarded")
    assert "call 2000" in bpfc(*words).stdout
    assert "call" not in bpfc(*words, "--live").stdout


def test_llvm_ir_is_shown_before_and_after_llvm_s_passes(bpfc: Run, filter: Path) -> None:
    after = bpfc("dump", "llvm", filter).stdout
    before = bpfc("dump", "llvm", "--unoptimized", filter).stdout
    assert "i64 @udp_or_icmp(" in after
    assert "i64 @udp_or_icmp(" in before
    assert "local_unnamed_addr" in after  # what LLVM found out
    assert "local_unnamed_addr" not in before


def test_native_code_has_symbols(bpfc: Run, bpfc_json: RunJson, filter: Path) -> None:
    said = bpfc_json("dump", "jited", filter)
    assert said["target"] == platform.machine()
    (symbol,) = [one for one in said["symbols"] if one["name"] == "udp_or_icmp"]
    assert (symbol["section"], symbol["offset"]) == (".text", 0)
    listed = bpfc("dump", "jited", "--symbols", filter).stdout
    assert f"{symbol['size']:6}  .text  udp_or_icmp\n" in listed
    assert "undefined  value.socket_f.bss" in listed


def test_native_code_is_disassembled_or_shown_as_llvm_writes_it(bpfc: Run, filter: Path) -> None:
    assembly = bpfc("dump", "jited", "--llvm-asm", filter).stdout
    assert "udp_or_icmp:\n" in assembly
    assert ".globl" in assembly
    pytest.importorskip("capstone")
    disassembly = bpfc("dump", "jited", filter).stdout
    assert "udp_or_icmp:\n" in disassembly
    assert ".globl" not in disassembly
    assert "value.socket_f.bss" in disassembly


def test_lines_of_c_stand_before_the_native_code_that_is_for_them(
    bpfc: Run, bpfc_json: RunJson, filter: Path
) -> None:
    pytest.importorskip("capstone")
    disassembly = bpfc("dump", "jited", "-S", filter).stdout
    assert "socket_filter.c:25:" in disassembly
    assert "return skb->len < SNAP ? skb->len : SNAP;" in disassembly
    assert "SNAP" not in bpfc("dump", "jited", filter).stdout
    lines = bpfc_json("dump", "jited", "-S", filter)["lines"]
    assert {line["section"] for line in lines} == {".text"}
    assert max(line["insn"] for line in lines) > 0


def test_calls_are_reported_near_or_far_and_why(bpfc: Run, bpfc_json: RunJson, objects: Path) -> None:
    said = bpfc_json("dump", "link", objects / "map_ops.o", "array")
    names = [function["name"] for function in said["functions"]]
    assert names[0] == "array"
    (main, *_) = said["functions"]
    assert main["size"] > 0
    for call in said["calls"]:
        assert (call["reach"], call["why"]) == ("near", "in reach")
    text = bpfc("dump", "link", objects / "map_ops.o", "array").stdout
    assert f"{main['size']:6}  array\n" in text


@pytest.mark.parametrize(("emit", "start"), [("obj", ELF), ("asm", b"\t.file"), ("llvm", b"; ModuleID")])
def test_a_program_is_compiled_to_a_file(
    bpfc: Run, filter: Path, tmp_path: Path, emit: str, start: bytes
) -> None:
    output = tmp_path / "out"
    assert bpfc("compile", filter, "--emit", emit, "-o", output).exit_code == 0
    assert output.read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert bpfc("compile", filter, "--emit", emit).stdout_bytes.startswith(start)


def test_constants_specialize_the_code(bpfc_json: RunJson, xdp: Path) -> None:
    quiet = bpfc_json("compile", xdp, "--emit", "llvm")["content"]
    loud = bpfc_json("compile", xdp, "--emit", "llvm", "--set", "debug=1")["content"]
    assert "helper.6" not in quiet
    assert "helper.6" in loud


def test_what_cannot_be_written_is_an_error(bpfc: Run, filter: Path, tmp_path: Path) -> None:
    result = bpfc("compile", filter, "-o", tmp_path / "no" / "such" / "folder")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
