"""Collect the BPF objects of an unpacked package: `collect_objects.py TREE FOLDER`.

Some packages ship objects as files, others carry them inside executables, as libbpf skeletons:

    usr/lib/bpf/xdpfilt_all.o  ->  FOLDER/xdpfilt_all.o
    usr/sbin/opensnoop         ->  FOLDER/opensnoop-1.o     the first object inside

Needs no package of ours and none of anybody's, so that it runs before anything is installed.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"\x7fELF"
CLASS_64 = 2
BYTE_ORDERS = {1: "<", 2: ">"}  # e_ident[EI_DATA]
EM_BPF = 247
HEADER_SIZE = 64


def main() -> None:
    """Write every object found under TREE into FOLDER, one line of summary to stdout."""
    tree, folder = map(Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for path, data in iterate_objects(tree):
        target = folder / Path(path).name
        assert not target.exists() or target.read_bytes() == data, target.name
        target.write_bytes(data)
        count += 1
    sys.stdout.write(f"{folder.name}: {count} objects\n")


def iterate_objects(tree: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every object under `tree` by its path there; those inside of executables are numbered."""
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        name = str(path.relative_to(tree))
        for number, (start, end) in enumerate(find_objects(data), 1):
            yield name if start == 0 else f"{name}-{number}.o", data[start:end]


def find_objects(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end, in bytes, of each 64-bit ELF object for BPF inside `data`."""
    start = data.find(MAGIC)
    while start >= 0:
        size = object_size(data[start:])
        if size:
            yield start, start + size
        start = data.find(MAGIC, start + max(size, 1))


def object_size(data: bytes) -> int:
    """Return the size of the BPF object that starts `data`, 0 when something else does.

    LLVM and libbpf both write the section headers last, so their end is the object's end.
    """
    if len(data) < HEADER_SIZE or data[4] != CLASS_64 or data[5] not in BYTE_ORDERS:
        return 0
    order = BYTE_ORDERS[data[5]]
    (machine,) = struct.unpack_from(order + "H", data, 18)
    (headers_at,) = struct.unpack_from(order + "Q", data, 40)
    header_size, header_count = struct.unpack_from(order + "HH", data, 58)
    end = int(headers_at + header_size * header_count)
    return end if machine == EM_BPF and end <= len(data) else 0


if __name__ == "__main__":
    main()
