"""Work folders are gone at the end of a command, and those of killed ones when the next starts; nobody else's are touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bidsim.scratch import LOCK, clear_left, scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from bidsim.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (Path(folder) / "spill").mkdir()
    (Path(folder) / "spill" / "rows").write_bytes(b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_is_gone_when_the_next_starts(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1  # the second one has cleared what the first left
    with scratch(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [Path(folder)]
        with scratch(tmp_path):  # of one that is alive nothing is touched
            assert Path(folder, LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_only_folders_of_our_own_are_cleared(tmp_path: Path) -> None:
    """Such as a checkout below TMPDIR that is called bidsim-something, or a link to somewhere else."""
    (tmp_path / "bidsim-checkout").mkdir()
    (tmp_path / "bidsim-checkout" / "work").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / LOCK).touch()
    (tmp_path / "bidsim-link").symlink_to(tmp_path / "other")
    clear_left(tmp_path)
    assert (tmp_path / "bidsim-checkout" / "work").exists()
    assert (tmp_path / "other" / LOCK).exists()


def test_an_interrupt_while_a_folder_is_removed_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bidsim.scratch as module

    real, calls = module._remove, []

    def interrupted(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(folder)

    monkeypatch.setattr(module, "_remove", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
