"""What the build backend does to the tree that it builds."""

from pathlib import Path

import pytest
from setuptools import build_meta

from tools import wheel_backend
from tools.wheel_backend import rewrite_imports


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("from ir.core import Block\n", "from bpfc.ir.core import Block\n"),
        ("from runtime import image\n", "from bpfc.runtime import image\n"),
        ("from backends.x import (\n    a,\n)\n", "from bpfc.backends.x import (\n    a,\n)\n"),
        ("from ir.a import x; from ir.b import y\n", "from bpfc.ir.a import x; from bpfc.ir.b import y\n"),
        ("é = 1; from  ir.a import é\r\n", "é = 1; from  bpfc.ir.a import é\r\n"),
        ("def f():\n    from ir.a import x\n", "def f():\n    from bpfc.ir.a import x\n"),
    ],
)
def test_imports_of_moved_floors_get_the_prefix(source: str, rewritten: str) -> None:
    assert rewrite_imports(source.encode(), "m.py").decode() == rewritten


@pytest.mark.parametrize(
    "source",
    [
        '"""from ir.core import Block"""\n',
        "# from ir.core import Block\n",
        "from irc.core import Block\n",
        "from bpfc.elf import read\n",
        "from .ir import core\n",
        "def f(ir):\n    yield from ir.core\n",
        "raise ValueError from ir.cause\n",
        "import irc\n",
    ],
)
def test_nothing_else_changes(source: str) -> None:
    assert rewrite_imports(source.encode(), "m.py").decode() == source


@pytest.mark.parametrize(
    "source",
    [
        "import ir.core\n",
        "import json, runtime\n",
        "import_module('ir.core')\n",
        "importlib.import_module(f'backends.targets.{name}')\n",
    ],
)
def test_what_no_prefix_can_move_is_refused(source: str) -> None:
    with pytest.raises(SyntaxError, match=r"^m\.py:1: "):
        rewrite_imports(source.encode(), "m.py")


def test_what_an_editable_install_serves_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for floor in ("bpfc", "ir/passes", "backends", "runtime"):
        (tmp_path / floor).mkdir(parents=True)
        (tmp_path / floor / "one.py").write_text("ONE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build_meta, "build_editable", lambda *_: "bpfc.whl")
    assert wheel_backend.build_editable("out") == "bpfc.whl"
    assert len(list(tmp_path.rglob("one.*.pyc"))) == 4
