"""Charts as files: every main chart as SVG and PNG, names as text, plain colours, the same bytes each time."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import pytest
from fixtures import empty_result, make_result

from bidsim.errors import BidsimError
from bidsim.gate import judge
from bidsim.report.pictures import render_pictures
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


def test_a_result_with_nothing_to_draw_is_refused() -> None:
    with pytest.raises(BidsimError, match="nothing to draw"):
        render_pictures(empty_result())
