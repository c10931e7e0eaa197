"""Many writers at once, some killed: what was confirmed is there and whole, and nothing half-written is taken for a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stored import make

from bidsim.errors import BidsimError
from bidsim.files import aside_of, write_file
from bidsim.models.archive import write_archive
from bidsim.result import Result
from bidsim.store.leaderboard import make_leaderboard
from bidsim.store.runs import write_run
from bidsim.store.scan import scan

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from stored import make, run_files
from bidsim.store.runs import write_run
folder, who = Path(sys.argv[1]), sys.argv[2]
for n in range(40):
    files = {"big.bin": bytes([n]) * 300_000, **run_files(make({f"{who}-{n}": {"cpa": 90.0 + n}}))}
    write_run(folder / f"run-{who}-{n}", files)
    print(n, flush=True)
"""


def test_eight_writers_at_once_of_which_two_are_killed(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(who), here], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for who in range(8)
    ]
    try:
        for victim in writers[:2]:
            assert victim.stdout is not None
            for _ in range(5):  # it has confirmed some and is at another
                assert victim.stdout.readline()
            victim.send_signal(signal.SIGKILL)
        seen = 0
        while any(w.poll() is None for w in writers):
            now = len(scan([tmp_path]).runs)  # a reader meanwhile sees whole runs only, and never fewer
            assert now >= seen
            seen = now
            time.sleep(0.02)
        confirmed = {who: w.communicate()[0].split() for who, w in enumerate(writers)}
    finally:
        for w in writers:
            w.kill()
            w.wait()
    assert [w.returncode for w in writers] == [-signal.SIGKILL] * 2 + [0] * 6
    found = scan([tmp_path])
    names = {r.name for r in found.runs}
    # The two readlines that were taken out before count too: runs 0 to 4 of the killed ones.
    promised = {f"run-{who}-{n}" for who in (0, 1) for n in range(5)}
    promised |= {f"run-{who}-{n}" for who, lines in confirmed.items() for n in lines}
    assert promised <= names
    assert len(promised) >= 6 * 40 + 10
    assert found.foreign == 0
    assert found.unfinished <= 2
    for run in found.runs:
        Result.model_validate_json((run.directory / "result.json").read_bytes())
        n = run.name.split("-")[2]
        assert (run.directory / "big.bin").read_bytes() == bytes([int(n)]) * 300_000
    (board,) = make_leaderboard([tmp_path], "cpa").boards
    assert len(board.entries) == len(names)


def test_what_a_killed_writer_began_is_cleared_by_the_next_of_that_place(tmp_path: Path) -> None:
    """Of this machine and of the dead only: another may be writing there at this moment."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stem = aside_of(tmp_path / "run").name.rpartition(".")[0]
    (tmp_path / f"{stem}.{int(gone.stdout)}-abc").mkdir()
    (tmp_path / f".m.bin{stem.removeprefix('.run')}.{int(gone.stdout)}").touch()
    (tmp_path / f"{stem}.{os.getppid()}-abc").mkdir()
    (tmp_path / f".run.elsewhere.{int(gone.stdout)}-abc").mkdir()
    (tmp_path / f"{stem.replace('.run', '.run2')}.{int(gone.stdout)}-abc").mkdir()
    write_run(tmp_path / "run", {"a": "1"})
    write_file(tmp_path / "f", "1")
    write_archive(tmp_path / "m.bin", {"a": b"1"})
    assert {p.name for p in tmp_path.iterdir()} == {
        "run",
        "f",
        "m.bin",
        f"{stem}.{os.getppid()}-abc",
        f".run.elsewhere.{int(gone.stdout)}-abc",
        f"{stem.replace('.run', '.run2')}.{int(gone.stdout)}-abc",
    }


def test_two_writers_of_one_place_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": "1"})
    with pytest.raises(BidsimError, match="exists already"):
        write_run(tmp_path / "run", {"a": "2"})
    assert (tmp_path / "run" / "a").read_text() == "1"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "board.html"
    write_file(target, "one")
    write_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["board.html"]
    with pytest.raises(BidsimError, match="can't be written"):
        write_file(target / "below", "x")


def test_numbers_and_hashes_are_those_of_the_result(tmp_path: Path) -> None:
    import hashlib

    from stored import store

    result = make({"v1": {"cpa": (90.0, 80.0, 99.0)}})
    run = store(tmp_path / "r", result)
    record = json.loads((run / "run.json").read_text())["record"]
    assert record["files"]["result.json"] == hashlib.sha256((run / "result.json").read_bytes()).hexdigest()
    (forecast,) = record["forecasts"]
    assert (forecast["baseline"], forecast["candidate"]) == (100.0, 90.0)
    assert forecast["relative"] == {"value": -0.1, "low": -0.2, "high": -0.01}
