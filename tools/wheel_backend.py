"""The build backend: setuptools, with the floors moved under the one name `bpfc` while a wheel is built.

    checkout                    wheel
    ir/core.py                  bpfc/ir/core.py
      from ir.isa import Insn     from bpfc.ir.isa import Insn
    bpfc/api.py                 bpfc/api.py
      from runtime.image ...      from bpfc.runtime.image ...

A folder `runtime/` or a file `ir.py` of the user's own can then not shadow ours. An editable install serves
the checkout as it is; a source distribution holds it as it is, this backend included, and so builds the same
wheel.
"""

from __future__ import annotations

import ast
import compileall
import os
import re
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

OWNER = "bpfc"
MOVED = ("backends", "ir", "runtime")
METADATA = ("pyproject.toml", "README.md", "LICENSE")
FROM = re.compile(rb"from\s+(?=\w)")

ConfigSettings = dict[str, str | list[str] | None]


def build_wheel(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel from a staged copy of the tree and return its file name (PEP 517)."""
    target = os.path.abspath(wheel_directory)
    with tempfile.TemporaryDirectory() as stage:
        stage_tree(Path.cwd(), Path(stage))
        with chdir(stage):
            name: str = build_meta.build_wheel(target, config_settings)
    return name


def build_editable(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel of an editable install and return its file name (PEP 660); what it serves is compiled as pip compiles.

    Without, a process that may not write bytecode (PYTHONDONTWRITEBYTECODE) would compile all it imports, every time.
    """
    for floor in (OWNER, *MOVED):
        compileall.compile_dir(floor, quiet=2)
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def stage_tree(checkout: Path, stage: Path) -> None:
    """Copy what a wheel holds from `checkout` to `stage`, moved and rewritten."""
    for name in METADATA:
        shutil.copy(checkout / name, stage)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(checkout / OWNER, stage / OWNER, ignore=unwanted)
    for floor in MOVED:
        shutil.copytree(checkout / floor, stage / OWNER / floor, ignore=unwanted)
    for path in sorted((stage / OWNER).rglob("*.py")):
        path.write_bytes(rewrite_imports(path.read_bytes(), str(path.relative_to(stage))))


def rewrite_imports(source: bytes, name: str) -> bytes:
    """Prefix the moved floors in every `from FLOOR... import` of module `name`; nothing else changes.

    Raises SyntaxError for what no prefix can move: `import FLOOR...` binds the bare name, and a module that
    import_module() is given as text belongs to `__package__`.
    """
    tree = ast.parse(source, name)
    check_movable(tree, name)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and is_of_floor(node)]
    lines = source.splitlines(keepends=True)
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        start = FROM.match(line, node.col_offset)
        assert start is not None, f"{name}:{node.lineno}: `from` and its module stand on one line"
        lines[node.lineno - 1] = line[: start.end()] + OWNER.encode() + b"." + line[start.end() :]
    return b"".join(lines)


def check_movable(tree: ast.Module, name: str) -> None:
    """Raise SyntaxError at the first mention of a floor that the move would break."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if any(is_moved(alias.name) for alias in names):
                raise SyntaxError(f"{name}:{node.lineno}: write `from FLOOR.module import name`")
            case ast.Call(args=[module, *_]) if calls_import_module(node) and is_moved(leading_text(module)):
                raise SyntaxError(f"{name}:{node.lineno}: name the module relative to `__package__`")
            case _:
                pass


def calls_import_module(call: ast.Call) -> bool:
    """Tell whether a call is `import_module(...)` or `importlib.import_module(...)`."""
    match call.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name == "import_module"
        case _:
            return False


def leading_text(node: ast.expr) -> str:
    """Return the text that a string or f-string starts with, as far as it is constant."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return leading_text(first)
        case _:
            return ""


def is_of_floor(node: ast.ImportFrom) -> bool:
    """Tell whether a statement imports absolutely, from a floor that moves."""
    return node.level == 0 and is_moved(node.module or "")


def is_moved(module: str) -> bool:
    """Tell whether `module` lies in a floor that a wheel moves."""
    return module.partition(".")[0] in MOVED
