"""Charts drawn by a process beside this one are those drawn here, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_result

from bidsim.report import render_report
from bidsim.report.html import draw_pictures
from bidsim.report.plots import Plot
from bidsim.report.renderer import Renderer, draw_here

ROWS = [
    {"row": "r0", "series": "p1", "value": 0.1, "low": 0.05, "high": 0.2, "kind": "plain", "up": True, "tone": "worse"},
]
PLOT = Plot("campaigns", {"panels": [{"title": "change", "rows": ROWS}], "labels": 1, "series": [1]})
LABELS = {"r0": ("Straße \u2028 <b>", "the whole name, \u5e83\u544a")}


def test_a_report_drawn_beside_is_the_report_drawn_here() -> None:
    result = make_result()
    with Renderer() as renderer:
        assert render_report(result, pictures=draw_pictures(result, renderer.draw)) == render_report(result)


def test_labels_arrive_as_they_are() -> None:
    with Renderer() as renderer:
        drawn = renderer.draw(PLOT, "a \u2028 chart", LABELS).__html__()
    assert drawn == draw_here(PLOT, "a \u2028 chart", LABELS).__html__()
    assert "\u5e83\u544a" in drawn


def test_what_can_not_be_drawn_is_empty_and_the_next_is_drawn() -> None:
    # Half of a character is none: the library refuses it.
    refused = Plot("campaigns", {**PLOT.arguments, "panels": [{"title": "\ud800", "rows": ROWS}]})
    with Renderer() as renderer:
        broken, whole = renderer.draw(refused, "", {}), renderer.draw(PLOT, "", {})
        assert not broken
        assert whole


def test_charts_are_drawn_here_where_the_process_is_gone() -> None:
    with Renderer() as renderer:
        assert renderer._process is not None
        os.kill(renderer._process.pid, signal.SIGKILL)
        assert [bool(renderer.draw(PLOT, "", {})) for _ in range(2)] == [True, True]


def test_charts_are_drawn_here_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("bidsim.report.renderer.subprocess.Popen", refuse)
    with Renderer() as renderer:
        assert renderer.draw(PLOT, "", {})


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_process_ends_with_ours_even_if_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom bidsim.report.renderer import Renderer\n"
        "with Renderer() as r:\n    print(r._process.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(300):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            break
        if state == "Z":  # ended; nobody has asked for its status yet
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process that draws is still there")
