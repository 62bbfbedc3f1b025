"""The command line as a process: what it imports, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
OBJECT = "tests/objects/xdp_stats.o"
ANSWER = "b7 00 00 00 2a 00 00 00 95 00 00 00 00 00 00 00\n"
SLOW = {"llvmlite", "networkx", "numpy", "elftools", "rich", "unicorn", "capstone"}


def start(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `bpfc` to its end."""
    command = [sys.executable, "-m", "bpfc", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]  # options of subprocess.run


def imported(*words: str, stdin: str = "") -> set[str]:
    """The modules that a command has imported when it ends."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        f"sys.argv = ['bpfc', *{words!r}]; from bpfc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, input=stdin
    )
    return set(done.stderr.split())


def test_help_imports_nothing_slow() -> None:
    assert not SLOW & imported("--help")


def test_showing_an_object_needs_no_llvm_and_no_rich() -> None:
    assert not (SLOW - {"elftools"}) & imported("show", OBJECT)


def test_the_conformance_plugin_starts_without_the_command_line() -> None:
    modules = imported("conformance-plugin", "--engine", "interpreter", stdin=ANSWER)
    assert "ir.interpreter" in modules
    assert not {"click", "bpfc.running", *SLOW} & modules


def test_a_plain_program_runs_without_maps_hooks_helpers_and_types() -> None:
    modules = imported("conformance-plugin", stdin=ANSWER)
    assert "bpfc.running" in modules
    assert not {"click", "elftools"} & modules
    assert not {name for name in modules if name.startswith(("runtime.maps.", "backends.helpers.", "ir.btf"))}
    assert not {"backends.trampoline", "runtime.hook_space", "ir.interpreter"} & modules


@pytest.mark.parametrize("engine", ["native", "interpreter"])
def test_the_conformance_plugin_answers(engine: str) -> None:
    done = start("conformance-plugin", "--engine", engine, input=ANSWER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2a\n", "")


def test_the_plugin_is_found_behind_a_global_option_too() -> None:
    assert (
        start("-q", "conformance-plugin", "00 01", "--engine", "interpreter", input=ANSWER).stdout == "2a\n"
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", OBJECT), 0),
        (("show", OBJECT, "nope"), 1),
        (("nope",), 2),
        ((), 2),
        (("show", "README.md"), 3),
        (("compile", OBJECT, "--arch", "vax"), 4),
    ],
)
def test_a_process_ends_with_the_code_of_its_answer(words: tuple[str, ...], code: int) -> None:
    assert start(*words).returncode == code


def test_a_reader_that_has_enough_is_no_error() -> None:
    script = f"{sys.executable} -m bpfc btf dump {OBJECT} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[1] PTR '(anon)' type_id=3\n", "")
    assert done.returncode in (0, 141)  # 0 when it had written all before head went


def test_a_closed_pipe_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "bpfc", "dump", "xlated", OBJECT]
    process = subprocess.Popen(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ("conformance-plugin", "--engine", "interpreter"),
        ("show", OBJECT),
        ("-j", "show", OBJECT),
        ("-j", "show", "nope"),
        ("compile", OBJECT, "--arch", "bpfel", "--emit", "asm", "-o", "-"),
        ("--help",),
    ],
)
def test_a_full_disk_is_said_on_stderr(words: tuple[str, ...], unbuffered: str) -> None:
    command = [sys.executable, "-m", "bpfc", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        common = {"cwd": ROOT, "input": ANSWER, "text": True, "env": environment, "check": False}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, **common)  # type: ignore[call-overload]  # as above
        assert (done.returncode, done.stderr) == (
            2,
            "bpfc: error: cannot write: No space left on device\n",
        )
        assert subprocess.run(command, stdout=full, stderr=full, **common).returncode == 2  # type: ignore[call-overload]  # as above


def test_a_full_disk_under_a_file_is_said_too() -> None:
    done = start("-j", "run", OBJECT, "--pcap", "tests/objects/sample.pcap", "--pcap-out", "/dev/full")
    assert done.returncode == 2
    assert json.loads(done.stdout.splitlines()[-1])["error"]["kind"] == "cannot-write"


def test_closed_streams_are_as_if_they_led_nowhere() -> None:
    script = (
        f"{sys.executable} -m bpfc show {OBJECT} <&- >&- 2>&-; echo $?; {sys.executable} -m bpfc show - <&-"
    )
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("0\n", 3)
    assert "not-elf" in done.stderr


def test_an_interrupt_ends_with_130() -> None:
    command = [sys.executable, "-m", "bpfc", "show", "-"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(1 << 20))  # more than a pipe holds: when this returns, it is reading
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"")


def test_long_work_shows_progress_to_a_terminal_only() -> None:
    words = [sys.executable, "-m", "bpfc", "-j", "run", OBJECT, "--pcap", "tests/objects/sample.pcap"]
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*words, "--repeat", "60"], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, check=True, text=True
    )
    os.close(theirs)
    assert b"packets" in os.read(ours, 1 << 16)
    os.close(ours)
    assert json.loads(done.stdout)["runs"] == 30_000
    assert start(*words[3:], "--repeat", "60").stderr == ""
