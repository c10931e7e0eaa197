"""The replay against a naive row-by-row oracle on random small logs: every step of the spec, overall and by segment."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import Policy, Rules, heads, replay
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

import bidsim
from bidsim.result import Result

NAN = float("nan")


def make_log(rng: np.random.Generator, n: int, *, zone: str | None, integer_prices: bool) -> list[dict[str, Any]]:
    """Rows with everything that can be odd: NULLs, NaN, ties, zero prices, equal times, both sides of midnight."""
    start = datetime(2026, 3, 7, 14, 0, tzinfo=UTC)  # 23:00 in Tokyo
    rows = []
    for _ in range(n):
        ts = start + timedelta(minutes=int(rng.integers(0, 180)))
        price = float(rng.integers(0, 12)) if integer_prices else round(float(rng.exponential(5.0)), 4)
        win = [1, 0, None][rng.choice(3, p=[0.6, 0.35, 0.05])]
        click = int(rng.random() < 0.4) if win == 1 else (None if rng.random() < 0.7 else 0)
        rows.append(
            {
                "time": ts if zone is None else ts.astimezone(ZoneInfo(zone)).replace(tzinfo=None),
                "request": int(rng.integers(0, 5)),
                "campaign": [1, 2, 7, None][rng.choice(4, p=[0.4, 0.3, 0.25, 0.05])],
                "price": [price, None, NAN, -1.0][rng.choice(4, p=[0.8, 0.16, 0.02, 0.02])],
                "bid": None if rng.random() < 0.1 else float(rng.integers(1, 12)),
                "won": win,
                "click": None if rng.random() < 0.05 else click,
                "conversion": None if click is None or rng.random() < 0.08 else int(click and rng.random() < 0.5),
                "target_cpa": [100.0, 250.5, None][rng.choice(3, p=[0.5, 0.45, 0.05])],
                "pctr": _prediction(rng),
                "pcvr": _prediction(rng),
                "other_ctr": _prediction(rng),
                "limit": [0.02, 0.01, 0.005][rng.integers(0, 3)],
                "block": int(rng.integers(0, 3)),
            }
        )
    return rows


def _prediction(rng: np.random.Generator) -> float | None:
    value = float(np.float32(rng.choice([0.01, 0.05, 0.1, 0.2, 1.0, 0.0, rng.random()])))
    return [value, NAN, -0.1, 1.5, None][rng.choice(5, p=[0.92, 0.02, 0.02, 0.02, 0.02])]


SCHEMA = {
    "request": pa.int64(),
    "campaign": pa.int64(),
    "price": pa.float64(),
    "bid": pa.float64(),
    "won": pa.int8(),
    "click": pa.int8(),
    "conversion": pa.int32(),
    "target_cpa": pa.float64(),
    "pctr": pa.float64(),
    "pcvr": pa.float64(),
    "other_ctr": pa.float64(),
    "limit": pa.float64(),
    "block": pa.int32(),
    "weight": pa.float64(),
    "floor": pa.float64(),
    "loss_reason": pa.int32(),
}


def write_log(rows: list[dict[str, Any]], directory: Path, files: int = 1) -> str:
    naive = rows[0]["time"].tzinfo is None
    types = {"time": pa.timestamp("us") if naive else pa.timestamp("us", "UTC"), **SCHEMA}
    schema = pa.schema([(k, types[k]) for k in rows[0]])
    for i, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist([rows[j] for j in part], schema=schema)
        # pyarrow turns NaN in lists into NaN already; None stays NULL.
        pq.write_table(table, directory / f"part-{i:03d}.parquet", row_group_size=7)
    return str(directory / "*.parquet")


def formula(row: dict[str, Any], pctr: float | None, pcvr: float | None) -> float | None:
    if row["target_cpa"] is None or pctr is None or pcvr is None:
        return None
    return 1000 * row["target_cpa"] * pctr * pcvr * 0.0005


def policy_of(bid: dict[str, Any], pctr: str) -> Policy:
    """bid: as the scenario has it; pctr: name of the row's prediction field."""
    return Policy(
        pctr=pctr,
        pcvr="pcvr",
        formula=formula,
        multiplier=bid.get("multiplier", 1.0),
        min=bid.get("min", 0.0),
        max=bid.get("max", math.inf),
        round_down=bid.get("round") == "down",
    )


FORMULA = "1000 * target_cpa * pctr * pcvr * 0.0005"


def check_policy(result: Result, name: str, expected: dict[Any, Any], segment: str | None) -> None:
    """Every sum: money in whole 1e-9 CPM, so prices of few decimals exactly and first-price bids to half a unit a row."""
    found = {
        (m.metric, m.segment.get(segment) if segment else None): m.value
        for m in result.metrics
        if m.policy == name and m.head is None and (m.segment == {} if segment is None else segment in m.segment)
    }
    keys = (
        [k for k in expected if (k is None) == (segment is None)]
        if segment is None
        else [k for k in expected if k is not None]
    )
    for key in keys:
        sums = expected[key]
        label = None if segment is None else str(key)
        for metric in (
            "bids",
            "wins",
            "spend",
            "clicks",
            "conversions",
            "value",
            "unknown_wins",
            "unknown_outcomes",
            "undecidable",
        ):
            assert found[(metric, label)] == pytest.approx(float(getattr(sums, metric)), rel=1e-9, abs=1e-12), (
                metric,
                key,
            )
        assert found[("invalid_predictions", label)] == float(sums.invalid)
        assert found[("predicted_clicks", label)] == pytest.approx(sums.predicted_clicks, rel=1e-9, abs=1e-12)
        for metric, over, under in (
            ("win_rate", sums.wins, sums.bids), ("ctr", sums.clicks, sums.wins), ("cvr", sums.conversions, sums.clicks),
            ("cpm", 1000 * sums.spend, sums.wins), ("cpc", sums.spend, sums.clicks), ("cpa", sums.spend, sums.conversions),
            ("coverage", sums.spend, sums.decided_spend), ("surplus", sums.value - sums.spend, 1),
            ("roi", sums.value - sums.spend, sums.spend),
        ):  # fmt: skip
            value = found[(metric, label)]
            if under == 0:
                assert value is None, (metric, key)
            else:
                assert value == pytest.approx(float(over / under), rel=1e-8, abs=1e-9), (metric, key)


CASES: list[dict[str, Any]] = [
    {},
    {"auction": {"type": "first_price"}},
    {"auction": {"ties": "lose"}},
    {"auction": {"type": "first_price", "ties": "lose"}, "bid": {"round": "down"}},
    {"bid": {"round": "down", "min": 0.5, "max": 6.5, "multiplier": 1.3}},
    {"bid": {"round": "down"}, "auction": {"ties": "lose"}},
    {"budget": {"amount": "limit", "per": "day"}},
    {"budget": {"amount": 0.03, "per": "total"}, "auction": {"ties": "lose"}},
    {"budget": {"amount": 0.008, "per": "hour", "overspend": "never"}},
    {"budget": {"amount": 0.02, "per": "block", "overspend": "never"}, "bid": {"round": "down"}},
    {"budget": {"amount": 0.013, "per": "day", "overspend": "never"}, "auction": {"type": "first_price"}},
    {
        "budget": {"amount": 0.013, "per": "day", "overspend": "never"},
        "auction": {"type": "first_price", "ties": "lose"},
    },
    {"budget": {"amount": "limit", "per": "day", "overspend": "never"}, "auction": {"ties": "lose"}},
    {"weights": True},
    {"weights": True, "budget": {"amount": 0.05, "per": "day", "overspend": "never"}},
    {"weights": True, "budget": {"amount": "limit", "per": "hour"}, "auction": {"type": "first_price"}},
    {"budget": {"amount": "limit", "per": "day", "pacing": "even"}},
    {"budget": {"amount": 0.06, "per": "day", "pacing": "even", "overspend": "never"}, "auction": {"ties": "lose"}},
    {"budget": {"amount": 0.02, "per": "hour", "pacing": "even"}, "auction": {"type": "first_price"}},
    {
        "budget": {"amount": 0.008, "per": "hour", "pacing": "even", "overspend": "never"},
        "auction": {"type": "first_price"},
        "weights": True,
    },
    {"budget": {"amount": 0.05, "per": "total", "pacing": "even"}, "window": True},
    {"auction": {"internal": True}},
    {
        "auction": {"internal": True, "type": "first_price"},
        "bid": {"round": "down"},
        "weights": True,
        "floors": True,
        "reasons": True,
    },
    {"auction": {"internal": True}, "budget": {"amount": "limit", "per": "day", "pacing": "even"}},
    {"auction": {"internal": True, "ties": "lose"}, "budget": {"amount": 0.01, "per": "hour", "overspend": "never"}},
    {"floors": True, "reasons": True},
    {"no_win": True},
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("seed", range(3))
def test_the_replay_is_the_oracle_on_random_logs(case: int, seed: int, tmp_path: Path) -> None:
    options = CASES[case]
    rng = np.random.default_rng([20261123, case, seed])
    zone = "Asia/Tokyo" if seed != 1 else "UTC"
    rows = make_log(rng, int(rng.integers(20, 120)), zone=zone if seed == 2 else None, integer_prices=seed != 0)
    if options.get("weights"):
        for row in rows:
            row["weight"] = [1.0, 2.0, 0.5, 10.0, 0.0, NAN, -1.0][rng.integers(0, 7)]
    if options.get("floors"):
        for row in rows:
            row["floor"] = None if rng.random() < 0.5 else float(rng.integers(0, 10))
    if options.get("reasons"):
        for row in rows:
            row["loss_reason"] = None if rng.random() < 0.5 else int(rng.choice([100, 101, 102, 1, 203]))
    if options.get("no_win"):
        for row in rows:
            del row["won"]
    path = write_log(rows, tmp_path, files=1 + seed)
    window = {"last_hour": "2026-03-07T19:00:00+00:00", "duration_hour": 8} if options.get("window") else {}
    scenario: dict[str, Any] = {
        "logs_tables": {"ad": {"path": path, **window}},
        "timezone": zone,
        "bid": {"formula": FORMULA, **options.get("bid", {})},
        "auction": options.get("auction", {}),
        "candidates": {"new": {"columns": {"pctr": "other_ctr"}}},
        "segments": ["campaign"],
    }
    if "budget" in options:
        scenario["budget"] = options["budget"]
    result = bidsim.replay(scenario, threads=2)

    bid, auction, budget = options.get("bid", {}), options.get("auction", {}), options.get("budget")
    rules = Rules(
        first_price=auction.get("type") == "first_price",
        ties_lose=auction.get("ties") == "lose",
        zone=zone,
        budget=budget["amount"] if budget else None,
        per=budget["per"] if budget else "day",
        never=bool(budget) and budget.get("overspend") == "never",
        even=bool(budget) and budget.get("pacing") == "even",
        window=tuple(bound(hour, rows[0]["time"].tzinfo, zone) for hour in (12, 20)) if window else None,
        internal=auction.get("internal", False),
        has_win=not options.get("no_win"),
    )
    for name, pctr in (("baseline", "pctr"), ("new", "other_ctr")):
        policy = policy_of(bid, pctr)
        expected = replay(rows, policy, rules, "campaign")
        nulls = expected.pop(None)
        whole = replay(rows, policy, rules)
        check_policy(result, name, whole, None)
        check_policy(result, name, dict(expected.items()), "campaign")
        assert nulls is not None
        check_heads(result, name, rows, pctr, rules)


def bound(hour: int, zoned: Any, zone: str) -> datetime:
    """An hour of the log's day in UTC, as the log writes times."""
    instant = datetime(2026, 3, 7, hour, tzinfo=UTC)
    return instant if zoned else instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def check_heads(result: Result, name: str, rows: list[dict[str, Any]], pctr: str, rules: Rules) -> None:
    for head, field in (("ctr", pctr), ("cvr", "pcvr")):
        data = heads(rows, field, head, rules)
        found = {m.metric: m.value for m in result.metrics if m.policy == name and m.head == head and not m.segment}
        y, p, w = np.array(data.y), np.array(data.p), np.array(data.w)
        if w.sum() == 0 or len(set(y[w > 0])) < 2:
            assert found["auc"] is None
            continue
        assert found["logloss"] == pytest.approx(log_loss(y, np.clip(p, 1e-15, 1 - 1e-15), sample_weight=w), rel=1e-9)
        assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), rel=1e-12)
        assert found["brier"] == pytest.approx(brier_score_loss(y, p, sample_weight=w), rel=1e-9)
        assert found["calibration"] == pytest.approx((w * p).sum() / (w * y).sum(), rel=1e-9)
        rate = (w * y).sum() / w.sum()
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
        assert found["normalized_entropy"] == pytest.approx(found["logloss"] / entropy, rel=1e-9)
        corp = found["miscalibration"] - found["discrimination"] + found["uncertainty"]
        assert corp == pytest.approx(found["brier"], abs=1e-9)
        groups = []
        for campaign in {c if c is not None else None for c in data.campaign}:
            mine = np.array([c == campaign for c in data.campaign])
            if w[mine].sum() > 0 and len(set(y[mine & (w > 0)])) == 2:
                groups.append((roc_auc_score(y[mine], p[mine], sample_weight=w[mine]), w[mine].sum()))
        if groups:
            assert found["gauc"] == pytest.approx(np.average([g[0] for g in groups], weights=[g[1] for g in groups]))
        else:
            assert found["gauc"] is None
