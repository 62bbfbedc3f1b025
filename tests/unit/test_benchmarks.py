"""The benchmark suite runs and writes its reports, with a native side and without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import agreement, tracing, verifying
from benchmarks.calls import measure_calls
from benchmarks.native import compile_library, find_compiler
from benchmarks.peers.raw import measure

ROOT = Path(__file__).parent.parent.parent


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    reports = ["--json", str(folder / "r.json"), "--html", str(folder / "r.html"), "--rounds", "2"]
    command = [sys.executable, "-m", "benchmarks", *arguments, *reports]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_program_is_measured_against_native_code(tmp_path: Path) -> None:
    done = _run(tmp_path, "jhash", "--cc", "cc")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["schema"] == "bpfc.bench/1"
    assert 0 < report["programs"][0]["ratios"]["bpfc"] < 20
    assert "<svg" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_without_a_compiler_there_are_times_but_no_ratios(tmp_path: Path) -> None:
    done = _run(tmp_path, "jhash", "--cc", "no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no native side" in done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["geomean"] is None
    assert report["programs"][0]["timings"]["bpfc"]["best"] > 0
    assert "<svg" not in (tmp_path / "r.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_calls_are_measured_near_and_far(tmp_path: Path) -> None:
    costs = {cost.name: cost for cost in measure_calls(find_compiler("cc"), tmp_path)}
    assert costs["a hash step, called near"].target == 1.05
    assert costs["a hash step, called far"].target == 1.30
    assert all(0 < cost.value < 1000 for cost in costs.values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_programs_around_functions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CALLS", 2000), ("FEW", 20), ("MOST", 4), ("CYCLES", 8), ("TRIES", 1)):
        monkeypatch.setattr(tracing, name, value)
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    costs = {cost.name: cost for cost in tracing.measure_tracing(find_compiler("cc"), tmp_path)}
    assert costs["an empty fentry program, over that"].target == 3.0
    assert costs["fentry and fexit, both empty, over that"].target == 6.0
    assert costs["4 empty programs, over that"].value > 0
    assert len(costs) == 11


def test_a_program_that_does_not_exist_is_bad_usage(tmp_path: Path) -> None:
    done = _run(tmp_path, "no-such-program")
    assert done.returncode == 2
    assert "no-such-program" in done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_adapter_for_raw_instructions_hands_over_code_and_bounds(tmp_path: Path) -> None:
    text = """#include <stdint.h>
    #include <stddef.h>
    double run_flat(const void *code, size_t size, void *memory, size_t memory_size, uint64_t runs) {
        uint8_t **bounds = memory;
        int is_whole = size % 8 == 0 && ((const uint8_t *)code)[size - 8] == 0x95 && memory_size == 16;
        return is_whole ? (bounds[1] - bounds[0]) * 1000.0 + runs : -1.0;
    }"""
    library = compile_library(find_compiler("cc"), tmp_path, "peer", text)
    packet = tmp_path / "packet"
    packet.write_bytes(bytes(64))
    program = str(ROOT / "benchmarks" / "programs" / "jhash.o")
    assert measure(str(library), program, "bench", str(packet), 7) == {"ns": 64007.0}


def test_an_adapter_without_its_library_says_so_as_an_answer(tmp_path: Path) -> None:
    packet = tmp_path / "packet"
    packet.write_bytes(bytes(64))
    program = str(ROOT / "benchmarks" / "programs" / "jhash.o")
    answer = measure(str(tmp_path / "none.so"), program, "bench", str(packet), 7)
    assert "none.so" in str(answer["error"])


def _report(path: Path, ratio: float, cost: float) -> str:
    program = {"name": "jhash", "ratios": {"native": 1.0, "bpfc": ratio, "kernel": None}}
    costs = [{"name": "a far call", "value": cost, "unit": "x"}, {"name": "link", "value": 1.0, "unit": "ms"}]
    path.write_text(json.dumps({"schema": "bpfc.bench/1", "programs": [program], "costs": costs}))
    return str(path)


def test_two_runs_agree_when_no_ratio_is_far_from_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _report(tmp_path / "bench-1.json", 1.0, 1.3)
    near, far = _report(tmp_path / "bench-2.json", 1.1, 1.25), _report(tmp_path / "far.json", 1.0, 1.6)
    assert agreement.main([one, near]) == 0
    assert agreement.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("2 of 2 ratios agree within 15 %") == 2
    assert agreement.main([one, far]) == 1
    assert "a far call" in capsys.readouterr().out.splitlines()[0]
    assert agreement.main([one, far, "--within", "25"]) == 0
    (tmp_path / "other.json").write_text("[]")
    assert agreement.main([one, str(tmp_path / "other.json")]) == 2
    assert agreement.main([one]) == 2


def test_verifying_is_measured_program_by_program() -> None:
    objects = ROOT / "tests" / "objects"
    took = list(verifying.measure([objects / "xdp_stats.o", objects / "extending.o"], tries=1))
    assert [each.is_accepted for each in took].count(True) > 1
    assert not all(each.is_accepted for each in took)
    assert all(each.ns > 0 for each in took)
    head, *rows = verifying.table(took)
    assert head.split() == ["insns", "programs", "median", "99", "%", "most", "an", "insn"]
    assert rows[-1].split()[1] == str(len(took))
