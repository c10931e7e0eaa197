"""Charts as files: every main chart as SVG and PNG, names as text, plain colours, the same bytes each time."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures import empty_result, make_result
from small_logs import as_table

from bidsim.errors import BidsimError
from bidsim.gate import judge
from bidsim.replay.pipeline import run_replay
from bidsim.report.pictures import render_pictures
from bidsim.scenario.loading import scenario_from_dict
from bidsim.scenario.schema import Rule

NAMES = ["campaigns", "frontier-cost", "frontier-results", "ratio-ctr", "ratio-cvr", "reliability-ctr"]
NAMES += ["reliability-cvr", "rules"]


@pytest.fixture(scope="module")
def pictures() -> Mapping[str, str | bytes]:
    rule = Rule.model_validate({"metric": "cpa", "by": "campaign", "max_increase": "1%"})
    return render_pictures(judge(make_result(intervals=True), [rule], fidelity_warns=True))


def test_every_main_chart_is_there_as_svg_and_png(pictures: Mapping[str, str | bytes]) -> None:
    assert sorted(pictures) == sorted(f"{name}.{kind}" for name in NAMES for kind in ("svg", "png"))


def test_svg_is_well_formed_with_plain_colours_and_names_as_text(pictures: Mapping[str, str | bytes]) -> None:
    for name, content in pictures.items():
        if isinstance(content, str):
            root = ET.fromstring(content)
            assert root.get("aria-label")
            assert "var(" not in content, name
            tags = {node.tag.rpartition("}")[2] for node in root.iter()}
            assert tags <= {"svg", "g", "path", "line", "rect", "circle", "text", "tspan", "title"}, name
            assert not [a for node in root.iter() for a in node.attrib if a.startswith("on") or "href" in a]
    campaigns = pictures["campaigns.svg"]
    assert isinstance(campaigns, str)
    assert "春のセール" in campaigns
    assert "&lt;script&gt;" in campaigns


def test_png_is_twice_the_size_of_its_svg(pictures: Mapping[str, str | bytes]) -> None:
    for name in NAMES:
        png, svg = pictures[f"{name}.png"], pictures[f"{name}.svg"]
        assert isinstance(png, bytes)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", png[16:24])
        root = ET.fromstring(svg)
        assert abs(width - 2 * float(root.get("width", "0"))) <= 2
        assert abs(height - 2 * float(root.get("height", "0"))) <= 2


def test_what_the_statistics_show_and_days_are_among_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(20261126)
    first = datetime(2026, 11, 20, tzinfo=UTC)
    rows = [
        {
            "request": i,
            "time": first + timedelta(hours=i / 25),
            "unit": i // 3,
            "price": float(rng.lognormal(0, 0.5)),
            "won": 1,
        }
        | {"click": int(rng.random() < 0.2), "target_cpc": 0.005, "pctr": p, "pother": p * 1.2}
        for i, p in enumerate(rng.uniform(0.1, 0.3, 3000).tolist())
    ]
    pq.write_table(as_table(rows), tmp_path / "log.parquet")
    document = {
        "sample_type": "imp-click",
        "performance_indicator_type": "cpc",
        "logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}},
        "segments": ["day"],
        "candidates": {"<b>new": {"columns": {"pctr": "pother"}}},
    }
    done = run_replay(scenario_from_dict(document, directory=tmp_path), [], as_of=date(2026, 11, 26))
    found = render_pictures(done.result, done.tables)
    more = {"bids-and-prices", "days-cost", "days-spend", "gains-ctr", "win-rate-by-price"}
    assert {Path(name).stem for name in found} - {Path(name).stem for name in render_pictures(done.result)} == {
        name for name in more if not name.startswith("days")
    }
    for name in more:
        text = found[f"{name}.svg"]
        assert isinstance(text, str)
        root = ET.fromstring(text)
        written = "".join(root.itertext())
        assert "<b>new" in written
        assert ("baseline" in written) is not name.startswith("days")
        assert "var(" not in text
        assert found[f"{name}.png"]
    assert "CTR: what the best scores hold" in str(found["gains-ctr.svg"])


def test_a_result_with_nothing_to_draw_is_refused() -> None:
    with pytest.raises(BidsimError, match="nothing to draw"):
        render_pictures(empty_result())
