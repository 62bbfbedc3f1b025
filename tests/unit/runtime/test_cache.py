"""The cache on disk: whole entries or none, whoever writes, whatever happens to the files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backends.native_code import NativeCode, Section
from runtime.cache import ObjectCache, default_folder

KEY = bytes(range(32))


def code_of(contents: bytes) -> NativeCode:
    return NativeCode("x86_64", (Section(".text", contents, len(contents), 16, True, False),), (), ())


def the_file(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


def test_what_was_put_is_got_by_another_process_too(tmp_path: Path) -> None:
    ObjectCache(tmp_path).put(KEY, code_of(b"code"))
    script = (
        "import sys; from pathlib import Path; from runtime.cache import ObjectCache\n"
        "print(ObjectCache(Path(sys.argv[1])).get(bytes(range(32))).sections[0].data)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, check=True, env=environment
    )
    assert found.stdout == b"b'code'\n"


def test_an_unknown_key_misses(tmp_path: Path) -> None:
    assert ObjectCache(tmp_path / "nowhere").get(KEY) is None


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"bpfcode\0"], ids=["empty", "zeros", "header"])
def test_a_damaged_entry_misses_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KEY, code_of(b"old"))
    the_file(tmp_path).write_bytes(damage)
    assert cache.get(KEY) is None
    cache.put(KEY, code_of(b"new"))
    assert cache.get(KEY) == code_of(b"new")


def test_an_entry_cut_short_at_any_byte_misses(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KEY, code_of(b"0123456789"))
    whole = the_file(tmp_path).read_bytes()
    for length in range(len(whole)):
        the_file(tmp_path).write_bytes(whole[:length])
        assert cache.get(KEY) is None


def test_an_entry_with_any_bit_flipped_misses(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KEY, code_of(b"0123456789"))
    whole = the_file(tmp_path).read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        the_file(tmp_path).write_bytes(flipped)
        assert cache.get(KEY) is None


def test_only_the_owner_may_look_inside(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    ObjectCache(folder).put(KEY, code_of(b"code"))
    for path in (folder, the_file(folder).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(folder).stat().st_mode) == 0o600


def test_an_entry_that_others_could_have_written_misses(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KEY, code_of(b"code"))
    the_file(tmp_path).chmod(0o620)
    assert cache.get(KEY) is None


def test_a_folder_that_can_not_be_made_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = ObjectCache(blocked / "cache")
    cache.put(KEY, code_of(b"code"))
    assert cache.get(KEY) is None


def test_the_entries_used_longest_ago_go_when_the_bound_is_passed(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, largest=10_000)
    for number in range(8):
        cache.put(bytes([number]) * 32, code_of(bytes(2000)))
        os.utime(_entry(tmp_path, number), (number, number))
    cache.evict()
    kept = [number for number in range(8) if cache.get(bytes([number]) * 32) is not None]
    assert kept == [5, 6, 7]


def _entry(folder: Path, number: int) -> Path:
    name = (bytes([number]) * 32).hex()
    return folder / name[:2] / name


def test_readers_never_see_half_of_what_writers_replace(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    versions = [code_of(bytes([number]) * 50_000) for number in range(2)]
    cache.put(KEY, versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                cache.put(KEY, version)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = [cache.get(KEY) for _ in range(200)]
    stop.set()
    for writer in writers:
        writer.join()
    assert all(found in versions for found in seen)
    assert the_file(tmp_path).name == KEY.hex()


def test_the_environment_says_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("BPFC_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path("/home/somebody/.cache/bpfc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/somebody")
    assert default_folder() == Path("/var/cache/somebody/bpfc")
    monkeypatch.setenv("BPFC_CACHE_DIR", "/elsewhere")
    assert default_folder() == Path("/elsewhere")
