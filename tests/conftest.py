"""What every test may rely on: hypothesis profiles, `--bless`, and skips where something is absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from runtime.kernel import bpf_refusal
from tests.sprinkling import sprinkle_everything

ROOT = Path(__file__).parent.parent
SPRINKLE = os.environ.get("BPFC_SPRINKLE", "")

SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True, derandomize=True)
settings.register_profile(
    "fuzz", max_examples=100_000, deadline=None, print_blob=True, suppress_health_check=SLOW_IS_FINE
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--bless`."""
    parser.addoption("--bless", action="store_true", help="rewrite golden files with what the code says now")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `kernel` tests where the running kernel does not let us call bpf(2), `unsprinkled` ones under BPFC_SPRINKLE."""
    if item.get_closest_marker("unsprinkled") and SPRINKLE:
        pytest.skip("what it says is not so with other code between")
    if item.get_closest_marker("kernel") and not may_call_bpf():
        pytest.skip("bpf(2) is not permitted here")


@pytest.fixture(scope="session", autouse=True)
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An object cache of this session's own: never the user's, and never code of an older compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def sprinkled() -> Iterator[None]:
    """With BPFC_SPRINKLE=SEED, static branches that are off in every program: what tests expect must not change."""
    if not SPRINKLE:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        sprinkle_everything(patch, SPRINKLE)
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare text with a golden file; with `--bless`, write the file instead."""
    bless: bool = request.config.getoption("--bless")

    def check(path: Path, text: str) -> None:
        if bless:
            path.write_text(text)
        assert path.exists(), f"{path.name} is missing: run `make bless` and read it"
        assert text == path.read_text()

    return check


@pytest.fixture(scope="session")
def debian_objects() -> Path:
    """The folder that `tools/fetch_objects.sh` fills with real BPF objects; skips where nobody ran it."""
    folder = Path(os.environ.get("BPFC_DEBIAN_OBJECTS", ROOT / ".cache" / "debian"))
    if not folder.is_dir():
        pytest.skip("no Debian objects here: run tools/fetch_objects.sh")
    return folder


@cache
def may_call_bpf() -> bool:
    """Whether the running kernel lets us."""
    return bpf_refusal() == ""
