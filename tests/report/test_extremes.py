"""Worst and best segments: ranked by the end of the interval nearer to no change, over values with results enough."""

from __future__ import annotations

from fixtures import make_result
from pages import read, undrawn

from bidsim.report import render_summary
from bidsim.report.extremes import extremes
from bidsim.report.lookup import Lookup
from bidsim.report.segments import FEW_RESULTS
from bidsim.result import Difference, Estimate, IdentifiedChange, Metric, Range, Result

# By segment: (change of CPA, low, high, conversions of the baseline and of the candidate).
Cases = dict[str, tuple[float | None, float | None, float | None, float, float]]
CASES: Cases = {
    "noisy": (0.9, -0.3, 2.1, 30, 20),
    "sure": (0.2, 0.15, 0.25, 900, 800),
    "surer": (0.1, 0.08, 0.12, 5000, 4800),
    "cheap": (-0.3, -0.4, -0.2, 100, 140),
    "perhaps": (-0.8, -0.95, 0.4, 25, 60),
    "few": (3.0, 1.0, 5.0, 3, 2),
    "gone": (4.0, 2.0, 9.0, 100, 4),
    "unknown": (0.5, None, None, 50, 40),
    "same": (0.0, 0.0, 0.0, 50, 50),
    "undefined": (None, None, None, 60, 0),
}


def result_of(cases: Cases, identified: dict[str, tuple[float, float]] | None = None) -> Result:
    base = make_result(candidates=1)
    policies = [p.name for p in base.policies]
    metrics: list[Metric] = [m for m in base.metrics if not m.segment]
    differences: list[Difference] = [d for d in base.differences if not d.segment]
    for place, (value, low, high, *results) in cases.items():
        segment = {"site": place}
        for policy, count in zip(policies, results, strict=True):
            metrics.append(Metric(policy=policy, metric="conversions", head=None, segment=segment, value=count))
        span = (identified or {}).get(place)
        differences.append(
            Difference(
                policy=policies[1],
                metric="cpa",
                head=None,
                segment=segment,
                baseline=100.0,
                candidate=None if value is None else 100 * (1 + value),
                absolute=Estimate(value=None),
                relative=Estimate(value=value, low=low, high=high),
                identified=span
                and IdentifiedChange(absolute=Range(low=None, high=None), relative=Range(low=span[0], high=span[1])),
            )
        )
    return base.model_copy(update={"metrics": metrics, "differences": differences})


def names(result: Result) -> tuple[list[str], list[str]]:
    (found,) = extremes(Lookup(result))
    return [e.name for e in found.worst], [e.name for e in found.best]


def test_segments_are_ranked_by_the_near_end_of_the_interval_and_never_by_the_change() -> None:
    assert names(result_of(CASES)) == (["gone", "sure", "surer", "noisy"], ["cheap", "perhaps"])


def test_at_most_five_of_each_are_shown() -> None:
    many: Cases = {str(n): (0.01 * n, 0.01 * n - 0.001, 0.01 * n + 0.001, 100, 100) for n in range(1, 21)}
    assert names(result_of(many)) == (["20", "19", "18", "17", "16"], [])


def test_what_the_log_can_not_decide_moves_the_ends_that_are_ranked() -> None:
    moved = names(result_of(CASES, {"sure": (0.2 - 0.3, 0.2)}))
    assert moved[0] == ["gone", "surer", "sure", "noisy"]


def test_values_that_are_not_ranked_are_counted_with_the_reason() -> None:
    (found,) = extremes(Lookup(result_of(CASES)))
    few = f"1 value with fewer than {FEW_RESULTS} conversions under both policies"
    assert found.left == f"Not ranked: {few} and 2 values without an interval."
    assert found.said == (
        "CPA is clearly higher on 3 and clearly lower on 1 of 7 ranked values by site; "
        "chance alone would make about 0.18 of each."
    )


def test_nothing_to_rank_is_said_in_a_sentence_without_empty_tables() -> None:
    result = result_of({"a": CASES["few"], "b": CASES["few"]})
    parsed = read(undrawn(result))
    assert (
        "No value by site can be ranked by its CPA. Not ranked: 2 values with fewer than 20 conversions" in parsed.text
    )
    assert "Worst: where" not in parsed.text


def test_without_intervals_nothing_is_ranked() -> None:
    assert extremes(Lookup(make_result())) == []


def test_the_page_shows_the_results_and_the_spend_beside_the_change() -> None:
    given = make_result(candidates=1, intervals=True)
    assert "whose rows the log can't decide could have any effect" in extremes(Lookup(given))[0].left
    decided = [m for m in given.metrics if m.metric not in ("unknown_wins", "unknown_outcomes")]
    parsed = read(undrawn(given.model_copy(update={"metrics": decided})))
    headings = [row for row in parsed.rows if row == ["Segment", "Change of CPA", "CPA", "Conversions"]]
    assert headings
    rows = parsed.rows[parsed.rows.index(headings[0]) + 1 :]
    assert "→" in rows[0][2]
    assert "spend" in rows[0][2]
    assert "clicks" in rows[0][3]


def test_with_several_candidates_each_has_its_own_ranking_behind_its_sentence() -> None:
    text = read(undrawn(make_result(candidates=3, intervals=True))).text
    assert text.count("Worst and best segments of") == 3


def test_the_summary_has_them_too_with_names_as_code() -> None:
    text = render_summary(result_of({**CASES, "a|b": (0.5, 0.4, 0.6, 100, 100)}))
    block = text[text.index("Worst and best segments") :]
    assert "3 and clearly lower on 1" not in block  # there is one more that is clearly higher
    assert "clearly higher on 4 and clearly lower on 1 of 8 ranked values" in block
    rows = [line for line in block.splitlines() if "| worst |" in line or "| best |" in line]
    assert len(rows) == 7
    assert "<code>a&#124;b</code> (site)" in rows[1]
    assert "+50.0% [+40.0%, +60.0%] | 100 → 100 |" in rows[1]
    assert "Worst and best" not in render_summary(make_result())
