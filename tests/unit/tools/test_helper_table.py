"""docs/helpers.md says what the tables say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_of_helpers_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("helper_table", ROOT / "tools" / "helper_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said = (ROOT / "docs" / "helpers.md").read_text()
    assert said == module.page(), "run: python tools/helper_table.py > docs/helpers.md"
