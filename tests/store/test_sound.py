"""A result that somebody edited ends in one message that names the file and the place, never in a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import make

from bidsim.errors import BidsimError
from bidsim.report import render_report
from bidsim.report.plan import render_plan
from bidsim.store.reading import load_run

Edit = Callable[[dict[str, Any]], Any]
WINDOW = {"start": "2026-11-01T00:00:00+09:00", "end": "2026-11-02T00:00:00+09:00"}


def edited(folder: Path, edit: Edit) -> Path:
    document = json.loads(make({"v2": {"cpa": (90.0, 80.0, 99.0)}}).to_json())
    edit(document)
    file = folder / "result.json"
    file.write_text(json.dumps(document), "utf-8")
    return file


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda r: r.update(policies=r["policies"][1:]), "policies: needs one baseline"),
        (lambda r: r["policies"][1].update(role="baseline"), "policies: needs one baseline"),
        (lambda r: r["policies"][1].update(name="prod"), "policies: two have one name"),
        (lambda r: r.update(as_of="yesterday"), "as_of: is no day"),
        (lambda r: r["data"].update(window={**WINDOW, "end": "soon"}), "data.window: has no times"),
        (lambda r: r["data"].update(window={**WINDOW, "end": "2026-11-02T00:00:00"}), "data.window: has no times"),
        (lambda r: r["scenario"].update(intervals={"confidence": "high"}), "scenario.intervals: has no confidence"),
        (lambda r: r["scenario"].update(intervals={"confidence": 2}), "scenario.intervals: has no confidence"),
        (lambda r: r["scenario"].update(intervals=[0.9]), "scenario.intervals: has no confidence"),
    ],
)
def test_what_no_replay_writes_is_told_by_its_place(tmp_path: Path, edit: Edit, place: str) -> None:
    with pytest.raises(BidsimError, match=r"result\.json: is not a valid result: " + place):
        load_run(edited(tmp_path, edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r["data"].update(window=WINDOW),
        lambda r: r["scenario"].update(intervals={"confidence": 0.9}),
        lambda r: r["scenario"].update(intervals=None),
        lambda r: r.update(metrics=[], differences=[]),
        lambda r: r["diagnostics"].update(exchanges=[1, {"exchange": "x"}], budget=7, policies=3, new_campaigns=[2]),
    ],
)
def test_what_may_be_is_read_rendered_and_planned_with(tmp_path: Path, edit: Edit) -> None:
    result = load_run(edited(tmp_path, edit)).result
    assert "v2" in render_report(result)
    assert "Nothing can be planned" in render_plan(result, [], power=0.8, confidence=0.95)
