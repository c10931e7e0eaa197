"""What must hold for every log, checked by whole replays of small random logs (spec sections 3 and 4)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_logs import Row, few, numbers, replay

from bidsim.result import Result

NAN = float("nan")
FORMULA = "target_cpa * pctr * pcvr"
SUMS = ("rows", "bids", "wins", "spend", "clicks", "conversions", "value", "unknown_wins", "unknown_outcomes", "undecidable",
        "invalid_predictions", "predicted_clicks", "predicted_conversions")  # fmt: skip
ALONE = tuple(f"{name}_{side}" for name in ("wins", "spend", "clicks", "conversions") for side in ("gained", "lost"))


prediction = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.5, 0.75, 1.0, NAN, -0.5, 1.5])


@st.composite
def row(draw: st.DrawFn) -> Row:
    won = draw(st.sampled_from([1, 1, 1, 0, None]))
    click = draw(st.sampled_from([0, 1, None])) if won else None
    return {
        "campaign": draw(st.sampled_from([1, 2, None])),
        "price": draw(st.sampled_from([0.0, 1.0, 2.5, 2.5, 5.0, 7.3, 10.0, None, NAN, -1.0])),
        "bid": draw(st.sampled_from([None, 2.5, 6.0])),
        "won": won,
        "click": click,
        "conversion": None if click is None else float(click and draw(st.integers(0, 2))),
        "target_cpa": draw(st.sampled_from([20.0, 60.0, None])),
        "pctr": draw(prediction),
        "pcvr": draw(prediction),
        "pother": draw(prediction),
        "half": draw(st.integers(0, 1)),
    }


plain_logs = st.lists(row(), min_size=10, max_size=40)
auctions = st.fixed_dictionaries(
    {"type": st.sampled_from(["second_price", "first_price"]), "ties": st.sampled_from(["win", "lose"])}
)
bids = st.fixed_dictionaries(
    {
        "formula": st.just(FORMULA),
        "min": st.sampled_from([0.0, 1.0]),
        "max": st.sampled_from([5.0, 1000.0]),
        "round": st.sampled_from(["none", "down"]),
    }
)
CANDIDATES: dict[str, Any] = {
    "new": {"columns": {"pctr": "pother"}},
    "same": {"columns": {"pctr": "pctr", "pcvr": "pcvr"}},
}


def run(rows: list[Row], **keys: Any) -> Result:
    return replay(
        rows,
        **{
            "candidates": CANDIDATES,
            "segments": ["campaign", "half"],
            "expected_utility": {"betas": [700.0]},
            "timezone": "Asia/Tokyo",
            **keys,
        },
    )


def everything(result: Result) -> dict[tuple[Any, ...], float | None]:
    return {(m.policy, m.metric, m.head, m.beta, *m.segment.items()): m.value for m in result.metrics}


def assert_close(found: dict[Any, float | None], expected: dict[Any, float | None], rel: float) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value is None or found[key] is None:
            assert found[key] == value, key
        else:
            assert found[key] == pytest.approx(value, rel=rel, abs=1e-10), key


@few
@given(plain_logs, auctions, bids)
def test_segments_add_up_to_the_whole_and_each_is_a_replay_of_its_rows(
    rows: list[Row], auction: dict[str, Any], bid: dict[str, Any]
) -> None:
    result = run(rows, auction=auction, bid=bid)
    for policy in ("baseline", "new"):
        whole = numbers(result, policy)
        for segment in ("campaign", "half"):
            for name in (*SUMS, *(ALONE if policy == "new" else ())):
                parts = [
                    m.value for m in result.metrics if m.policy == policy and m.metric == name and segment in m.segment
                ]
                assert None not in parts
                assert math.fsum(p or 0.0 for p in parts) == pytest.approx(whole[name], rel=1e-12, abs=1e-12), name
    for half in (0, 1):
        mine = [r for r in rows if r["half"] == half]
        if not mine:
            continue
        alone = run(mine, auction=auction, bid=bid, segments=[])
        for policy in ("baseline", "new", "same"):
            expected, found = numbers(alone, policy), numbers(result, policy, {"half": str(half)})
            # Means over campaigns are given overall and by campaign; matched spend by segment in second price only.
            extra = {k for k in expected if "gauc" in k or k == "target_attainment"}
            if auction["type"] == "first_price":
                extra |= {k for k in expected if "matched_spend" in str(k)}
            assert {k: v for k, v in found.items() if k not in extra} == {
                k: v for k, v in expected.items() if k not in extra
            }


@few
@given(plain_logs, auctions, bids, st.floats(0.01, 1000.0))
def test_a_weight_of_two_is_the_row_twice_and_the_unit_of_weights_cancels_in_ratios(
    rows: list[Row], auction: dict[str, Any], bid: dict[str, Any], unit: float
) -> None:
    twice = run([r for r in rows for _ in range(2)], auction=auction, bid=bid)
    once = run([{**r, "weight": 2.0} for r in rows], auction=auction, bid=bid)
    assert once.data.rows * 2 == twice.data.rows
    assert_close(everything(once), everything(twice), rel=1e-9)
    other = everything(run([{**r, "weight": unit} for r in rows], auction=auction, bid=bid))
    # The debiased and the calibrated errors know how many rows there are.
    sums = {*SUMS, *ALONE, "surplus", "expected_utility", "clicks_at_matched_spend", "conversions_at_matched_spend",
            "clipped_predictions", "ece_if_calibrated", "calibration_error"}  # fmt: skip
    ratios = {k: v for k, v in everything(twice).items() if k[1] not in sums}
    if auction["type"] == "first_price":  # rounded to whole 1e-12 currency after weighing
        ratios = {k: v for k, v in ratios.items() if "matched_spend" not in k[1]}
    assert len(ratios) > 100
    assert_close({k: other[k] for k in ratios}, ratios, rel=1e-7)


@few
@given(plain_logs, auctions, bids, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_threads_do_not_matter_and_no_number_is_nan(
    rows: list[Row], auction: dict[str, Any], bid: dict[str, Any], random: Any
) -> None:
    shuffled = random.sample(rows, len(rows))
    one, two = run(rows, auction=auction, bid=bid), run(shuffled, auction=auction, bid=bid, threads=2)
    parts = ("metrics", "data", "frontier", "calibration", "differences", "diagnostics", "fidelity", "findings")
    for part in parts:
        assert getattr(one, part) == getattr(two, part), part
    document = json.loads(one.to_json(), parse_constant=lambda constant: pytest.fail(constant))
    assert document["data"]["rows"] == len(rows)
    assert_no_nan_text(document)


def assert_no_nan_text(value: Any) -> None:
    """Nor do strings carry one: a pydantic model could write NaN as text."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        assert item not in ("NaN", "nan", "Infinity", "inf", "-Infinity", "-inf")
        assert_no_nan_text(item)


@few
@given(plain_logs, auctions, bids)
def test_a_candidate_that_is_the_baseline_differs_by_exactly_nothing(
    rows: list[Row], auction: dict[str, Any], bid: dict[str, Any]
) -> None:
    # A free row below min is bought for nothing at a higher multiplier: see test_levels.
    priced = [{**r, "price": 0.5 if r["price"] == 0 else r["price"]} for r in rows]
    result = run(priced, auction=auction, bid=bid, candidates={"same": CANDIDATES["same"]})
    assert len(result.differences) > 100
    for d in result.differences:
        if d.metric == "multiplier_at_matched_spend":
            continue  # see test_levels
        assert d.baseline == d.candidate, d
        assert d.absolute.value == (None if d.baseline is None else 0.0), d
        assert d.relative.value == (None if not d.baseline else 0.0), d


@few
@given(plain_logs, st.sampled_from(["win", "lose"]), bids)
def test_raising_every_bid_never_loses_an_auction_in_second_price(
    rows: list[Row], ties: str, bid: dict[str, Any]
) -> None:
    multipliers = [0.5, 0.9, 1.0, 1.1, 2.0, 10.0]
    result = run(
        rows,
        auction={"ties": ties},
        bid=bid,
        candidates={f"x{x}": {"columns": {"pctr": "pother"}, "bid": {"multiplier": x}} for x in multipliers},
        segments=[],
    )
    found = [numbers(result, f"x{x}") for x in multipliers]
    for name in ("bids", "wins", "spend", "clicks", "conversions", "unknown_outcomes", "unknown_wins"):
        values = [f[name] for f in found]
        assert values == sorted(values), name  # type: ignore[type-var]


INVALID = [NAN, -0.25, 1.0000001, math.inf, -math.inf]


@pytest.mark.parametrize("formula", ["100 * pctr", "50", "100 * coalesce(pctr, 0.5)"])
def test_a_row_with_an_unusable_prediction_is_counted_and_never_bid_on(formula: str) -> None:
    good: Row = {"campaign": 1, "price": 1.0, "won": 1, "click": 1, "pctr": 0.5, "weight": 1.0}
    missing = {**good, "pctr": None}  # counted too, but a formula may say what it bids then
    rows = [good, good, missing, *({**good, "pctr": p, "weight": 2.0} for p in INVALID)]
    result = replay(
        rows,
        bid={"formula": formula},
        candidates={"new": {"columns": {"pctr": "pctr"}}},
    )
    bought = 2.0 if formula == "100 * pctr" else 3.0
    for policy in ("baseline", "new"):
        found = numbers(result, policy)
        assert found["invalid_predictions"] == 2.0 * len(INVALID) + 1.0
        assert (found["bids"], found["wins"], found["spend"]) == (bought, bought, bought / 1000)
        assert found[("calibration", "ctr")] == 0.5
    checks = {"C12"}  # so few rows
    assert {f.code for f in result.findings} - checks == {"invalid_predictions"}


def test_a_candidate_that_only_bids_differently_has_the_baselines_invalid_predictions() -> None:
    good: Row = {"campaign": 1, "price": 1.0, "won": 1, "click": 1, "pctr": 0.5}
    result = replay([good, {**good, "pctr": NAN}], bid={"formula": "50"})
    assert numbers(result, "baseline")["invalid_predictions"] == 1.0
    assert numbers(result, "new")["bids"] == 1.0
    assert numbers(result, "new")["invalid_predictions"] == 1.0


def test_a_borrowed_prediction_that_is_impossible_is_no_bid_and_is_counted() -> None:
    good: Row = {"campaign": 1, "price": 1.0, "won": 1, "click": 1, "pctr": 0.5, "pcvr": 0.5, "conversion": 1.0}
    rows = [good, {**good, "pcvr": NAN}, {**good, "pcvr": 1.5}]
    candidates = {"new": {"columns": {"pctr": "pctr / 2"}}}
    found = numbers(replay(rows, bid={"formula": "50 * coalesce(pcvr, 1)"}, candidates=candidates), "new")
    assert found["bids"] == 1.0
    assert found["invalid_predictions"] == 2.0


def test_a_head_that_only_the_formula_takes_from_the_baseline_is_named_and_never_bid_on_when_impossible() -> None:
    """Spec 3.2: a head that a candidate lacks is the baseline's, and the result says so."""
    good: Row = {
        "campaign": 1,
        "price": 1.0,
        "won": 1,
        "click": 1,
        "pctr": 0.5,
        "pcvr": 0.5,
        "pctcvr": 0.25,
        "conversion": 1.0,
    }
    rows = [good, {**good, "pctcvr": NAN}, {**good, "pctcvr": 1.5}]
    candidates = {"new": {"columns": {"pctr": "pctr / 2"}}}
    result = replay(rows, bid={"formula": "50 * coalesce(pctcvr, 1)"}, candidates=candidates)
    assert {p.name: p.borrowed_heads for p in result.policies} == {"baseline": [], "new": ["cvr", "ctcvr"]}
    assert numbers(result, "new")["bids"] == 1.0
    assert numbers(result, "new")["invalid_predictions"] == 2.0
    without = replay(rows, bid={"formula": "50 * pctr * pcvr"}, candidates=candidates)
    assert without.policies[1].borrowed_heads == ["cvr"]


def test_ties_rounding_min_and_max_at_their_very_edges() -> None:
    rows = [{"campaign": i, "price": float(i), "won": 1, "click": 0, "pctr": 0.5} for i in range(11)]
    cases = {
        # bid setting: (wins where ties win, wins where ties lose)
        "tie": ({"formula": "10 * pctr"}, 6, 5),
        "down": ({"formula": "11.98 * pctr", "round": "down"}, 6, 5),
        "down to nothing": ({"formula": "1.98 * pctr", "round": "down"}, 1, 0),  # 0 still wins a free auction
        "at min": ({"formula": "10 * pctr", "min": 5.0}, 6, 5),
        "below min": ({"formula": "10 * pctr", "min": 5.0000001}, 0, 0),
        "at max": ({"formula": "10 * pctr", "max": 5.0}, 6, 5),
        "above max": ({"formula": "100 * pctr", "max": 5.0}, 6, 5),
        "max, then down": ({"formula": "100 * pctr", "max": 5.5, "round": "down"}, 6, 5),
        "min above max": ({"formula": "100 * pctr", "min": 8.0, "max": 5.0}, 6, 5),
        "multiplier first": ({"formula": "5 * pctr", "multiplier": 2.0, "min": 5.0}, 6, 5),
    }
    for ties, place in (("win", 1), ("lose", 2)):
        result = replay(
            rows,
            bid={"formula": "10 * pctr"},
            auction={"ties": ties},
            candidates={name: {"bid": case[0]} for name, case in cases.items()},
        )
        for name, case in cases.items():
            assert numbers(result, name)["wins"] == case[place], (name, ties)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]], ids=["alike", "weighted"])
def test_an_auc_varies_by_both_labels_each_with_its_weight(weights: list[float] | None) -> None:
    """DeLong's variance with weights: of each row, how many of the other label it beats. Half of it is the negatives'."""
    rng = np.random.default_rng(20261127)
    p = rng.beta(2.0, 2.0, 4000).astype(np.float32)
    y, w = rng.random(4000) < p, rng.choice(weights or [1.0], 4000)
    rows = [
        {"campaign": 1, "price": 1.0, "won": 1, "click": int(label), "pctr": float(score)}
        | ({"weight": float(weight)} if weights else {})
        for label, score, weight in zip(y, p, w, strict=True)
    ]
    result = replay(rows, bid={"formula": "9 * pctr"}, sample_type="imp-click")
    found = next(m for m in result.metrics if (m.policy, m.metric, m.segment) == ("baseline", "auc", {}))
    above = (p[y][:, None] > p[~y][None, :]) + 0.5 * (p[y][:, None] == p[~y][None, :])
    shares = [x / x.sum() for x in (w[y], w[~y])]
    beats, beaten = above @ shares[1], shares[0] @ above
    area = shares[0] @ beats
    parts = [((share * (x - area)) ** 2).sum() for share, x in zip(shares, (beats, beaten), strict=True)]
    assert 0.4 < parts[1] / sum(parts) < 0.6
    assert found.value == pytest.approx(area, rel=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(math.sqrt(sum(parts)), rel=0.12)
