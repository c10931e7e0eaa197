"""An interrupt at the worst moment, such as between a folder that was made and the name it gets, leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bidsim.interrupts import held
from bidsim.scratch import scratch
from bidsim.store.runs import write_run


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    """Python's own handler of SIGINT, whoever left another in this process (a Spark session does)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with SIGINT on the way as it returns."""

    def call(*args: Any, **options: Any) -> Any:
        made = function(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return made

    return call


def test_what_is_held_comes_at_the_end() -> None:
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt), held():
        seen.extend(map(interrupting(str), ("went on", "to the end")))
    assert seen == ["went on", "to the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_does_not_hide_what_came() -> None:
    with pytest.raises(KeyboardInterrupt) as told, held():
        os.rmdir(interrupting(str)("/no such folder"))
    assert isinstance(told.value.__context__, OSError)


def test_nothing_comes_where_nothing_came() -> None:
    with held():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_python_does_not_answer_is_left_as_it_is() -> None:
    code = (
        "import signal\nfrom bidsim.interrupts import held\nwith held():\n    signal.raise_signal(signal.SIGTERM)\n"
        "print('not ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_other_threads_hold_nothing() -> None:
    seen = []

    def run() -> None:
        with held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_work_folder_that_is_just_made_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", interrupting(tempfile.mkdtemp))
    with pytest.raises(KeyboardInterrupt), scratch():
        pytest.fail("the block was not to begin")
    assert os.listdir(tmp_path) == []


def test_tempfile_may_end_its_look_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes a file with a name of chance, and removes it: interrupted between, it leaves it."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    looked = []
    real = os.open

    def opened(path: Any, *args: Any, **options: Any) -> int:
        handle = real(path, *args, **options)
        if not looked:
            looked.append(Path(path).parent)
            signal.raise_signal(signal.SIGINT)
        return handle

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(KeyboardInterrupt), scratch():
        pytest.fail("the block was not to begin")
    assert looked == [tmp_path]
    assert os.listdir(tmp_path) == []


def test_a_run_folder_that_is_just_made_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", interrupting(tempfile.mkdtemp))
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path / "runs" / "one", {"result.json": "{}"})
    assert os.listdir(tmp_path) == []


def test_the_status_is_130_wherever_the_interrupt_comes(tmp_path: Path) -> None:
    """CPython notes an interrupt in a text that it executes, as a dataclass is made of, and ends by the signal after all."""
    text = "import signal; signal.raise_signal(signal.SIGINT)"
    (tmp_path / "interrupted.py").write_text(
        "import bidsim.__main__ as program\nimport bidsim.cli\n"
        f"bidsim.cli.run = lambda: exec({text!r})\nprogram.main()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "interrupted"]
    path = os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "bidsim: interrupted; nothing is half-written\n"
