"""Do 95% intervals of calibration error and the CORP parts by segment value hold the truth 95 times in 100?

    python tests/benchmarks/coverage_calibration.py --rows 300 3000 50000 --rates 0.01 0.05 0.3 --markets 300

A market is one value of a segment, as in `coverage.py`: some hundred in one log, one replay for the intervals of all. A
row's logit is a constant, its user's place and the row's own, which both models see, a part of the user's taste, which
the second model sees, and a part that nobody sees. A model that is calibrated predicts the expectation given what it
sees, so that a monotone distortion of it is off by what is known: a little (by 5% of the odds and of the slope), far
(odds by 1.5) and twisted (logits drawn out 1.6 times around the mean, so that deviations have both signs). The truth is
an endless market's: the same metrics of some million rows with probabilities for labels. Clustered: users have 12 rows
on average, unevenly (log-normal, sigma 0.7), and share place and taste; else each row is a user.

"held": of the markets with an interval; "width" is the median over the standard deviation of the points: 3.9 would be
that of a normal estimate whose error is known.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import bidsim

Floats = npt.NDArray[np.float64]

METRICS = ("ece", "calibration_error", "miscalibration", "discrimination", "ece_if_calibrated")
BINS = 20
# Standard deviations of logits: place (the user's, the row's), taste (seen by the second model, unseen).
USER_PLACE, ROW_PLACE, SEEN, UNSEEN = 0.4, 0.6, 0.35, 0.5
ROWS_A_USER, UNEVEN = 12.0, 0.7
TRUTH_ROWS = 2_000_000
# Whose differences are looked at: the baseline sees place only, the candidates half of the taste too.
BASELINES = {"calibrated": ("calibrated", "near", "far", "twisted"), "far": ("near", "far", "twisted")}


def sigmoid(x: npt.NDArray[Any]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


@cache
def expectation(spread: float) -> tuple[Floats, Floats]:
    """(logits, logit of the expectation of sigmoid(logit + spread x normal))."""
    at, weight = np.polynomial.hermite_e.hermegauss(40)
    logits = np.linspace(-12, 10, 4000)
    mean = (sigmoid(logits[:, None] + spread * at) * weight).sum(axis=1) / weight.sum()
    return logits, np.log(mean / (1 - mean))


def calibrated(logit: Floats, spread: float) -> Floats:
    """Logit of what a calibrated model predicts that sees this one and not the spread around it."""
    return np.asarray(np.interp(logit, *expectation(spread)))


def distorted(logit: Floats, how: str, middle: float) -> Floats:
    """A prediction, from a calibrated logit."""
    if how == "near":
        logit = middle + 1.05 * (logit - middle) + math.log(1.05)
    elif how == "far":
        logit = logit + math.log(1.5)
    elif how == "twisted":
        logit = middle + 1.6 * (logit - middle)
    return sigmoid(logit)


@dataclass(frozen=True)
class Case:
    """rows: expected labelled rows of a market; rate: of clicks at the middle."""

    rows: int
    rate: float
    clustered: bool

    @property
    def middle(self) -> float:
        return math.log(self.rate / (1 - self.rate))

    def __str__(self) -> str:
        return f"{self.rows} | {self.rate:.0%} | {'12 rows a user' if self.clustered else 'one row a user'}"


def draw_logits(case: Case, users: int, of: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, ...]:
    """(true logit, the calibrated logits of both models) of rows, `of` their users."""
    place, seen, unseen = (s * rng.standard_normal(users) for s in (USER_PLACE, SEEN, UNSEEN))
    known = case.middle + place[of] + ROW_PLACE * rng.standard_normal(len(of))
    more = known + seen[of]
    return more + unseen[of], calibrated(known, math.hypot(SEEN, UNSEEN)), calibrated(more, UNSEEN)


@cache
def truth(rate: float, candidate: bool, how: str, rows: int) -> dict[str, float]:
    rng = np.random.default_rng([7, round(rate * 1000)])
    case = Case(rows, rate, clustered=False)
    _, *logits = draw_logits(case, TRUTH_ROWS, np.arange(TRUTH_ROWS), rng)
    logit = np.sort(logits[candidate])
    p, true = distorted(logit, how, case.middle), sigmoid(logit)
    mean_p, mean_y = (x.reshape(BINS, -1).mean(axis=1) for x in (p, true))
    return {
        "ece": float(np.abs(mean_p - mean_y).mean()),
        "calibration_error": float(np.sqrt(((mean_p - mean_y) ** 2).mean())),
        "miscalibration": float(((p - true) ** 2).mean()),
        "discrimination": float(true.var()),
        "ece_if_calibrated": float(np.sqrt(2 / np.pi * mean_p * (1 - mean_p) * BINS / rows).mean()),
    }


def columns() -> dict[str, tuple[bool, str]]:
    found = {f"a_{how}": (False, how) for how in BASELINES}
    return found | {f"b_{how}": (True, how) for how in BASELINES["calibrated"]}


def write_market(case: Case, market: int, seed: int, path: Path, *, weighted: bool) -> None:
    rng = np.random.default_rng([seed, case.rows, round(case.rate * 1000), case.clustered, market])
    if case.clustered:
        users = max(1, round(case.rows / ROWS_A_USER))
        activity = np.exp(UNEVEN * rng.standard_normal(users) - UNEVEN**2 / 2)
        of = np.repeat(np.arange(users), rng.poisson(activity * case.rows / users))
    else:
        users = case.rows
        of = np.arange(users)
    true, *logits = draw_logits(case, users, of, rng)
    table: dict[str, npt.NDArray[Any]] = {
        "market": np.full(len(of), market, dtype=np.int32),
        "user_id": of + market * 1_000_003,
        "price": np.ones(len(of)),
        "click": (rng.random(len(of)) < sigmoid(true)).view(np.int8),
    }
    if weighted:
        table["weight"] = np.where(rng.random(len(of)) < 0.2, 3.0, 0.5)
    for name, (candidate, how) in columns().items():
        table[name] = distorted(logits[candidate], how, case.middle).astype(np.float32)
    pq.write_table(pa.table(table), path, use_dictionary=["market", "user_id"])


def scenario(path: str, baseline: str, *, weighted: bool = False) -> dict[str, Any]:
    roles = {"unit": "user_id", "price": "price", "click": "click", "target_cpc": "500e0"}
    return {
        "name": "coverage",
        "sample_type": ["imp-click"],
        "logs_tables": {"log": {"path": path}},
        "columns": roles | ({"weight": "weight"} if weighted else {}),
        "performance_indicator_type": "cpc",
        "baseline": {"columns": {"pctr": f"a_{baseline}"}},
        "candidates": {how: {"columns": {"pctr": f"b_{how}"}} for how in BASELINES[baseline]},
        "segments": ["market"],
    }


@dataclass(frozen=True)
class Judged:
    """One market's number: of one model, or of the difference to the baseline."""

    metric: str
    what: str
    value: float
    low: float
    high: float
    truth: float


def judged(case: Case, baseline: str, result: Any) -> Iterator[Judged]:
    def number(x: float | None) -> float:
        return math.nan if x is None else x

    for m in result.metrics:
        if m.segment and m.metric in METRICS:
            # The baseline's own are judged with calibrated candidates.
            candidate = m.policy != "baseline"
            how = m.policy if candidate else baseline
            if baseline == "calibrated" and candidate:
                true = truth(case.rate, candidate, how, case.rows)[m.metric]
                yield Judged(m.metric, how, number(m.value), number(m.low), number(m.high), true)
    for d in result.differences:
        if d.segment and d.metric in METRICS:
            ours = truth(case.rate, False, baseline, case.rows)[d.metric]
            theirs = truth(case.rate, True, d.policy, case.rows)[d.metric]
            what = f"{baseline} to {d.policy}"
            e = d.absolute
            yield Judged(d.metric, what, number(e.value), number(e.low), number(e.high), theirs - ours)
            if d.metric == "ece" and ours > 0:
                e, true = d.relative, theirs / ours - 1
                yield Judged("ece, relative", what, number(e.value), number(e.low), number(e.high), true)


def write_logs(case: Case, given: argparse.Namespace, folder: Path) -> str:
    def write(market: int) -> None:
        path = folder / f"market-{market:05}.parquet"
        write_market(case, market, given.seed, path, weighted=given.weighted)

    with ThreadPoolExecutor(given.threads) as pool:
        list(pool.map(write, range(given.markets)))
    return str(folder / "market-*.parquet")


def line(case: Case, found: list[Judged]) -> str:
    known = [j for j in found if not math.isnan(j.low)]
    points = np.array([j.value for j in found])
    cells = [found[0].metric, found[0].what, str(case)]
    if known:
        held = np.mean([j.low <= j.truth <= j.high for j in known])
        below, above = np.mean([j.truth < j.low for j in known]), np.mean([j.truth > j.high for j in known])
        width = np.median([j.high - j.low for j in known]) / np.nanstd(points)
        cells += [f"{held:.1%}", f"{below:.1%} / {above:.1%}", f"{width:.1f}"]
    else:
        cells += ["–", "–", "–"]
    zero = np.mean([j.low <= 0 for j in known]) if known else math.nan
    return (
        "| " + " | ".join([*cells, f"{1 - len(known) / len(found):.0%}", f"{zero:.0%}", f"{found[0].truth:.3g}"]) + " |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 3000, 20000])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05, 0.3])
    parser.add_argument("--markets", type=int, default=300)
    parser.add_argument("--weighted", action="store_true", help="a fifth of the rows weighs six times as much")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(
        "| metric | models | rows | rate | units | held | truth below / above | width | no interval | low is zero or less | truth |"
    )
    print(f"|---|---|--:|--:|---|{'--:|' * 6}")
    for case in (
        Case(rows, rate, clustered) for rows in given.rows for rate in given.rates for clustered in (False, True)
    ):
        begun = time.perf_counter()
        found: dict[tuple[str, str], list[Judged]] = {}
        with tempfile.TemporaryDirectory(prefix="bidsim-coverage-") as folder:
            log = write_logs(case, given, Path(folder))
            for baseline in BASELINES:
                result = bidsim.replay(scenario(log, baseline, weighted=given.weighted), threads=given.threads)
                for one in judged(case, baseline, result):
                    found.setdefault((one.metric, one.what), []).append(one)
        for each in found.values():
            print(line(case, each), flush=True)
        print(f"{case}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
