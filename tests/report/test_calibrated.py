"""Calibration by segment: each value with both policies' ratios and intervals, and in words how many are clearly off."""

from __future__ import annotations

from fixtures import empty_result, make_result
from pages import read, undrawn

from bidsim.report import format as f
from bidsim.report.calibrated import HEIGHT, WIDTH, calibration_tables
from bidsim.report.lookup import Lookup
from bidsim.result import Metric, Result


def with_ratios(ratios: dict[str, tuple[float, float]]) -> Result:
    """ctr calibration by hour of baseline and candidate, each with an interval of 10% on both sides."""
    result = make_result(candidates=1, intervals=True)
    policies = [p.name for p in result.policies]

    def told(m: Metric) -> Metric:
        hour = m.segment.get("hour")
        if m.metric != "calibration" or m.head != "ctr" or hour not in ratios:
            return m
        value = ratios[hour][policies.index(m.policy)]
        return m.model_copy(update={"value": value, "low": value * 0.9, "high": value * 1.1})

    return result.model_copy(update={"metrics": [told(m) for m in result.metrics]})


def test_each_value_has_both_ratios_with_their_intervals() -> None:
    parsed = read(undrawn(with_ratios({"7": (0.8, 1.25)})))
    row = next(r for r in parsed.rows if r[0] == "7" and "[0.72, 0.88]" in r[1])
    assert row[1:3] == ["0.8000[0.72, 0.88]", "1.2500[1.12, 1.38]"]


def test_values_whose_interval_excludes_one_are_counted_in_words() -> None:
    result = with_ratios({"1": (0.5, 1.5), "2": (1.0, 1.5), "3": (1.0, 0.5), "4": (1.05, 1.0)})
    name = f.clean_name(result.candidates[0])
    table = calibration_tables(Lookup(result))["hour"][0]
    assert table.said[0] == (
        f"ctr: {name} clearly predicts too much on 2 and too little on 1 of 4 values, the baseline on 0 and 1 of 4."
    )
    assert table.said[0] in read(undrawn(result)).text


def test_pictures_stay_inside_their_frame_however_far_off_a_value_is() -> None:
    result = with_ratios({"1": (1e-9, 1e9), "2": (0.0, 1.0)})
    rows = {r.name: r for r in calibration_tables(Lookup(result))["hour"][0].rows}
    far = str(rows["1"].cells[0].plot)
    assert f'viewBox="0 0 {WIDTH} {HEIGHT}"' in far
    assert far.count("<g class") == 2
    assert "e+" not in far
    assert str(rows["2"].cells[0].plot).count("<g class") == 1  # nothing was predicted: no place on the scale


def test_without_heads_or_candidates_there_is_no_table() -> None:
    assert calibration_tables(Lookup(empty_result())) == {}
    bare = make_result()
    metrics = [m for m in bare.metrics if m.metric != "calibration"]
    assert calibration_tables(Lookup(bare.model_copy(update={"metrics": metrics}))) == {}
