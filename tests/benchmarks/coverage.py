"""Do 95% intervals hold the truth 95 times in 100? Simulated markets whose truth is known.

    python tests/benchmarks/coverage.py --units 20 200 2000 --conversions 30 300 3000 10000

A market is a sample of users from one population: users differ in how much they browse, in their click rate and in
what their impressions cost, so a user's rows belong together. The truth is the population's: the numbers of an endless
market, from a simulation of some millions of users that uses probabilities instead of drawn labels. Each market is one
value of a segment in one log, so one replay gives the intervals of all; `--alone` replays each market by itself.

A market has a fixed number of users and an expected number of conversions of the baseline. Coverage is over the
markets whose interval exists; the others count as "no interval". "bias" is the mean error of the points over their
standard deviation: an interval can't hold what its centre misses, and few units bend ratios a little.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import bidsim

Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

POLICIES = ("baseline", "candidate")
TARGET_CPA = 500.0
BLOCK = 1 << 18

# What is judged: (metric, head, which difference).
JUDGED = (
    ("spend", None, "relative"),
    ("spend", None, "absolute"),
    ("clicks", None, "relative"),
    ("conversions", None, "relative"),
    ("ctr", None, "relative"),
    ("cpc", None, "relative"),
    ("cpa", None, "relative"),
    ("cpa_at_matched_spend", None, "relative"),
    ("logloss", "ctr", "absolute"),
    ("normalized_entropy", "ctr", "relative"),
    ("auc", "ctr", "absolute"),
    ("calibration", "ctr", "relative"),
)
Judged = tuple[str, str | None, str]
HEADINGS = (
    "metric",
    "difference",
    "units",
    "conversions",
    "markets",
    "held",
    "truth below / above",
    "median width",
    "no interval",
    "truth",
    "bias",
)


@dataclass(frozen=True)
class Population:
    """Logits of CTR and CVR at their middle; spreads of the users' effects."""

    ctr: float
    cvr: float
    user_ctr: float = 0.5
    user_activity: float = 0.7
    user_price: float = 0.25

    @staticmethod
    def of(conversions: float) -> Population:
        """Where many conversions are wanted they are frequent, so that markets stay small enough to simulate."""
        rates = ((100, 0.04, 0.15), (1000, 0.08, 0.25), (5000, 0.3, 0.4), (math.inf, 0.45, 0.5))
        ctr, cvr = next((ctr, cvr) for most, ctr, cvr in rates if conversions <= most)
        return Population(math.log(ctr / (1 - ctr)), math.log(cvr / (1 - cvr)))


@dataclass(frozen=True)
class Users:
    """Effects of each user, shape (users,). activity: of mean 1, how many rows a user has."""

    activity: Floats
    ctr: Floats
    price: Floats


def draw_users(population: Population, count: int, rng: np.random.Generator) -> Users:
    activity = np.exp(population.user_activity * rng.standard_normal(count) - population.user_activity**2 / 2)
    ctr = population.user_ctr * rng.standard_normal(count)
    # Users who click more are dearer.
    return Users(activity, ctr, 0.3 * ctr + population.user_price * rng.standard_normal(count))


def sigmoid(x: npt.NDArray[Any]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


def draw_rows(population: Population, users: Users, of: npt.NDArray[np.int64], rng: np.random.Generator) -> Columns:
    """One row for each entry of `of`, the row's user: prices, predictions (float32) and the true probabilities."""
    place, taste = rng.standard_normal(len(of), dtype=np.float32), rng.standard_normal(len(of), dtype=np.float32)
    errors = rng.standard_normal((4, len(of)), dtype=np.float32)
    user = users.ctr[of]
    ctr = population.ctr + 0.6 * place
    cvr = population.cvr + 0.4 * taste
    # Neither model sees the whole user; the candidate sees half of it, with less noise, and predicts a little more.
    pctr_a = sigmoid(ctr + 0.4 * errors[0]).astype(np.float32)
    pctr_b = sigmoid(ctr + 0.5 * user + 0.25 * errors[1] + 0.03).astype(np.float32)
    pcvr = sigmoid(cvr + 0.3 * errors[2]).astype(np.float32)
    worth = 1000 * TARGET_CPA * float(sigmoid(np.array(population.ctr)) * sigmoid(np.array(population.cvr)))
    price = np.round(worth * 0.85 * np.exp(0.2 * place + users.price[of] + 0.5 * errors[3]), 2)
    return {
        "price": price,
        "pctr_a": pctr_a,
        "pctr_b": pctr_b,
        "pcvr": pcvr,
        "ctr": sigmoid(ctr + user),
        "cvr": sigmoid(cvr + 0.3 * user),
    }


def bids(rows: Columns) -> tuple[Floats, Floats]:
    """Both policies' bids, in the order of the scenario's formula."""
    return tuple(1000 * TARGET_CPA * rows[p].astype(np.float64) * rows["pcvr"] for p in ("pctr_a", "pctr_b"))  # type: ignore[return-value]


@dataclass(frozen=True)
class Truth:
    """Of the population: (baseline, candidate) for each metric; per row of the log for spend, clicks, conversions."""

    values: dict[str, tuple[float, float]]

    def difference(self, judged: Judged, rows: float) -> float:
        ours, theirs = self.values[judged[0]]
        if judged[2] == "relative":
            return theirs / ours - 1
        return (theirs - ours) * (rows if judged[0] in ("spend", "clicks", "conversions") else 1.0)


def weighted_auc(p: npt.NDArray[np.float32], positive: Floats, negative: Floats) -> float:
    """P(p+ > p-) + half P(p+ = p-)."""
    order = np.argsort(p)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(p[order])) + 1])
    up, down = np.add.reduceat(positive[order], starts), np.add.reduceat(negative[order], starts)
    below = np.cumsum(down) - down / 2
    return float((up * below).sum() / (up.sum() * down.sum()))


def find_truth(population: Population, users: int, rng: np.random.Generator) -> Truth:
    """By simulation: one row a user, weighted by the user's activity; labels by their probabilities."""
    drawn = draw_users(population, users, rng)
    parts = [draw_rows(population, drawn, np.arange(b, min(b + BLOCK, users)), rng) for b in range(0, users, BLOCK)]
    rows: Columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    w = drawn.activity / drawn.activity.sum()
    price, ctr = rows["price"] / 1000, rows["ctr"]
    clicks, conversions = w * ctr, w * ctr * rows["cvr"]
    rate = clicks.sum()
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    starts = [rows["price"] / bid for bid in bids(rows)]
    found: dict[str, list[float]] = {}
    for start, name in zip(starts, ("pctr_a", "pctr_b"), strict=True):
        wins = start <= 1
        spend, clicked, converted = (
            float((w * wins * price).sum()),
            float(clicks[wins].sum()),
            float(conversions[wins].sum()),
        )
        p = rows[name].astype(np.float64)
        logloss = float(-(clicks * np.log(p) + (w - clicks) * np.log1p(-p)).sum())
        low, high = 0.25, 4.0
        for _ in range(60):
            middle = math.sqrt(low * high)
            more = float((w * price)[start <= middle].sum()) > found.get("spend", [spend])[0]
            low, high = (low, middle) if more else (middle, high)
        own = {
            "spend": spend,
            "clicks": clicked,
            "conversions": converted,
            "ctr": clicked / float(w[wins].sum()),
            "cpc": spend / clicked,
            "cpa": spend / converted,
            "cpa_at_matched_spend": float((w * price)[start <= low].sum() / conversions[start <= low].sum()),
            "logloss": logloss,
            "normalized_entropy": logloss / entropy,
            "auc": weighted_auc(rows[name], clicks, w - clicks),
            "calibration": float((w * p).sum() / rate),
        }
        for metric, value in own.items():
            found.setdefault(metric, []).append(value)
    return Truth({metric: (a, b) for metric, (a, b) in found.items()})


def write_market(population: Population, market: int, units: int, rows: float, seed: Sequence[int], path: Path) -> None:
    """One market's log: every row was won and shows its labels, so both policies' wins are known."""
    rng = np.random.default_rng([*seed, market])
    users = draw_users(population, units, rng)
    counts = rng.poisson(users.activity * (rows / units))
    of = np.repeat(np.arange(units), counts)
    drawn = draw_rows(population, users, of, rng)
    click = rng.random(len(of)) < drawn["ctr"]
    table = pa.table(
        {
            "market": np.full(len(of), market, dtype=np.int32),
            "user_id": of + market * 1_000_003,
            "price": drawn["price"],
            "click": click.view(np.int8),
            "cv": (click & (rng.random(len(of)) < drawn["cvr"])).view(np.int8),
            "pctr_a": drawn["pctr_a"],
            "pctr_b": drawn["pctr_b"],
            "pcvr": drawn["pcvr"],
        }
    )
    pq.write_table(table, path, use_dictionary=["market", "user_id"])


def scenario(path: str, *, by_market: bool, confidence: float) -> dict[str, Any]:
    return {
        "name": "coverage",
        "sample_type": ["imp-click", "click-conversion"],
        "logs_tables": {"log": {"path": path}},
        "columns": {"unit": "user_id", "price": "price", "click": "click", "conversion": "cv", "target_cpa": "500e0"},
        "performance_indicator_type": "cpa",
        "bid": {"formula": "1000 * target_cpa * pctr * pcvr"},
        "baseline": {"columns": {"pctr": "pctr_a", "pcvr": "pcvr"}},
        "candidates": {"candidate": {"columns": {"pctr": "pctr_b", "pcvr": "pcvr"}}},
        "segments": ["market"] if by_market else [],
        "intervals": {"confidence": confidence},
    }


@dataclass(frozen=True)
class Estimate:
    """One market's difference in one judged metric."""

    judged: Judged
    value: float
    low: float
    high: float


def estimates(result: Any, *, by_market: bool) -> Iterator[Estimate]:
    wanted = {(metric, head) for metric, head, _ in JUDGED}
    for d in result.differences:
        if bool(d.segment) == by_market and (d.metric, d.head) in wanted:
            for kind, e in (("absolute", d.absolute), ("relative", d.relative)):
                if (d.metric, d.head, kind) in JUDGED:
                    numbers = (math.nan if v is None else v for v in (e.value, e.low, e.high))
                    yield Estimate((d.metric, d.head, kind), *numbers)


def simulate(
    population: Population, units: int, rows: float, markets: int, given: argparse.Namespace, folder: Path
) -> list[Estimate]:
    """Write the markets' logs, replay them, and give each market's differences."""
    seed = (given.seed, units, round(rows))
    paths = [folder / f"market-{m:05}.parquet" for m in range(markets)]

    def write(market: int) -> None:
        write_market(population, market, units, rows, seed, paths[market])

    with ThreadPoolExecutor(given.threads) as pool:
        list(pool.map(write, range(markets)))
    logs = [str(p) for p in paths] if given.alone else [str(folder / "market-*.parquet")]
    found: list[Estimate] = []
    for log in logs:
        settings = scenario(log, by_market=not given.alone, confidence=given.confidence)
        result = bidsim.replay(settings, threads=given.threads)
        found += estimates(result, by_market=not given.alone)
    for path in paths:
        path.unlink()
    return found


def line(judged: Judged, units: int, conversions: int, found: Iterable[Estimate], truth: float) -> str:
    own = [e for e in found if e.judged == judged]
    known = [e for e in own if not math.isnan(e.low)]
    points = np.array([e.value for e in own if not math.isnan(e.value)])
    deviation = points.std(ddof=1) if len(points) > 1 else math.nan
    bias = (points.mean() - truth) / deviation if deviation > 0 else math.nan
    cells = [" ".join(filter(None, (judged[0], judged[1]))), judged[2], str(units), str(conversions), str(len(own))]
    if known:
        held = np.mean([e.low <= truth <= e.high for e in known])
        below, above = np.mean([truth < e.low for e in known]), np.mean([truth > e.high for e in known])
        width = np.median([e.high - e.low for e in known])
        cells += [f"{held:.1%}", f"{below:.1%} / {above:.1%}", f"{width:.3g}", f"{1 - len(known) / len(own):.0%}"]
    else:
        cells += ["–", "–", "–", "100%"]
    return "| " + " | ".join([*cells, f"{truth:.4g}", f"{bias:+.2f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--units", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--conversions", type=int, nargs="+", default=[30, 300, 3000, 10000])
    parser.add_argument("--markets", type=int, default=300)
    parser.add_argument("--truth-users", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--alone", action="store_true", help="a replay for each market (slow: a second or more each)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines: dict[Judged, list[str]] = {judged: [] for judged in JUDGED}
    truths: dict[Population, Truth] = {}
    for conversions in given.conversions:
        population = Population.of(conversions)
        if population not in truths:
            truths[population] = find_truth(population, given.truth_users, np.random.default_rng([given.seed, 0]))
        truth = truths[population]
        rows = conversions / truth.values["conversions"][0]
        for units in given.units:
            begun = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="bidsim-coverage-") as folder:
                found = simulate(population, units, rows, given.markets, given, Path(folder))
            for judged in JUDGED:
                lines[judged].append(line(judged, units, conversions, found, truth.difference(judged, rows)))
            seconds = time.perf_counter() - begun
            print(
                f"{units} units, {conversions} conversions: {rows:.0f} rows a market, {seconds:.0f} s", file=sys.stderr
            )
    print(f"| {' | '.join(HEADINGS)} |\n|---|---|{'--:|' * (len(HEADINGS) - 2)}")
    print("\n".join(row for judged in JUDGED for row in lines[judged]))


if __name__ == "__main__":
    main()
