"""What `coverage.py` leaves out: do intervals of everything else that bidsim says hold the truth 95 times in 100?

    python tests/benchmarks/coverage_more.py --kinds second first budget --sizes 200x300 2000x3000 --markets 150

Markets are drawn as in `coverage.py`, with campaigns of unequal size that differ in price, in rates and in what the
candidate thinks of them, and each is replayed by itself. The truth is the replay of one very large log of the same kind;
totals are scaled to a market's expected rows. Everything that a replay gives an interval for is judged: metrics of both
policies, differences, the split, and values by campaign.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from coverage import Population, draw_rows, draw_users

import bidsim

POPULATION = Population(math.log(0.25), math.log(0.4))
CAMPAIGNS = 12
DAYS = 3
# Sizes fall by a geometric law, from a quarter of the rows to a hundredth.
SHARES = 0.75 ** np.arange(CAMPAIGNS) / (0.75 ** np.arange(CAMPAIGNS)).sum()
# Many replays of budgets take long.
TRUTH_ROWS, BUDGET_ROWS, TRUTH_ROWS_PER_USER = 3_000_000, 800_000, 10

# What grows with the rows.
TOTALS = ("spend", "wins", "bids", "clicks", "conversions", "value", "surplus", "expected_utility", "rows")
# Facts and what `coverage_calibration.py` judges.
SKIPPED = (
    *(
        "ece",
        "ece_if_calibrated",
        "calibration_error",
        "miscalibration",
        "discrimination",
        "brier",
        "uncertainty",
        "rows",
    ),
    *("clipped_predictions", "invalid_predictions", "undecidable", "unknown_wins", "unknown_outcomes", "formula_drift"),
    *("coverage", "logloss", "normalized_entropy", "cpm", "bids"),
)

SUMMARY = ("kind", "size", "numbers", "how many", "held on average", "least", "below 90%", "no interval")
# width: 1 where intervals are as wide as the values scatter; odd: no width, or the value outside; bias: in deviations.
EACH = (
    "kind",
    "size",
    "what",
    "metric",
    "where",
    "held",
    "truth below / above",
    "width",
    "odd",
    "none",
    "truth",
    "bias",
)

Key = tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of log and the way it is replayed. cheap: what prices are multiplied by."""

    first_price: bool = False
    cheap: float = 1.0
    budget: str | None = None
    thinned: str | None = None
    alone: bool = False


KINDS = {
    "second": Kind(),
    "first": Kind(first_price=True),
    "saturated": Kind(cheap=0.12),
    "asap": Kind(budget="asap"),
    "even": Kind(budget="even"),
    "tenth": Kind(thinned="rows"),
    "negatives": Kind(thinned="negatives"),
    "no units": Kind(alone=True),
}


def draw_log(kind: Kind, users: int, rows: float, rng: np.random.Generator) -> dict[str, Any]:
    """rows: expected number."""
    drawn = draw_users(POPULATION, users, rng)
    counts = rng.poisson(drawn.activity * (rows / users)) if not kind.alone else np.ones(users, dtype=np.int64)
    of = np.repeat(np.arange(users), counts)
    found = draw_rows(POPULATION, drawn, of, rng)
    campaign = rng.choice(CAMPAIGNS, len(of), p=SHARES)
    # Fixed differences between campaigns: CTR, price, and what the candidate makes of each.
    wave = np.sin(2.4 * np.arange(CAMPAIGNS))
    liked = np.exp(0.15 * np.cos(1.7 * np.arange(CAMPAIGNS)))
    clicked = rng.random(len(of)) < np.clip(found["ctr"] * (1 + 0.3 * wave[campaign]), 0, 1)
    log = {
        "user_id": of,
        "campaign": campaign.astype(np.int32),
        "price": np.maximum(np.round(found["price"] * kind.cheap * (1 - 0.2 * wave[campaign]), 2), 0.01),
        "click": clicked.view(np.int8),
        "cv": (clicked & (rng.random(len(of)) < found["cvr"])).view(np.int8),
        "pctr_a": np.clip(found["pctr_a"] * (1 + 0.2 * wave[campaign]), 1e-6, 0.999).astype(np.float32),
        "pctr_b": np.clip(found["pctr_b"] * (1 + 0.3 * wave[campaign]) * liked[campaign], 1e-6, 0.999).astype(
            np.float32
        ),
        "pcvr": found["pcvr"],
        "ts": (rng.random(len(of)) * DAYS * 86400e6).astype("datetime64[us]"),
        "weight": np.ones(len(of)),
    }
    if kind.thinned:
        kept = rng.random(len(of)) < 0.1
        if kind.thinned == "negatives":
            kept |= log["click"] == 1
            log["weight"] = np.where(log["click"] == 1, 1.0, 10.0)
        else:
            log["weight"] = np.full(len(of), 10.0)
        log = {name: values[kept] for name, values in log.items()}
    return log


def scenario(kind: Kind, path: Path, budget: float) -> dict[str, Any]:
    columns = {"price": "price", "click": "click", "conversion": "cv", "target_cpa": "500e0", "campaign": "campaign"}
    made: dict[str, Any] = {
        "name": "coverage",
        "sample_type": ["imp-click", "click-conversion"],
        "logs_tables": {"log": {"path": str(path)}},
        "columns": columns,
        "performance_indicator_type": "cpa",
        "bid": {"formula": "1000 * target_cpa * pctr * pcvr"},
        "auction": {"type": "first_price" if kind.first_price else "second_price"},
        "baseline": {"columns": {"pctr": "pctr_a", "pcvr": "pcvr"}},
        "candidates": {"candidate": {"columns": {"pctr": "pctr_b", "pcvr": "pcvr"}}},
        "segments": ["campaign"],
    }
    if not kind.alone:
        columns["unit"] = "user_id"
    if kind.thinned:
        columns["weight"] = "weight"
    if kind.budget:
        columns["time"] = "ts"
        # Every second campaign has twice the budget and is not bound by it.
        shares = " ".join(
            f"when {c} then {budget * share / DAYS * (1 + c % 2)!r}" for c, share in enumerate(SHARES.tolist())
        )
        made["budget"] = {"amount": f"case campaign {shares} end", "per": "day", "pacing": kind.budget}
    return made


def numbers(result: Any) -> Iterator[tuple[Key, bool, tuple[float, float, float]]]:
    """(name, whether it grows with the rows, (value, low, high)) of everything with an interval."""

    def three(e: Any) -> tuple[float, float, float]:
        return tuple(math.nan if v is None else float(v) for v in (e.value, e.low, e.high))  # type: ignore[return-value]

    # Betas follow a log's mean price.
    blurs = sorted({m.beta for m in result.metrics if m.beta is not None})

    def name(m: Any) -> str:
        blur = None if m.beta is None else ("wide", "middle", "narrow")[blurs.index(m.beta)]
        return " ".join(filter(None, (m.metric, m.head, blur)))

    def grows(metric: str) -> bool:
        stem = (
            metric.removesuffix("_gained")
            .removesuffix("_lost")
            .removesuffix("_at_matched_spend")
            .removeprefix("predicted_")
        )
        return stem in TOTALS

    def where(m: Any) -> str:
        return " ".join(m.segment.values())

    for m in result.metrics:
        if m.metric not in SKIPPED:
            yield (m.policy, name(m), where(m)), grows(m.metric), three(m)
    for d in result.differences:
        if d.metric not in SKIPPED:
            yield ("absolute", name(d), where(d)), grows(d.metric), three(d.absolute)
            yield ("relative", name(d), where(d)), False, three(d.relative)
    for s in result.split:
        yield (f"split {s.part} absolute", s.metric, ""), s.metric in TOTALS, three(s.absolute)
        yield (f"split {s.part} relative", s.metric, ""), False, three(s.relative)


def replayed(kind: Kind, users: int, rows: float, rng: np.random.Generator, budget: float, folder: Path) -> Any:
    path = folder / "log.parquet"
    pq.write_table(pa.table(draw_log(kind, users, rows, rng)), path)
    gc.collect()
    return bidsim.replay(scenario(kind, path, budget), threads=1)


def endless(kind: Kind, rows: int, budget: float, seed: Sequence[int], folder: Path) -> dict[Key, float]:
    """The numbers of one very large log."""
    users = rows if kind.alone else rows // TRUTH_ROWS_PER_USER
    result = replayed(kind, users, rows, np.random.default_rng(seed), budget, folder)
    return {key: value for key, _, (value, _, _) in numbers(result)}


def group_of(key: Key) -> str:
    """What a number is told together with in the summary."""
    what, name, where = key
    metric = name.split()[0]
    if where:
        return "by campaign, differences" if what in ("absolute", "relative") else "by campaign"
    if what.startswith("split"):
        return "split"
    if metric.endswith("_at_matched_spend"):
        return "at matched spend"
    if metric.endswith(("_gained", "_lost")) or metric == "disagreement":
        return "gained, lost, disagreement"
    if metric in ("target_attainment", "surplus", "roi", "value", "win_rate"):
        return "value, surplus, ROI, target attainment, win rate"
    if metric in ("auc", "gauc", "churn", "calibration", "calibration_on_wins"):
        return "AUC, calibration, churn"
    return "expected utility" if metric == "expected_utility" else "spend, results, costs"


@dataclass
class Seen:
    """One number in all markets: value, low, high in each."""

    truth: float
    found: list[tuple[float, float, float]]

    def held(self) -> tuple[int, float]:
        """(markets with an interval, share that hold the truth)."""
        _, low, high = np.array(self.found).T
        known, slack = ~np.isnan(low), 1e-9 * abs(self.truth)
        inside = (low[known] <= self.truth + slack) & (self.truth - slack <= high[known])
        return int(known.sum()), float(inside.mean()) if known.any() else math.nan

    def cells(self) -> list[str]:
        value, low, high = np.array(self.found).T
        known = ~np.isnan(low)
        deviation = float(np.nanstd(value, ddof=1)) if (~np.isnan(value)).sum() > 1 else math.nan
        bias = (float(np.nanmean(value)) - self.truth) / deviation if deviation > 0 else math.nan
        if not known.any():
            return ["–", "–", "–", "–", "100%", f"{self.truth:.4g}", f"{bias:+.2f}"]
        v, a, b = value[known], low[known], high[known]
        slack = 1e-9 * abs(self.truth)
        held = np.mean((a <= self.truth + slack) & (self.truth - slack <= b))
        below, above = np.mean(self.truth + slack < a), np.mean(self.truth - slack > b)
        # 1 where intervals are as wide as the values scatter.
        size = float(np.median(b - a)) / (2 * 1.96 * deviation) if deviation > 0 else math.nan
        odd = np.mean((a == b) | (v < a - slack) | (v > b + slack))
        return [
            f"{held:.1%}", f"{below:.1%} / {above:.1%}", f"{size:.2f}", f"{odd:.0%}",
            f"{1 - known.mean():.0%}", f"{self.truth:.4g}", f"{bias:+.2f}",
        ]  # fmt: skip


def print_summary(kind: str, size: str, seen: Mapping[Key, Seen]) -> None:
    """Of each group, over all markets with an interval; "least" and "below 90%" of numbers that most markets have one of."""
    groups: dict[str, list[tuple[int, int, float]]] = {}
    for key, one in seen.items():
        if np.ptp(np.nan_to_num(np.array(one.found)[:, 0])) > 0:
            groups.setdefault(group_of(key), []).append((len(one.found), *one.held()))
    for group, found in groups.items():
        markets, known, held = np.array(found).T
        usual = held[known >= markets / 2]
        cells = [f"{np.nansum(known * held) / known.sum():.1%}" if known.any() else "–"]
        cells += [f"{usual.min():.1%}", f"{(usual < 0.9).sum()} of {len(usual)}"] if len(usual) else ["–", "–"]
        print(
            f"| {kind} | {size} | {group} | {len(found)} | {' | '.join(cells)} | {1 - known.sum() / markets.sum():.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sizes", nargs="+", default=["200x300", "2000x300", "2000x3000"], help="users x conversions")
    parser.add_argument("--markets", type=int, default=60)
    parser.add_argument("--each", action="store_true", help="a line for every number instead of the summary")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    heads = EACH if given.each else SUMMARY
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory(prefix="bidsim-coverage-") as made:
        folder = Path(made)
        for name in given.kinds:
            kind, place = KINDS[name], list(KINDS).index(name)
            free = Kind(**{**kind.__dict__, "budget": None})
            truth_rows = BUDGET_ROWS if kind.budget else TRUTH_ROWS
            begun = time.perf_counter()
            truth = endless(free, truth_rows, 0.0, [given.seed, place], folder)
            converted = truth[("baseline", "conversions", "")] / truth_rows
            # About two thirds of what the baseline would spend.
            budget_per_row = 0.65 * truth[("baseline", "spend", "")] / truth_rows
            if kind.budget:
                truth = endless(kind, truth_rows, budget_per_row * truth_rows, [given.seed, place], folder)
            print(f"{name}: truth {time.perf_counter() - begun:.0f} s", file=sys.stderr)
            for size in given.sizes:
                users, conversions = (int(x) for x in size.split("x"))
                rows = conversions / converted
                if kind.alone:
                    users = round(rows)
                begun = time.perf_counter()
                seen: dict[Key, Seen] = {}
                for market in range(given.markets):
                    rng = np.random.default_rng([given.seed, place, users, conversions, market])
                    result = replayed(kind, users, rows, rng, budget_per_row * rows, folder)
                    for key, total, each in numbers(result):
                        if key in truth:
                            scale = rows / truth_rows if total else 1.0
                            seen.setdefault(key, Seen(truth[key] * scale, [])).found.append(each)
                if not given.each:
                    print_summary(name, size, seen)
                for key, one in seen.items() if given.each else ():
                    print("| " + " | ".join([name, size, *key, *one.cells()]) + " |")
                sys.stdout.flush()
                print(f"{name} {size}: {rows:.0f} rows, {time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
