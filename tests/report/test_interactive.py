"""The interactive page: one runtime, specifications as data, a policy of hashes; without it nothing is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from fixtures import HOSTILE, make_result

from bidsim.report import format as f
from bidsim.report import render_report
from bidsim.report.interactive import make_script
from bidsim.report.lookup import Lookup
from bidsim.report.segments import segment_tables
from bidsim.result import Result

SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)
ROWS = re.compile(r'<script type="application/json" id="rows-([0-9-]+)">(.*?)</script>', re.S)
SPEC = re.compile(r'<script type="application/json" id="spec-([a-z-]+)">\s*(.*?)\s*</script>', re.S)


@pytest.fixture(scope="module")
def result() -> Result:
    return make_result(intervals=True)


@pytest.fixture(scope="module")
def page(result: Result) -> str:
    return render_report(result, interactive=True)


def test_only_the_two_scripts_may_run(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    scripts = SCRIPT.findall(page)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = next(part for part in policy.group(1).split("; ") if part.startswith("script-src"))
    assert allowed == "script-src " + " ".join(f"'sha256-{h}'" for h in hashes)
    assert policy.group(1).startswith("default-src 'none'; ")
    assert "unsafe" not in policy.group(1)
    assert page.lower().count("<script") == 2 + len(SPEC.findall(page)) + len(ROWS.findall(page))


def test_it_takes_at_most_1500_kb_and_holds_every_picture_of_the_static_page(result: Result, page: str) -> None:
    assert len(page.encode()) <= 1_500_000
    assert len(render_report(make_result(500, intervals=True), interactive=True).encode()) <= 1_500_000
    static = render_report(result)
    assert re.findall(r"<figure.*?</figure>", static, re.S) == re.findall(r"<figure.*?</figure>", page, re.S)
    assert "<script" not in static


def test_names_are_values_of_data_and_never_part_of_an_expression(page: str) -> None:
    specs = {name: json.loads(text) for name, text in SPEC.findall(page)}
    assert len(specs) == 7
    hostile = {f.clean_name(n) for n in HOSTILE}
    found: set[str] = set()
    for document in specs.values():
        for path, text in texts(document):
            clean = {n for n in hostile if n in text}
            found |= clean
            # Names stand whole in inline data and in the labels parameter, and nowhere else.
            if clean:
                assert path[0] in ("datasets", "params"), path
                assert text in hostile
    assert len(found) > 5
    fields = {text for d in specs.values() for path, text in texts(d) if path[-1] in ("field", "labelExpr")}
    assert all(re.fullmatch(r"[a-z_]+|labels\[datum\.value\]|[\w.() ,?'~:=+%]+", text) for text in fields)


def test_numbers_to_sort_segments_by_stand_beside_their_rows(result: Result, page: str) -> None:
    found = {key: json.loads(text) for key, text in ROWS.findall(page)}
    tables = segment_tables(Lookup(result), browsed=True)
    assert list(found) == [t.key for each in tables.values() for t in each]
    assert re.findall(r'<table class="seg" data-rows="([0-9-]+)"', page) == list(found)
    assert "data-rows" not in render_report(result)
    lookup = Lookup(result)
    for t in tables["campaign"]:
        given = found[t.key]
        assert given["of"] == "conversions"
        for row, numbers, results in zip(t.rows, given["numbers"], given["results"], strict=True):
            (segment,) = [s for s in lookup.families["campaign"] if lookup.ident(s) == row.ident]
            change = lookup.difference(t.policy, "spend", None, segment)
            assert change is not None
            expected = [lookup.base("spend", None, segment), change.candidate, change.relative.value]
            assert numbers[:3] == pytest.approx(expected, rel=1e-5)
            sides = lookup.base("conversions", None, segment), lookup.value(t.policy, "conversions", None, segment)
            assert results == max(sides)
            assert len(numbers) == 3 * len(row.cells)


def test_a_page_with_a_script_has_more_rows_and_says_how_many_are_not_there() -> None:
    many = Lookup(make_result(600, candidates=1))
    (static,), (browsed,) = segment_tables(many)["campaign"], segment_tables(many, browsed=True)["campaign"]
    assert len(static.rows) < len(browsed.rows) == 200 < browsed.total == 600


def texts(node: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from texts(value, (*path, key))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from texts(value, (*path, at))
    elif isinstance(node, str):
        yield path, node


def test_tooltips_say_who_and_how_much(result: Result) -> None:
    script = make_script(Lookup(result))
    document = script.specs["frontier-results"]
    layers, datasets = document["layer"], document["datasets"]
    tips = [layer["encoding"]["tooltip"] for layer in layers if "tooltip" in layer["encoding"]]
    assert tips
    assert all({"policy", "spend"} <= {t["field"] for t in tip} for tip in tips)
    names = {row["policy"] for rows in datasets.values() for row in rows if "policy" in row}
    assert names == {f.clean_name(p.name) for p in result.policies}


def test_the_same_result_gives_the_same_bytes(result: Result, page: str) -> None:
    assert render_report(result, interactive=True) == page
