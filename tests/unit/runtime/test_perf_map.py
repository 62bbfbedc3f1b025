"""What perf reads to name compiled functions."""

from __future__ import annotations

from pathlib import Path

from runtime.memory import Pool
from runtime.perf_map import write_perf_map
from tests.native import load_text


def test_each_function_has_a_line_with_start_size_and_name(tmp_path: Path) -> None:
    path = tmp_path / "perf.map"
    with Pool() as pool, load_text("define i64 @f() { ret i64 1 }", pool=pool) as image:
        write_perf_map(image, path=path)
        write_perf_map(image, "bpf_prog_{}".format, path)
        start = image.address_of("f")
    assert path.read_text() == f"{start:x} 6 f\n{start:x} 6 bpf_prog_f\n"
