"""The header that is shipped, compiled by every clang that is installed, from 16 on and optimizing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bpfc
from tests.engines import require_emulator

ROOT = Path(__file__).parent.parent.parent
COMPILERS = [f"clang-{number}" for number in range(16, 24) if shutil.which(f"clang-{number}")]
SOURCE = """
#include "bpf.h"
#include "bpfc_static_key.h"

DEFINE_STATIC_KEY(one);
DEFINE_STATIC_KEY(two);
char _license[] SEC("license") = "GPL";

static inline int step(int x)
{
	if (bpf_static_branch_unlikely(&one))
		return x + 100;
	return x + 1;
}

SEC("xdp") int unrolled(struct xdp_md *ctx)
{
	int sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = step(sum);
	return sum;
}

SEC("xdp") int nested(struct xdp_md *ctx)
{
	if (bpf_static_branch_likely(&one) && !bpf_static_branch_unlikely(&two))
		return 1;
	return bpf_static_branch_unlikely(&two) || ctx->ingress_ifindex == 7 ? 2 : 3;
}

SEC("xdp") int looped(struct xdp_md *ctx)
{
	int sum = 0;

	for (__u32 i = 0; i < 10; i++) {
		if (bpf_static_branch_likely(&two))
			sum += i;
		else
			sum -= 1;
	}
	return sum & 0xffff;
}
"""
# (one, two) -> the programs' results
EXPECTED = {
    (False, False): (4, 3, 0xFFF6),
    (True, False): (400, 1, 0xFFF6),
    (False, True): (4, 2, 45),
    (True, True): (400, 2, 45),
}


def compile_source(compiler: str, folder: Path, *options: str) -> Path:
    source, made = folder / "keys.c", folder / "keys.o"
    source.write_text(SOURCE)
    include = ["-I", str(ROOT / "bpfc" / "include"), "-I", str(ROOT / "tests" / "objects")]
    command = [compiler, *options, "-g", "-Wall", "-Werror", *include, "-c", str(source), "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


def results(path: Path, target: str | None = None) -> dict[tuple[bool, bool], tuple[int, ...]]:
    """What the programs return in each state of the keys, one after the other."""
    seen = {}
    with bpfc.load(path).start(target=target) as runtime:
        for state in EXPECTED:
            for key, on in zip(("one", "two"), state, strict=True):
                runtime.static_keys[key].switch(on)
            seen[state] = tuple(
                runtime[name].run(bytes(64), {"ingress_ifindex": 10}).ret
                for name in ("unrolled", "nested", "looped")
            )
    return seen


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="no clang of version 16 or newer by its number")
@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_keys_work_whatever_compiled_them(compiler: str, level: str, tmp_path: Path) -> None:
    made = compile_source(compiler, tmp_path, "-target", "bpf", level)
    assert results(made) == EXPECTED
    assert bpfc.load(made).verify().ok


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="no clang of version 16 or newer by its number")
def test_a_compiler_that_does_not_optimize_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        compile_source(COMPILERS[-1], tmp_path, "-target", "bpf", "-O0")
    assert b"clang must optimize (-O1 or more)" in caught.value.stderr


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="no clang of version 16 or newer by its number")
def test_keys_work_in_big_endian_objects(tmp_path: Path) -> None:
    require_emulator("s390x")
    made = compile_source(COMPILERS[-1], tmp_path, "-target", "bpfeb", "-O2")
    assert results(made, "s390x") == EXPECTED
