"""A result shows itself in a notebook: tables and charts as one piece of HTML that touches nothing around it; and the
notebook beside the scenarios runs, with every claim that it makes."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from fixtures import HOSTILE, empty_result, make_result, null_result
from nbclient import NotebookClient
from pages import read

from bidsim.report.notebook import SCOPE, scoped_style
from bidsim.result import Result

NOTEBOOK = Path(__file__).parents[2] / "scenarios" / "comparison.ipynb"
RESULTS = {
    "two candidates": lambda: make_result(),
    "intervals": lambda: make_result(intervals=True, verdict="warn"),
    "one, passing": lambda: make_result(candidates=1, verdict="pass"),
    "no candidate": lambda: make_result(campaigns=2, candidates=0, verdict="no_gate"),
    "empty": empty_result,
    "null": null_result,
}


@pytest.mark.parametrize("name", RESULTS)
def test_it_is_balanced_html_without_script_or_links(name: str) -> None:
    html = RESULTS[name]()._repr_html_()
    parsed = read(html)
    assert (parsed.errors, parsed.unclosed, parsed.comments) == ([], [], [])
    tags = {tag for tag, _ in parsed.tags}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "link", "form", "a", "html", "body", "use"})
    for tag, attributes in parsed.tags:
        assert not [a for a in attributes if a.startswith("on") or a in ("style", "id", "href", "src")], tag
    assert html.startswith(f"<{SCOPE.replace('.', ' class=')[:9]}")


def test_it_has_the_verdict_the_tables_and_the_charts() -> None:
    result = make_result(intervals=True)
    html = result._repr_html_()
    assert html == result._repr_html_()
    assert "<strong>FAIL</strong>" in html
    for caption in ("Money and results", "Predictions, over the labelled rows", "Most severe first"):
        assert caption in html
    assert html.count("<figure") >= 4
    assert html.count("<svg") > html.count("<figure")
    assert "could not be drawn" not in html


def test_hostile_names_are_text() -> None:
    html = make_result()._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert not [name for name in HOSTILE if "<" in name and name in html]


def test_its_style_is_for_its_own_element_only() -> None:
    style = scoped_style()
    assert "@" not in style.replace("&#64;", "")
    selectors = [s.strip() for rule in re.findall(r"([^{}]+)\{", style) for s in rule.split(",")]
    assert len(selectors) > 50
    assert all(s == SCOPE or s.startswith(f"{SCOPE} ") for s in selectors)
    assert "--p0" in style


def test_as_text_it_is_one_line() -> None:
    result: Result = make_result()
    assert len(repr(result)) < 500
    assert "\n" not in repr(result)
    assert "verdict fail" in str(result)


def test_the_notebook_runs_from_top_to_bottom_and_its_claims_hold(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Kept without outputs: what a reader sees is what the code gives.
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert sum(cell.source.count("assert ") for cell in notebook.cells if cell.cell_type == "code") >= 4
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [o for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    (result,) = [o["data"] for o in shown if "text/html" in o["data"]]
    assert "<strong>FAIL</strong>" in result["text/html"]
    assert result["text/plain"].startswith("<Result 'demo': verdict fail")
    assert list(tmp_path.iterdir()) == []
