"""Where the real logs lie, for tests that use them; absent, those tests skip and say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("BIDSIM_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def shared_data(name: str) -> Path:
    """The folder of a real log, or a skip with the reason."""
    folder = ROOT / name
    if not folder.is_dir():
        pytest.skip(f"the real log {name} is not at {ROOT} (set BIDSIM_SHARED_DATA)")
    return folder
