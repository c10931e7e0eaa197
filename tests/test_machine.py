"""Limits of the machine are asked before they would end a run without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bidsim.machine import few_left, memory_limit


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_tightest_group_above_a_process_counts(tmp_path: Path) -> None:
    """Of both versions of control groups; what a container shows as its root too."""
    own = write(tmp_path / "own", "4:memory:/a/b\n3:cpuset:/\n0::/c/d.scope\n")
    groups = tmp_path / "groups"
    assert memory_limit(groups, own) is None
    assert memory_limit(groups, tmp_path / "none") is None
    write(groups / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(groups, own) is None
    write(groups / "memory" / "a" / "memory.limit_in_bytes", "3000000000\n")
    write(groups / "c" / "d.scope" / "memory.max", "max\n")
    assert memory_limit(groups, own) == 3_000_000_000
    write(groups / "memory.max", "2000000000\n")
    assert memory_limit(groups, own) == 2_000_000_000


def test_memory_given_is_at_most_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    from bidsim import machine
    from bidsim.cli import parse_memory
    from bidsim.errors import BidsimError

    monkeypatch.setattr(machine, "memory_limit", lambda: None)
    assert parse_memory("4GB") == 4_000_000_000
    monkeypatch.setattr(machine, "memory_limit", lambda: 2_000_000_000)
    assert parse_memory("4GB") == 1_800_000_000
    assert parse_memory("1.5GB") == 1_500_000_000
    monkeypatch.setattr(machine, "memory_limit", lambda: 600_000_000)
    with pytest.raises(BidsimError, match=r"at least 1GB of memory; this container or service has 0.60GB"):
        parse_memory("4GB")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(("gib", "needs"), [(0.5, "bidsim needs 4"), (20, "the report's charts needs 80")])
def test_too_few_addresses_are_told_before_the_work(gib: float, needs: str, tmp_path: Path) -> None:
    code = (
        f"import resource, runpy; resource.setrlimit(resource.RLIMIT_AS, ({int(gib * 2**30)},) * 2); "
        "runpy.run_module('bidsim', run_name='__main__')"
    )
    words = ["replay", "--scenario", "s.yaml", "--out", "out"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"ulimit -v lets this process have {gib:.1f} GiB of addresses, and {needs}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_library_says_for_want_of_memory_is_known() -> None:
    assert few_left(MemoryError())
    assert few_left(RuntimeError("can't start new thread"))
    assert few_left(ImportError("libx.so: failed to map segment from shared object"))
    assert few_left(OSError(12, "Cannot allocate memory"))
    assert not few_left(RuntimeError("dictionary changed size during iteration"))
    assert not few_left(ImportError("No module named 'x'"))
