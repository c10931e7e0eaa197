"""Day by day: which segment is of days, its chart, and the count of signs with an honest p-value."""

from __future__ import annotations

import pytest
from fixtures import make_result
from pages import read, undrawn
from scipy.stats import binomtest

from bidsim.report.days import day_family, days, sign_test
from bidsim.report.frame import steps
from bidsim.report.lookup import Lookup
from bidsim.result import Result

HINT = "To see the change day by day, name day among the scenario’s segments"


def by_day(values: list[str], *, family: str = "day", candidates: int = 1, intervals: bool = True) -> Result:
    """The fixture's hours as days."""
    result = make_result(candidates=candidates, intervals=intervals)

    def told(segment: dict[str, str]) -> dict[str, str] | None:
        if "hour" not in segment:
            return segment
        hour = int(segment["hour"])
        return {family: values[hour]} if hour < len(values) else None

    changed = {
        what: [r.model_copy(update={"segment": s}) for r in getattr(result, what) if (s := told(r.segment)) is not None]
        for what in ("metrics", "differences")
    }
    return result.model_copy(update=changed)


WEEK = [f"2026-11-{n:02}" for n in range(9, 16)]


@pytest.mark.parametrize(("one", "other"), [(7, 0), (6, 1), (3, 3), (0, 1), (5, 9), (0, 2000)])
def test_the_p_value_is_the_exact_binomial_one(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue
    assert sign_test(one, other) == pytest.approx(expected, rel=1e-9)


def test_signs_are_counted_as_the_differences_have_them() -> None:
    result = by_day(WEEK)
    (candidate,) = result.candidates
    changes = [d.relative.value for d in result.differences if d.metric == "cpa" and "day" in d.segment]
    assert len(changes) == 7
    lower = sum(v < 0 for v in changes if v is not None)
    found = days(Lookup(result))
    assert found is not None
    assert f"is lower on {lower} of 7 days, on counted wins." in found.said[0]
    assert "Were days independent" in found.said[0]
    assert candidate.split()[0] in found.said[0]
    text = read(undrawn(result)).text
    assert "not a second test" in text
    assert HINT not in text
    shown = read(result._repr_html_()).text
    assert "Change of spend by day" in shown
    assert found.said[0] in shown


@pytest.mark.parametrize(
    ("family", "values", "known"),
    [
        ("day", WEEK, True),
        ("dt", WEEK, True),
        ("dt", [w.replace("-", "") for w in WEEK], True),
        ("day", [*WEEK, "NULL"], True),
        ("dt", [*WEEK, "other"], False),
        ("day", WEEK[:1], False),
        ("size", ["300x250", "728x90"], False),
        ("code", ["10010230", "20991399"], False),
    ],
)
def test_days_are_known_by_their_name_or_because_all_values_are_dates(
    family: str, values: list[str], known: bool
) -> None:
    assert (day_family(Lookup(by_day(values, family=family))) is not None) == known


def test_campaigns_are_no_days_even_where_their_ids_look_like_dates() -> None:
    result = by_day(WEEK, family="when")
    scenario = {**result.scenario, "columns": {"campaign": "when"}}
    metrics = [m for m in result.metrics if "campaign" not in m.segment]
    assert day_family(Lookup(result.model_copy(update={"scenario": scenario, "metrics": metrics}))) is None


def test_each_candidate_has_its_points_and_a_day_without_a_row_its_gap() -> None:
    result = by_day([WEEK[0], WEEK[1], WEEK[6]], candidates=2)
    found = days(Lookup(result))
    assert found is not None
    assert [figure.title for figure in found.figures] == ["Change of spend by day", "Change of CPA by day"]
    spend = str(found.figures[0].svg)
    assert spend.count("<circle") == 3  # the first candidate's marks
    assert 'role="img"' in spend
    assert "3 days" in spend


def test_a_scenario_without_days_is_told_how_to_have_them() -> None:
    assert HINT in read(undrawn(make_result())).text
    short = make_result()
    window = short.data.window
    assert window is not None
    data = short.data.model_copy(update={"window": window.model_copy(update={"end": "2026-11-10T00:00:00+09:00"})})
    assert HINT not in read(undrawn(short.model_copy(update={"data": data}))).text


def test_axes_have_round_numbers() -> None:
    assert steps(-0.31, 0.04) == [-0.3, -0.2, -0.1, 0.0]
    assert steps(-0.021, 0.021) == [-0.02, -0.01, 0.0, 0.01, 0.02]
    assert steps(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
