"""Shared by all tests: the tests' own modules (the oracle) are importable, an interrupt reaches what they start, and what
tests share is made once."""

import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SPARK = Path(__file__).parent / "replay" / "spark"
# What a file says that makes something for more than one of its tests.
SHARED = ('scope="module"', "@cache")

sys.path.insert(0, str(Path(__file__).parent))

# Each worker's libraries start as many threads as there are cores: threads that wait by spinning would do it in each other's
# time. Read when OpenMP is loaded, here and in what the tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell that runs pytest in the background, or nohup, has it ignore these, and commands of the tests would inherit that.
for number, plain in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, plain)


_first: dict[Any, Any] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        if hasattr(module, "DRAW"):
            _first[module] = module.DRAW.bit_generator.state


@pytest.fixture(autouse=True)
def own_draws(request: pytest.FixtureRequest) -> None:
    """What a test draws does not depend on the tests that this worker ran before it."""
    if request.module in _first:
        request.module.DRAW.bit_generator.state = _first[request.module]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup` groups of tests by `group_of`: xdist_group, the marker, does nothing under pytest 9.2."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.split("::")[0]) or nodeid

    return Groups(config, log)


@cache
def group_of(path: Path) -> str | None:
    """Tests that share a Spark session, which takes half a minute to start, or what their file makes share a worker; others
    go to whoever is free."""
    if path.is_relative_to(SPARK):
        return "spark"
    text = path.read_text(encoding="utf-8")
    return path.stem if any(words in text for words in SHARED) else None
