"""A log that changes while it is read is told, whatever happens to it: never numbers of two logs at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SCENARIO, log, write_log

import bidsim
from bidsim.errors import LogError
from bidsim.replay.progress import Silent

SMALL = log().slice(0, 400)


class At(Silent):
    """Does something to the log when a step begins."""

    def __init__(self, step: str, change: Callable[[], object]) -> None:
        self.when, self.change = step, change

    def step(self, name: str) -> None:
        if name.startswith(self.when):
            self.change()


def folder_of(tmp_path: Path, ending: str) -> Path:
    for part in range(3):
        write_log(tmp_path / "log" / f"{part}.{ending}", SMALL.slice(part * 100, 100))
    return tmp_path / "log"


def replay(place: str, step: str, change: Callable[[], object]) -> bidsim.Result:
    return bidsim.replay(SCENARIO, tables={"ad": place}, threads=1, progress=At(step, change))


def other(file: Path) -> None:
    """Another log of the same size takes the file's place, with the same time."""
    state = file.stat()
    content = file.read_bytes()
    spare = file.with_name(".spare")
    spare.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    os.utime(spare, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(spare, file)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def append(file: Path) -> None:
    with open(file, "ab") as stream:
        stream.write(file.read_bytes().splitlines(keepends=True)[-1])


def touch(file: Path) -> None:
    os.utime(file)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut, "1.{}: table ad: the file was cut while the log was read"),
    "removed": (lambda f: f.unlink(), "1.{}: table ad: the file disappeared while the log was read"),
    "grown": (append, "1.{}: table ad: the file grew while the log was read"),
    "rewritten": (touch, "1.{}: table ad: the file was changed while the log was read"),
    "replaced": (other, "1.{}: table ad: the file was replaced by another while the log was read"),
    "joined by another": (
        lambda f: shutil.copy(f, f.with_name(f"9{f.suffix}")),
        "9.{}: table ad: the file came to the log while the log was read",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize(("ending", "step"), [("parquet", "reading"), ("csv", "reading"), ("parquet", "reducing")])
def test_a_log_that_changes_while_it_is_read_is_told(ending: str, step: str, case: str, tmp_path: Path) -> None:
    """Before its rows are read, or when bidsim goes on with its own copies of them."""
    folder = folder_of(tmp_path, ending)
    change, message = CHANGES[case]
    with pytest.raises(LogError) as raised:
        replay(str(folder), step, lambda: change(folder / f"1.{ending}"))
    assert message.format(ending) in str(raised.value)
    assert "run again" in str(raised.value)


def test_of_a_glob_only_what_it_matches_counts_and_hidden_folders_never(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "parquet")
    shutil.copytree(folder, folder / "_temporary" / "0")  # of a writer that is at work

    def others() -> None:
        (folder / "notes.txt").write_text("x")
        shutil.copy(folder / "1.parquet", folder / ".part-7.parquet")
        shutil.copytree(folder / "_temporary" / "0", folder / "_temporary" / "1")

    whole = replay(str(folder), "reading", others)
    assert whole.data.rows == 300
    some = replay(f"{folder}/[01].parquet", "reading", lambda: shutil.copy(folder / "1.parquet", folder / "8.parquet"))
    assert some.data.rows == 200
    (folder / "8.parquet").unlink()
    with pytest.raises(LogError, match=r"8.parquet: .* came to the log"):
        replay(f"{folder}/*.parquet", "reading", lambda: shutil.copy(folder / "1.parquet", folder / "8.parquet"))


def test_a_table_of_campaigns_that_changes_is_told(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", SMALL)
    (tmp_path / "c.csv").write_text("ad_id,daily_budget\n3,5\n7,5\n12,5\n")
    scenario = {
        **SCENARIO,
        "campaigns": str(tmp_path / "c.csv"),
        "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
    }
    assert bidsim.replay(scenario, threads=1).data.rows == 400
    with pytest.raises(LogError, match=r"c.csv: table campaigns: the file grew"):
        bidsim.replay(scenario, threads=1, progress=At("reducing", lambda: append(tmp_path / "c.csv")))
