"""What a command prints where, and what it leaves when somebody stops it (spec section 6, exit status)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from command import bidsim, log, process, write_log, write_model, write_scenario


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_log(folder / "log.parquet")
    write_scenario(folder / "s.yaml", {"segments": [], "logs_tables": {"ad": {"path": "log.parquet"}}})
    return folder


def test_json_is_all_of_stdout_and_equal_to_the_file(folder: Path) -> None:
    said = bidsim("replay", "--scenario", "s.yaml", "--out", "json", "--json", cwd=folder)
    assert said.status == 0
    assert said.out == (folder / "json" / "result.json").read_text(encoding="utf-8")
    assert json.loads(said.out)["schema"] == "bidsim.result/1"
    # Without a terminal progress is plain lines: no colours, no returns to the line's begin.
    assert said.err.isprintable() is False
    assert all(line.startswith("bidsim: ") and line.isprintable() for line in said.err.splitlines())
    assert said.err.count("\n") >= 4


def test_quiet_is_silent_and_leaves_the_same_result(folder: Path) -> None:
    said = bidsim("replay", "--scenario", "s.yaml", "--out", "quiet", "-q", cwd=folder)
    assert (said.status, said.out, said.err) == (0, "", "")
    loud = bidsim("replay", "--scenario", "s.yaml", "--out", "loud", cwd=folder)
    assert loud.out.splitlines() == [
        "NO GATE: The scenario has no gate rules, so nothing was judged.",
        "report: loud/report.html",
    ]
    assert (folder / "loud" / "result.json").read_bytes() == (folder / "quiet" / "result.json").read_bytes()


def test_quiet_does_not_silence_an_error(folder: Path) -> None:
    said = bidsim("replay", "--scenario", "no.yaml", "--quiet", "--json", cwd=folder)
    assert (said.status, said.out) == (2, "")
    assert said.err == "bidsim: error: no.yaml: no such file; check --scenario\n"


def test_without_out_the_folder_is_named_by_what_decides_its_content(folder: Path) -> None:
    for status in (0, 2):  # the second run finds the first one's folder
        assert bidsim("replay", "--scenario", "s.yaml", "--as-of", "2026-12-01", "-q", cwd=folder).status == status
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("small-v2-")
    assert bidsim("replay", "--scenario", "s.yaml", "--as-of", "2026-12-02", "-q", cwd=folder).status == 0
    assert len(list((folder / "runs").iterdir())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(
    ("number", "at", "status"),
    [
        (signal.SIGINT, "reading and scoring", 130),
        (signal.SIGINT, "other bid levels", 130),  # the engine is at work: it turns the signal into its own error
        (signal.SIGTERM, "settling budgets", 143),
        (signal.SIGHUP, "reducing", 129),
    ],
)
def test_a_stopped_replay_says_so_and_leaves_nothing(tmp_path: Path, number: int, at: str, status: int) -> None:
    write_log(tmp_path / "log.parquet", pa.concat_tables([log()] * 300))
    write_model(tmp_path / "m.bin")
    write_scenario(tmp_path / "s.yaml", {"budget": {"amount": 100.0}, "logs_tables": {"ad": {"path": "log.parquet"}}})
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = ("replay", "--scenario", "s.yaml", "--model", "m.bin", "--out", "runs/x")
    with process(*words, cwd=tmp_path, env={"TMPDIR": str(temporary)}) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if at in line:
                running.send_signal(number)
                break
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (status, "")
    assert err.splitlines()[-1] == "bidsim: interrupted; nothing is half-written"
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.parquet", "m.bin", "s.yaml", "tmp"]
    assert list(temporary.iterdir()) == []


# A replay whose model's library never comes back from the rows in which age is 666, and says so by a file.
HANGS = """
import subprocess, sys
code = '''
import pathlib, re
from bidsim.models import child
from bidsim.models.libraries import LibraryModel
own = LibraryModel.predict
def predict(self, columns):
    if (columns.numeric("age") == 666).any():
        pathlib.Path("hangs").touch()
        re.match("(a+)+$", "a" * 60 + "b")
    return own(self, columns)
LibraryModel.predict = predict
child.main()
'''
real = subprocess.Popen
subprocess.Popen = lambda command, **rest: real([sys.executable, "-c", code], **rest)
from bidsim.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_replay_stops_at_once_while_a_library_hangs_on_a_later_batch(
    tmp_path: Path, number: int, status: int
) -> None:
    """Scoring has minutes for a batch; the engine asks for one, and does not hear of signals while it waits."""
    lightgbm = pytest.importorskip("lightgbm")
    table = pa.concat_tables([log()] * 250)
    ages = table["age"].to_numpy().copy()
    data = lightgbm.Dataset(ages[:1200, None].astype(float), label=table["click"].to_numpy()[:1200])
    model = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 3)
    model.save_model(tmp_path / "ctr.txt")
    (tmp_path / "f.yaml").write_text("ctr: {features: [age]}")
    made = bidsim("model", "pack", "--ctr", "ctr.txt", "--features", "f.yaml", "-o", "m.bin", cwd=tmp_path)
    assert made.status == 0, made.err
    ages[-1] = 666
    write_log(tmp_path / "log.parquet", table.set_column(table.column_names.index("age"), "age", pa.array(ages)))
    write_scenario(tmp_path / "s.yaml", {"logs_tables": {"ad": {"path": "log.parquet"}}})
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = ["replay", "--scenario", "s.yaml", "--model", "m.bin", "--out", "runs/x"]
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, *words], cwd=tmp_path, env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "hangs").exists():
                assert running.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)  # the engine has come to wait for the batch
            running.send_signal(number)
            out, err = running.communicate(timeout=60)  # a batch has 120 s
        finally:
            running.kill()
    assert (running.returncode, out) == (status, "")
    assert err.splitlines()[-1] == "bidsim: interrupted; nothing is half-written"
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()
    assert list(temporary.iterdir()) == []


def test_a_reader_that_went_away_is_no_failed_gate(folder: Path) -> None:
    """`bidsim replay --json | head` must not look like status 1, and there is no traceback to read."""
    running = process("replay", "--scenario", "s.yaml", "--out", "pipe", "--json", cwd=folder)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait(60) == 141
    assert "Traceback" not in err
    assert "Exception" not in err
    assert (folder / "pipe" / "report.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_under_stdout_is_one_message(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        running = process("schema", "result", cwd=folder, stdout=full)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert err.count("\n") == 1
    assert err.startswith("bidsim: error: No space left on device")


def test_a_disk_that_fills_while_the_run_is_written_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = bidsim("replay", "--scenario", "s.yaml", "--out", "new/deep/run", "-q", cwd=folder)
    assert said.status == 2
    assert said.err == "bidsim: error: new/deep/run: the run can't be written: No space left on device\n"
    assert sorted(folder.iterdir()) == before


def test_no_temporary_folder_is_one_message(folder: Path) -> None:
    code = (
        "import sys, tempfile\n"
        "def none(*a, **k): raise FileNotFoundError(2, 'No usable temporary directory found in [...]')\n"
        "tempfile.gettempdir = tempfile._candidate_tempdir_list = none\n"
        "from bidsim.__main__ import main\n"
        "sys.argv = ['bidsim', 'replay', '--scenario', 's.yaml', '-q', '--out', 'none']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("bidsim: error: No usable temporary directory found")
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("words", "closed", "status"),
    [
        ("", "2>&-", 0),  # what is missed there are messages only
        ("--quiet", ">&-", 0),  # and here nothing
        ("", ">&-", 141),
        ("--json", "<&- >&- 2>&-", 141),
    ],
)
def test_a_stream_that_is_closed_is_a_failure_where_what_was_asked_for_is_lost(
    tmp_path: Path, words: str, closed: str, status: int
) -> None:
    """The run is what it is, whoever listens."""
    line = f"'{sys.executable}' -m bidsim replay --scenario s.yaml --table ad=log.parquet --out run {words} {closed}"
    write_log(tmp_path / "log.parquet")
    write_scenario(tmp_path / "s.yaml")
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_bytes())["schema"] == "bidsim.result/1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
@pytest.mark.parametrize("command", ["--version", "gate judged --json", "leaderboard judged --json"])
def test_every_command_fails_whose_output_is_lost(folder: Path, command: str) -> None:
    if not (folder / "judged").exists():
        assert bidsim("replay", "--scenario", "s.yaml", "--out", "judged", "-q", cwd=folder).status == 0
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as unread, open("/dev/full", "wb") as full:
        for stdout, shell, status in ((unread, "", 141), (None, ">&-", 141), (full, "", 2)):
            line = f"exec '{sys.executable}' -m bidsim {command} {shell}"
            done = subprocess.run(["sh", "-c", line], cwd=folder, check=False, stdout=stdout, stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr.count(b"\n")) == (status, int(status == 2)), done.stderr
