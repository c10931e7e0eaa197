"""Relations between whole replays: what must not change a number, and what must change it by a known factor.

No expected values are needed, so these see what an evaluator of single rows can't: intervals, differences, splits,
frontiers, ranges, and what features do to each other. Two small markets are replayed once and compared with replays of
the same rows told in another way.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidsim.gate import judge
from bidsim.result import Result
from bidsim.scenario.schema import Rule
from tests.small_logs import Row, as_table, replay

START = datetime(2026, 11, 2, tzinfo=UTC)
MONEY = {"spend", "spend_gained", "spend_lost", "cpm", "cpc", "cpa", "value", "surplus", "expected_utility"} | {
    "cpa_at_matched_spend",
    "cpc_at_matched_spend",
}
PRICED = ("price", "bid", "target_cpa")
Numbers = dict[tuple[Any, ...], Any]


def make_log(n: int = 500) -> list[Row]:
    """Users with several rows, some auctions lost at an unknown price, weights, ties and free impressions."""
    rng = np.random.default_rng(20261126)
    rows: list[Row] = []
    for i in range(n):
        pctr, pcvr = rng.uniform(0.05, 0.5), rng.uniform(0.1, 0.6)
        target = float(rng.choice([8.0, 16.0]))
        price = float(rng.choice([0.0, 1.0], p=[0.03, 0.97]) * np.round(rng.lognormal(6.5, 0.8)))
        bid = float(np.round(1000 * target * pctr * pcvr * rng.lognormal(0.3, 0.4)))
        won = bid >= price
        click = won and rng.random() < pctr
        rows.append(
            {
                "time": START + timedelta(seconds=int(rng.integers(0, 2 * 86400))),
                "unit": int(rng.integers(0, n // 3)),
                "request": i,
                "campaign": int(rng.choice([3, 7, 12])),
                "exchange": str(rng.choice(["a", "b"])),
                "price": price if won or rng.random() < 0.5 else None,
                "market": price,
                "bid": bid,
                "won": int(won),
                "click": int(click) if won else None,
                "conversion": float(click and rng.random() < pcvr) if won else None,
                "weight": float(rng.choice([1.0, 2.0])),
                "pctr": pctr,
                "pcvr": pcvr,
                "pother": min(pctr * rng.lognormal(0.0, 0.3), 0.9),
                "target_cpa": target,
            }
        )
    return rows


OTHER: dict[str, Any] = {"columns": {"pctr": "pother", "pcvr": "pcvr"}}
PLAIN: dict[str, Any] = {
    "candidates": {"new": OTHER},
    "baseline": {"columns": {"pctr": "pctr", "pcvr": "pcvr"}},
    "segments": ["exchange"],
    "expected_utility": {"betas": [16.0]},
    "performance_indicator_type": "cpa",
    "fidelity": "warn",
    "gate": [{"metric": "cpa_at_matched_spend", "max_increase": "5%"}, {"metric": "wins", "max_decrease": "1%"}],
}
SPENT: dict[str, Any] = {
    **PLAIN,
    "auction": {"type": "case when exchange = 'a' then 'first_price' else 'second_price' end"},
    "budget": {"amount": 8.0, "per": "day", "overspend": "never"},
}
WORLDS = {"plain": PLAIN, "budgets and first price": SPENT}
each_world = pytest.mark.parametrize("world", WORLDS)


@cache
def told(world: str) -> Result:
    """The market as it is, to compare with."""
    return replay(log(make_log()), **copy.deepcopy(WORLDS[world]))


def log(rows: list[Row], **columns: pa.Array) -> pa.Table:
    """The rows without what the market alone knows, some columns replaced."""
    table = as_table([{k: v for k, v in row.items() if k != "market"} for row in rows])
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def column(rows: list[Row], name: str, kind: pa.DataType, of: Callable[[Any], Any] = lambda x: x) -> pa.Array:
    return pa.array([None if row[name] is None else of(row[name]) for row in rows], type=kind)


def numbers(result: Result, *, ranges: bool = True) -> Numbers:
    """Every number by where it stands: (table, policy, metric, head, segment, quantity, end)."""
    found: Numbers = {}
    for table in ("metrics", "differences"):
        for record in getattr(result, table):
            place = (table, record.policy, record.metric, record.head, tuple(record.segment.items()))
            given = record.model_dump(exclude={"policy", "metric", "head", "segment", "beta"})
            found |= {(*place, *path): value for path, value in _leaves(given) if ranges or "identified" not in path}
    for part in result.split:
        for path, value in _leaves(part.model_dump(include={"absolute", "relative"})):
            found[("split", part.policy, part.metric, part.part, (), *path)] = value
    return found


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], float | None]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (((name, *path), leaf) for path, leaf in _leaves(value))
        else:
            yield (name,), value


def check_equal(found: Numbers, expected: Numbers, close: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for place, value in expected.items():
        other = found[place]
        same = other == value or (
            None not in (other, value) and other == pytest.approx(value, rel=close, abs=close if close else 0.0)
        )
        assert same, (place, value, other)


@each_world
def test_money_in_another_unit_scales_money_and_nothing_else(world: str) -> None:
    rows = [{**row, **{k: None if row[k] is None else 64 * row[k] for k in PRICED}} for row in make_log()]
    scenario = copy.deepcopy(WORLDS[world]) | {"expected_utility": {"betas": [16.0 / 64]}}
    if "budget" in scenario:
        scenario["budget"]["amount"] *= 64
    result = replay(log(rows), **scenario)

    def scaled(place: tuple[Any, ...], value: float | None) -> float | None:
        is_money = place[2] in MONEY and "relative" not in place
        return 64 * value if is_money and value is not None else value

    check_equal(numbers(result), {p: scaled(p, v) for p, v in numbers(told(world)).items()}, 1e-7)
    outcomes = [[(o.rule, o.status) for o in r.gate.rules] for r in (result, told(world))]
    assert outcomes[0] == outcomes[1]


@each_world
def test_other_candidates_and_segments_change_no_number(world: str) -> None:
    more = copy.deepcopy(WORLDS[world])
    more["candidates"] = {"another": {"bid": {"multiplier": 0.7}}, **more["candidates"]}
    more["segments"] = [{"odd": "request % 2"}, *more["segments"]]
    found = {
        place: value
        for place, value in numbers(replay(log(make_log()), **more), ranges=False).items()
        if place[1] != "another" and not any(name == "odd" for name, _ in place[4])
    }
    check_equal(found, numbers(told(world), ranges=False), 1e-12)


@pytest.mark.parametrize("outcomes", ["observed", "predicted"])
def test_which_heads_are_judged_changes_no_economic_number(outcomes: str) -> None:
    rows = log(make_log())
    world = {**PLAIN, "gate": [], "outcomes": outcomes}

    def economic(result: Result) -> Numbers:
        return {place: value for place, value in numbers(result).items() if place[3] is None or place[0] == "split"}

    all_heads = economic(replay(rows, **world))
    assert any("identified" in place and value for place, value in all_heads.items())
    for judged in ("imp-click", "click-conversion", "imp-conversion"):
        assert economic(replay(rows, **world, sample_type=judged)) == all_heads, judged


def test_a_segment_of_one_value_has_the_numbers_and_intervals_of_the_whole_log() -> None:
    found = numbers(replay(log(make_log()), **{**PLAIN, "segments": [{"all": "'yes'"}], "gate": []}))
    # These have other intervals by segment, or are means over campaigns.
    apart = ("ece", "calibration_error", "miscalibration", "discrimination", "gauc", "target_attainment")
    whole = {p: v for p, v in found.items() if p[4] == () and p[0] != "split" and not p[2].startswith(apart)}
    part = {(*p[:4], (), *p[5:]): v for p, v in found.items() if p[4] and not p[2].startswith(apart)}
    check_equal(part, whole, 1e-12)


def test_baseline_and_candidate_the_other_way_round_change_signs_only() -> None:
    swapped = {**PLAIN, "baseline": OTHER, "candidates": {"new": PLAIN["baseline"]}}
    there, back = (
        {(d.metric, d.head, tuple(d.segment.items())): d for d in result.differences}
        for result in (told("plain"), replay(log(make_log()), **swapped))
    )
    assert there.keys() == back.keys()
    for place, change in there.items():
        if place[0].endswith("_at_matched_spend") or place[0] == "formula_drift":
            continue
        other = back[place]
        assert (other.candidate, other.baseline) == (change.baseline, change.candidate), place
        if change.absolute.low is None or change.absolute.high is None:
            assert other.absolute.low is None, place
            continue
        assert other.absolute.high is not None
        length = change.absolute.high - change.absolute.low
        # A few rows that are decided differently cost what the baseline bids, and nothing falls below 0.
        assert other.absolute.high == pytest.approx(-change.absolute.low, abs=0.2 * length), place
        if change.identified is not None and other.identified is not None:
            ours, theirs = change.identified.absolute, other.identified.absolute
            assert (theirs.low, theirs.high) == pytest.approx((-(ours.high or 0), -(ours.low or 0)), rel=1e-9), place


@each_world
def test_intervals_hold_their_value_and_those_of_less_confidence(world: str) -> None:
    wide = numbers(told(world), ranges=False)
    narrow = numbers(replay(log(make_log()), **{**WORLDS[world], "intervals": {"confidence": 0.8}}), ranges=False)
    ends = [place[:-1] for place, low in wide.items() if place[-1] == "low" and low is not None]
    assert len(ends) > 200
    for place in ends:
        points = [wide[(*place, "low")], narrow[(*place, "low")], wide[(*place, "value")]]
        points += [narrow[(*place, "high")], wide[(*place, "high")]]
        if None in points:  # relative to what may be zero at the higher confidence
            continue
        slack = 1e-9 * max(map(abs, points))
        assert all(a <= b + slack for a, b in itertools.pairwise(points)), (place, points)


def test_the_frontier_and_the_matched_level_are_replays_with_that_multiplier() -> None:
    base = told("plain")
    at = {m.metric: m.value for m in base.metrics if m.policy == "new" and not m.segment and m.head is None}
    point = next(p for p in base.frontier if p.policy == "new" and 1.2 < p.multiplier < 1.6)
    level = at["multiplier_at_matched_spend"]
    assert level is not None
    candidates = {
        "frontier": {**OTHER, "bid": {"multiplier": point.multiplier}},
        "level": {**OTHER, "bid": {"multiplier": level}},
    }
    result = replay(log(make_log()), **{**PLAIN, "candidates": candidates})
    found = {(m.policy, m.metric): m.value for m in result.metrics if not m.segment and m.head is None}
    for name in ("spend", "clicks", "conversions"):
        assert found[("frontier", name)] == pytest.approx(getattr(point, name), rel=1e-9)
    assert found[("level", "spend")] <= found[("baseline", "spend")]  # type: ignore[operator]
    for name in ("clicks", "conversions"):
        assert found[("level", name)] == at[f"{name}_at_matched_spend"]


@pytest.mark.parametrize(
    "budget", [{"per": "hour"}, {"per": "total", "overspend": "never"}, {"pacing": "even"}], ids=str
)
def test_a_budget_without_an_end_and_auctions_of_one_bid_change_nothing(budget: dict[str, Any]) -> None:
    result = replay(log(make_log()), **{**PLAIN, "budget": {"amount": 1e12, **budget}, "auction": {"internal": True}})

    def kept(result: Result) -> Numbers:
        # Intervals come from half-samples, and the matched level from whole replays, where budgets bind rows together.
        found = numbers(result)
        return {
            p: v
            for p, v in found.items()
            if p[-1] in ("value", "baseline", "candidate") and "matched" not in p[2] and p[0] != "split"
        }

    check_equal(kept(result), kept(told("plain")), 1e-12)


def test_a_factor_may_stand_in_the_formula_the_multiplier_or_the_prediction() -> None:
    rows = [
        {**row, "pother": row["pother"] / 2, "ptwice": float(np.float32(row["pother"] / 2)) * 2} for row in make_log()
    ]
    formula = "1000 * target_cpa * pctr * pcvr"
    ways: dict[str, Any] = {
        "multiplier": {**OTHER, "bid": {"multiplier": 2.0}},
        "formula": {**OTHER, "bid": {"formula": f"2 * {formula}"}},
        "prediction": {"columns": {"pctr": "ptwice", "pcvr": "pcvr"}},
    }
    found = numbers(replay(log(rows), **{**SPENT, "bid": {"formula": formula}, "candidates": ways, "gate": []}))
    by_way = [{(p[0], *p[2:]): v for p, v in found.items() if p[1] == way} for way in ways]
    check_equal(by_way[1], by_way[0], 1e-12)
    apart = ("predicted", "calibration")
    for way in by_way[1:]:
        check_equal(
            *(
                {p: v for p, v in x.items() if (p[2] is None or p[0] == "split") and not p[1].startswith(apart)}
                for x in (way, by_way[0])
            ),
            1e-12,
        )


@each_world
def test_the_types_of_columns_do_not_matter_nor_does_where_predictions_come_from(world: str, tmp_path: Path) -> None:
    rows = make_log()
    table = log(
        rows,
        time=column(rows, "time", pa.timestamp("ms", "Asia/Tokyo")),
        unit=column(rows, "unit", pa.uint16()),
        campaign=column(rows, "campaign", pa.int8()),
        price=column(rows, "price", pa.decimal128(12, 2), Decimal),
        bid=column(rows, "bid", pa.int32(), int),
        won=column(rows, "won", pa.bool_(), bool),
        click=column(rows, "click", pa.float32(), float),
        conversion=column(rows, "conversion", pa.uint8(), int),
        exchange=column(rows, "exchange", pa.string()).dictionary_encode(),
    )
    file = tmp_path / "new.parquet"
    order = np.random.default_rng(1).permutation(len(rows))
    scores = {name: [rows[i][key] for i in order] for name, key in (("pctr", "pother"), ("pcvr", "pcvr"))}
    keys = pa.array([rows[i]["request"] for i in order])
    pq.write_table(pa.table({"request": keys, **{k: pa.array(v, pa.float32()) for k, v in scores.items()}}), file)
    result = replay(table, **{**WORLDS[world], "candidates": {"new": {"model": str(file)}}})
    check_equal(numbers(result), numbers(told(world)))
    assert result.data.fingerprint == told(world).data.fingerprint


def test_prices_that_become_known_never_widen_what_could_be() -> None:
    rows = [{**row, "price": row["market"] if i % 3 else row["price"]} for i, row in enumerate(make_log())]
    before, after = numbers(told("plain")), numbers(replay(log(rows), **PLAIN))
    sums = ("wins", "spend", "clicks", "conversions", "value")
    seen = [p for p in before if p[2] in sums and "identified" in p and "relative" not in p]
    narrower = 0
    for place in seen:
        low = place[-1] == "low"
        inside = after[place] - before[place] if low else before[place] - after[place]
        assert inside >= -1e-7 * abs(before[place]), (place, before[place], after[place])
        narrower += inside > 1e-3
    assert narrower > 20


def test_a_stricter_bound_never_passes_what_a_looser_one_does_not() -> None:
    result = told("plain")
    rank = {"pass": 2, "fail": 0}
    for metric, head in (
        ("cpa", None),
        ("wins", None),
        ("logloss", "ctr"),
        ("cpc_at_matched_spend", None),
        ("auc", "cvr"),
    ):
        change = next(d for d in result.differences if (d.metric, d.head, d.segment) == (metric, head, {}))
        size = abs(change.baseline or 0)
        for kind, evidence in itertools.product(("at_most", "max_increase", "max_decrease"), ("interval", "point")):
            bounds = size * np.linspace(-1.0, 1.0, 41) + (size if kind == "at_most" else 0.0)
            rules = [
                Rule.model_validate({"metric": metric, "head": head, kind: float(b), "evidence": evidence})
                for b in bounds
            ]
            judged = judge(result, rules, fidelity_warns=True).gate.rules[: len(rules)]
            ranks = [rank.get(o.status, 1) for o in judged]
            assert ranks == sorted(ranks), (metric, kind, evidence)
            assert {ranks[0], ranks[-1]} == {0, 2}


def lonely_win() -> list[Row]:
    """Sixty users, one of whom was won."""
    seen = {"price": 7.3, "won": 1, "click": 1, "conversion": 1.0}
    lost = {"price": 10_000.0, "won": 0, "click": None, "conversion": None}
    return [
        {
            "unit": i,
            "campaign": 1,
            "bid": 9.0,
            "pctr": 0.1,
            "pcvr": 0.1,
            "target_cpa": 0.9,
            **(seen if i == 11 else lost),
        }
        for i in range(60)
    ]


def test_what_the_only_win_cost_is_no_evidence_of_what_others_will() -> None:
    result = replay(lonely_win())
    found = {m.metric: m for m in result.metrics if m.policy == "baseline" and m.head is None and not m.segment}
    for metric in ("cpm", "cpc", "cpa", "roi"):
        assert found[metric].value is not None, metric
        assert (found[metric].low, found[metric].high) == (None, None), metric
    judged = judge(result, [Rule(metric="cpa", at_most=0.01)], fidelity_warns=True)
    assert [o.status for o in judged.gate.rules if o.metric == "cpa"] == ["insufficient_data"]
