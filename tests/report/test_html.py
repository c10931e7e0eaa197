"""report.html: names are text, the page needs nothing but itself, and its numbers are the result's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import HOSTILE, MODEL, empty_result, make_result, null_result
from pages import read

from bidsim.gate import judge
from bidsim.report import charts, plots, render_report
from bidsim.report import format as f
from bidsim.report.lookup import Lookup
from bidsim.report.view import GATE_ROWS, cell, gate_table
from bidsim.report.words import writer
from bidsim.result import Estimate, IdentifiedChange, Range, Result
from bidsim.scenario.schema import Rule

RESULTS = {
    "two candidates": lambda: make_result(),
    "intervals": lambda: make_result(intervals=True, verdict="warn", currency="USD"),
    "one candidate, passing": lambda: make_result(candidates=1, verdict="pass"),
    "no gate": lambda: make_result(candidates=1, verdict="no_gate"),
    "seven candidates": lambda: make_result(campaigns=3, candidates=7),
    "no candidate": lambda: make_result(campaigns=2, candidates=0, verdict="no_gate"),
    "empty": empty_result,
    "null": null_result,
}


@pytest.fixture(scope="module")
def result() -> Result:
    return make_result()


@pytest.fixture(scope="module")
def page(result: Result) -> str:
    return render_report(result)


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_is_balanced_html_of_harmless_tags(name: str) -> None:
    parsed = read(render_report(RESULTS[name]()))
    assert parsed.errors == []
    assert parsed.unclosed == []
    assert parsed.comments == []
    tags = {tag for tag, _ in parsed.tags}
    assert tags.isdisjoint(
        {"script", "img", "iframe", "object", "embed", "link", "form", "b", "i", "image", "use", "base"}
    )
    for tag, attributes in parsed.tags:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)


def test_hostile_names_appear_as_text_and_never_as_markup(page: str) -> None:
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in page
    text = read(page).text
    for name in [*HOSTILE, MODEL]:
        assert " ".join(f.clean_name(name).split()) in text


def test_no_character_turns_the_text_around(page: str) -> None:
    assert not re.search("[\u0000-\u0008\u000b-\u001f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)


def test_the_policy_allows_the_style_sheet_and_nothing_else(page: str) -> None:
    policy = next(a["content"] for t, a in read(page).tags if t == "meta" and a.get("http-equiv"))
    css = re.search(r"<style>(.*?)</style>", page, re.S)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css.group(1).encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    for tag, attributes in read(page).tags:
        for name in ("href", "src", "xlink:href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        for value in attributes.values():
            assert "url(" not in (value or ""), (tag, attributes)
    css = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:|//", css)


def test_headline_numbers_are_those_of_the_result(result: Result, page: str) -> None:
    parsed = read(page)
    money = f.Money("JPY")
    for title, metric, write in (
        ("Spend", "spend", money.amount),
        ("CPA", "cpa", money.price),
        ("Conversions", "conversions", f.count),
        ("Win rate", "win_rate", f.share),
    ):
        found = [d for d in result.differences if d.metric == metric and not d.segment]
        expected = [title, write(found[0].baseline)]
        for d in found:
            expected += [write(d.candidate), f.change(d.relative.value)]
        row = [cell.partition(" identified:")[0].partition(" counted wins only")[0] for cell in parsed.row(title)]
        assert row == expected


def test_segment_tables_hold_each_segment_with_its_numbers(result: Result, page: str) -> None:
    hour = {"hour": "7"}
    found = next(d for d in result.differences if d.segment == hour and d.metric == "spend" and d.policy == MODEL)
    money = f.Money("JPY")
    expected = [money.amount(found.baseline), money.amount(found.candidate), f.change(found.relative.value)]
    assert any(row[:4] == ["7", *expected] for row in read(page).rows)


def test_the_verdict_is_said_in_words_with_its_reason() -> None:
    for verdict, words in (("pass", "PASS"), ("warn", "WARN"), ("fail", "FAIL"), ("no_gate", "NO GATE")):
        result = make_result(campaigns=4, verdict=verdict)
        text = read(render_report(result)).text
        assert words in text
        assert result.gate.reason in text


def test_without_intervals_the_page_says_so_and_calls_nothing_better() -> None:
    plain = render_report(make_result(candidates=1))
    assert "No intervals are computed" in plain
    assert 'class="good"' not in plain
    told = render_report(make_result(candidates=1, intervals=True))
    assert "No intervals are computed" not in told
    assert 'class="good"' in told
    assert "95% intervals" in told


def test_no_change_is_called_better_that_undecided_rows_could_undo() -> None:
    plain = make_result(candidates=1, intervals=True)
    name = plain.candidates[0]
    before = next(d for d in plain.differences if d.metric == "cpa" and not d.segment)
    sure = before.model_copy(update={"relative": Estimate(value=-0.2, low=-0.3, high=-0.1)})
    open_ = {"unknown_wins", "unknown_outcomes"}

    def tone(identified: IdentifiedChange | None, unknown: float) -> tuple[str, str]:
        changed = sure.model_copy(update={"identified": identified})
        metrics = [m.model_copy(update={"value": unknown}) if m.metric in open_ else m for m in plain.metrics]
        others = [d for d in plain.differences if d is not before]
        lookup = Lookup(plain.model_copy(update={"metrics": metrics, "differences": [*others, changed]}))
        found = cell(lookup, name, "cpa", None, {})
        return found.tone, found.known

    def ends(low: float | None, high: float | None) -> IdentifiedChange:
        return IdentifiedChange(absolute=Range(low=low, high=high), relative=Range(low=low, high=high))

    assert tone(None, 0.0) == ("good", "")
    assert tone(ends(-0.2, -0.2), 0.0) == ("good", "")
    # The worst fate moves the whole interval: -10% + 5 points is still a gain, + 15 points is none.
    assert tone(ends(-0.25, -0.15), 9.0) == ("good", "identified: −25.0% to −15.0%")
    assert tone(ends(-0.2, -0.05), 9.0) == ("", "identified: −20.0% to −5.0%")
    assert tone(ends(-0.2, None), 9.0)[0] == ""
    assert tone(None, 9.0) == ("", "counted wins only")


def test_a_rule_that_passes_on_counted_wins_alone_says_so() -> None:
    plain = make_result(candidates=1, intervals=True)
    (rule, *_) = plain.gate.rules

    def known(metric: str, unknown: float, identified: Range | None) -> str:
        outcome = {"metric": metric, "head": None, "segment": {}, "action": "pass", "status": "pass"}
        judged = rule.model_copy(update={**outcome, "waived": False, "quantity": -0.2, "identified": identified})
        metrics = [
            m.model_copy(update={"value": unknown}) if m.metric in ("unknown_wins", "unknown_outcomes") else m
            for m in plain.metrics
        ]
        gate = plain.gate.model_copy(update={"rules": [judged]})
        (row,) = gate_table(Lookup(plain.model_copy(update={"metrics": metrics, "gate": gate}))).rows
        return row.known

    assert known("cpa_at_matched_spend", 9.0, None) == "counted wins only"
    assert known("cpa_at_matched_spend", 0.0, None) == ""
    assert known("cpa_at_matched_spend", 9.0, Range(low=-0.3, high=0.1)) == ""
    assert known("logloss", 9.0, None) == ""


def test_identified_ranges_are_shown_and_exact_numbers_are_said_to_be_exact(page: str) -> None:
    text = read(page).text
    assert "identified: 8,422 to 11,230" in text
    assert "Spend, wins and results of prod are exact" in text


def test_predicted_results_are_shown_only_beside_what_was_observed(page: str) -> None:
    parsed = read(page)
    header = next(r for r in parsed.rows if "Predicted clicks" in r)
    assert header[:4] == ["Policy", "Predicted clicks", "Observed clicks", "Predicted / observed"]
    assert parsed.row("Value") == [] if any(r[:1] == ["Value"] for r in parsed.rows) else True


def test_passing_segments_of_one_rule_are_one_row(page: str) -> None:
    rows = [r for r in read(page).rows if len(r) > 2 and r[1].startswith("predictions add up")]
    assert len(rows) == 3
    assert rows[-1][2].startswith("10 of 12 by campaign")


def test_charts_carry_no_text_of_the_data_but_their_labels(page: str) -> None:
    charts = re.findall(r'<svg viewBox="[^"]*" width.*?</svg>', page, re.S)
    assert len(charts) == 7
    for chart in charts:
        assert 'role="img" aria-label="' in chart
        assert not re.search(r">[pr]\d+<", chart)


def test_the_same_result_gives_the_same_bytes(result: Result, page: str) -> None:
    assert render_report(result) == page
    assert render_report(Result.model_validate_json(result.to_json())) == page


def test_a_normal_run_takes_at_most_500_kb() -> None:
    assert len(render_report(make_result(intervals=True)).encode()) <= 400_000


@pytest.mark.parametrize("candidates", [1, 3])
def test_500_campaigns_with_a_rule_on_each_take_at_most_500_kb_and_caps_are_stated(candidates: int) -> None:
    rules = [
        Rule.model_validate({"metric": m, "by": "campaign", "between": [0, 0.5], **head})
        for m, head in (("calibration", {"head": "ctr"}), ("cpa", {}))
    ]
    result = judge(make_result(500, candidates, intervals=True), rules, fidelity_warns=True)
    page = render_report(result)
    assert len(page.encode()) <= 500_000
    assert re.search(r"the \d+ of 500 with the most baseline spend", page)
    assert "the 30 of 500 campaigns with the most baseline spend" in page
    assert f"{1000 * candidates - GATE_ROWS:,} more rows are not shown" in page


def test_each_rule_has_its_picture_beside_its_numbers() -> None:
    rules: list[dict[str, object]] = [
        {"metric": "cpa", "max_increase": "-90%"},
        {"metric": "calibration", "head": "ctr", "between": [0.5, 0.6], "evidence": "point"},
        {"metric": "auc", "head": "ctr", "max_decrease": 0.01},
        {"metric": "no_such", "at_most": 1},
    ]
    result = judge(
        make_result(candidates=1, intervals=True), [Rule.model_validate(r) for r in rules], fidelity_warns=True
    )
    page = render_report(result)
    assert page.count('<svg class="rule"') == 3
    assert "the allowed region is shaded" in page
    # The smallest effect that the log would have shown stands beside each interval, and is told what it is.
    detectable = [o.detectable for o in result.gate.rules if o.evidence == "interval" and o.detectable is not None]
    assert len(detectable) == 2
    assert page.count('<span class="under">would show ') == 2
    assert f"would show {f.change(detectable[0]).lstrip('+')}" in page
    assert "2.8 standard errors" in page
    # What the gate allows of the overall calibration is shaded in the chart of its ratio too.
    assert "where the gate’s rule on the overall calibration passes" in page


def test_the_parts_of_the_brier_score_are_shown_as_the_result_has_them() -> None:
    result = make_result(candidates=1)
    assert "made of" not in render_report(result)
    parts = {"brier": 0.02, "miscalibration": 0.0012345, "discrimination": 0.0034567, "uncertainty": 0.0222222}
    first = result.metrics[0].model_copy(update={"head": "ctr", "segment": {}, "low": None, "high": None})
    added = [
        first.model_copy(update={"policy": p.name, "metric": name, "value": value})
        for p in result.policies
        for name, value in parts.items()
    ]
    page = render_report(result.model_copy(update={"metrics": [*result.metrics, *added]}))
    table = page[page.index("What the Brier score is made of") :].split("</table>")[0]
    for name, value in parts.items():
        assert writer(name, "JPY")(value) in table


def test_a_policy_without_a_model_is_set_apart_from_the_words_after_it() -> None:
    result = make_result(candidates=1)
    policies = [p.model_copy(update={"sha256": None}) for p in result.policies]
    text = "".join(read(render_report(result.model_copy(update={"policies": policies}))).texts)
    assert "replayed against prod" in text
    assert not re.search(r"\Sreplayed", text)


def test_ratios_that_are_drawn_at_the_edge_are_told() -> None:
    result = make_result(candidates=1)
    assert "drawn at 2.5" not in render_report(result)
    curve = next(c for c in result.calibration if not c.segment and c.head == "ctr")
    bins = [curve.bins[0].model_copy(update={"observed": 3 * curve.bins[0].predicted}), *curve.bins[1:]]
    far = curve.model_copy(update={"bins": bins})
    calibration = [far if c is curve else c for c in result.calibration]
    page = render_report(result.model_copy(update={"calibration": calibration}))
    assert "1 bin above 2.5 is drawn at 2.5 of observed / predicted; the table has all." in page


def test_an_interval_down_to_nothing_does_not_press_the_points_into_a_corner() -> None:
    curve = next(c for c in make_result(candidates=1).calibration if not c.segment and c.head == "ctr")
    plain, tiny = (
        plots.reliability([curve.model_copy(update={"bins": [b.model_copy(update={"low": low}) for b in curve.bins]})])
        for low in (None, 1e-12)
    )
    assert plain
    assert tiny
    least = min(v for b in curve.bins for v in (b.predicted, b.observed))
    for plot in (plain, tiny):
        domains = re.findall(r'"domain": (\[[^"\]]*\])', json.dumps(charts.spec(plot)))
        assert {least / 4 < min(json.loads(d)) < least for d in domains} == {True}


def test_the_coverage_of_many_candidates_is_told_from_the_least_to_the_most() -> None:
    texts = read(render_report(make_result(campaigns=2, candidates=6))).texts
    assert texts[texts.index("Coverage") + 1] == "95.0% to 97.5%"


def test_winning_more_is_called_neither_better_nor_worse() -> None:
    plain = make_result(candidates=1, intervals=True)
    sure = Estimate(value=0.2, low=0.1, high=0.3)
    for metric, tone in (("surplus", "good"), ("win_rate", "")):
        changed = [
            d.model_copy(update={"relative": sure, "absolute": sure}) if d.metric == metric else d
            for d in plain.differences
        ]
        metrics = [m.model_copy(update={"value": 0.0}) if "unknown" in m.metric else m for m in plain.metrics]
        lookup = Lookup(plain.model_copy(update={"differences": changed, "metrics": metrics}))
        assert cell(lookup, plain.candidates[0], metric, None, {}).tone == tone


def test_costs_that_are_not_drawn_are_told() -> None:
    result = make_result(candidates=1)
    told = "The cost of fewer than 20 results is not drawn"
    assert told not in render_report(result)
    points = [p.model_copy(update={"conversions": 3.0}) if p.multiplier < 0.6 else p for p in result.frontier]
    assert told in render_report(result.model_copy(update={"frontier": points}))


def test_how_many_candidates_were_judged_is_said() -> None:
    result = make_result(candidates=1)
    assert "have been judged on this data" not in render_report(result, judged=1)
    page = render_report(result, judged=10, versions={"bidsim": "1.2.3"})
    assert "10 candidates have been judged on this data" in page
    assert "22.4%" in page  # 1 - 0.975 ** 10
    assert "Made with bidsim 1.2.3" in page


def test_what_no_log_knows_is_said_with_how_often_a_unit_is_met() -> None:
    result = make_result(candidates=1)
    met = result.model_copy(update={"data": result.data.model_copy(update={"rows": 9000, "units": 3600})})
    text = " ".join(read(render_report(met)).text.split())
    assert "not what they caused" in text
    assert "this log has 2.5 rows of each unit on average" in text
    alone = result.model_copy(update={"data": result.data.model_copy(update={"units": None})})
    assert "of each unit" not in read(render_report(alone)).text


def test_undefined_numbers_are_dashes() -> None:
    parsed = read(render_report(null_result()))
    cells = [cell for row in parsed.rows for cell in row]
    assert not {"nan", "inf", "None"} & set(cells)
    assert parsed.row("Spend")[1:3] == ["–", "–"]


def test_importing_the_package_costs_neither_altair_nor_jinja() -> None:
    code = "import sys, bidsim.report; assert not {'altair', 'jinja2', 'vl_convert'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
