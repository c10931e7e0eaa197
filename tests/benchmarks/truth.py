"""Does a replay say what would really happen? Markets whose truth is known, a knob for each thing that misleads.

    python tests/benchmarks/truth.py --crowds 200

Each case is a market of `bidsim.market.worlds` and a way to replay its log. The truth is what an A/B test that goes on
for ever would show in that market: the mean over many crowds (draws of users and days), by expected values, of what the
baseline and two candidates really bring. Each of `--crowds` logs is replayed by itself.

error: median distance of the predicted relative change from the true one, in percentage points; bias: mean of it, with
its sign. held: share of the 95% intervals of the change that hold the truth. identified: share of identified ranges
that do, and in brackets of ranges to whose ends the interval's own sampling error is added, since a range is about this
log's rows alone; then their median width. Verdicts: for each true change of at least 10% a rule whose bound lies at
half of it, so that the truth breaks it by as much again: right where it fails, open where it is inconclusive or
unidentified, wrong where it passes.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bidsim.market.worlds import CANDIDATES, Knobs, Size, Totals, World

METRICS = ("spend", "clicks", "conversions", "cpa")
LEAST_CHANGE = 0.1
TRUTH_CROWDS = 1_000_000  # crowds of the truth are numbered from here
HEADINGS = (
    "market and replay",
    "metric",
    "true changes",
    "error",
    "bias",
    "held",
    "identified (width)",
    "right / open / wrong",
)


@dataclass(frozen=True)
class Case:
    """A market, and what is changed in the scenario that suits it (None takes a key out)."""

    name: str
    knobs: Knobs
    changes: Mapping[str, Any]

    @staticmethod
    def of(name: str, knobs: Knobs, **changes: Any) -> Case:
        return Case(name, knobs, changes)


_BASELINE = {"logger": "baseline"}
CASES = (
    Case.of("everything known", Knobs()),
    Case.of("first price, prices known", Knobs(first_price=True)),
    Case.of("budgets, asap", Knobs(budget=0.6)),
    Case.of("budgets, even", Knobs(budget=0.6, pacing="even")),
    Case.of("late conversions, weighted", Knobs(delay_hours=10)),
    Case.of("late conversions, taken as they are", Knobs(delay_hours=10), maturity=None),
    Case.of("every second campaign thinned, weighted", Knobs(kept=0.25)),
    Case.of("every second campaign thinned, weights ignored", Knobs(kept=0.25), weight=None),
    Case.of("three own campaigns a request", Knobs(campaigns=3)),
    Case.of("three own campaigns a request, ignored", Knobs(campaigns=3), auction={"type": "second_price"}),
    Case.of("baseline's log, all prices known", Knobs(logger="baseline")),
    Case.of("baseline's log, prices of wins", Knobs(logger="baseline", prices="won")),
    Case.of("baseline's log, prices of wins, predicted", Knobs(logger="baseline", prices="won"), outcomes="predicted"),
    Case.of("first price, baseline's log, no price", Knobs(logger="baseline", prices="none", first_price=True)),
    Case.of("others' prices follow ours by a fifth", Knobs(reaction=0.2)),
)


@dataclass(frozen=True)
class Found:
    """What one replay said of one change."""

    value: float
    low: float
    high: float
    identified: tuple[float, float] | None
    status: str


def number(totals: Totals, metric: str) -> float:
    return float(getattr(totals, metric))


def true_changes(totals: Sequence[Mapping[str, Totals]]) -> dict[tuple[str, str], float]:
    """Relative change by (candidate, metric), from what the policies bring in many crowds."""

    def mean(policy: str) -> Totals:
        parts = [t[policy] for t in totals]
        return Totals(
            *(float(np.mean([getattr(p, n) for p in parts])) for n in ("wins", "spend", "clicks", "conversions"))
        )

    base = mean("baseline")
    return {(c, m): number(mean(c), m) / number(base, m) - 1 for c in CANDIDATES for m in METRICS}


def live(knobs: Knobs, size: Size, crowd: int) -> dict[str, Totals]:
    world = World(knobs, size, crowd=crowd)
    return {policy: world.live(policy) for policy in ("baseline", *CANDIDATES)}


def rules(truth: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    """One for each change; the name says whose it is. A rule binds every candidate, so only its own is looked at."""
    out = []
    for (candidate, metric), change in truth.items():
        bound = {"max_increase" if change > 0 else "max_decrease": f"{abs(change) * 50:.6f}%"}
        out.append({"name": f"{candidate} {metric}", "metric": metric, **bound})
    return out


def replay(case: Case, size: Size, crowd: int, truth: dict[tuple[str, str], float]) -> dict[tuple[str, str], Found]:
    import bidsim

    world = World(case.knobs, size, crowd=crowd)
    with tempfile.TemporaryDirectory(prefix="bidsim-truth-") as folder:
        log = Path(folder) / "log.parquet"
        world.write(log)
        settings = {**world.scenario(log), "gate": rules(truth)}
        for key, value in case.changes.items():
            place = settings if key in settings or value is not None else settings["columns"]
            place[key] = value
            if value is None:
                del place[key]
        result = bidsim.replay(settings, threads=1)
    changes = {
        (d.policy, d.metric): d for d in result.differences if not d.segment and d.metric in METRICS and d.head is None
    }
    statuses = {o.rule: o.status for o in result.gate.rules if o.rule == f"{o.policy} {o.metric}"}
    found = {}
    for candidate, metric in truth:
        d = changes[(candidate, metric)]
        known = d.identified.relative if d.identified else None
        found[(candidate, metric)] = Found(
            *(math.nan if v is None else v for v in (d.relative.value, d.relative.low, d.relative.high)),
            (-math.inf if known.low is None else known.low, math.inf if known.high is None else known.high)
            if known
            else None,
            statuses[f"{candidate} {metric}"],
        )
    return found


def line(
    case: Case, metric: str, truth: Mapping[tuple[str, str], float], found: Sequence[Mapping[tuple[str, str], Found]]
) -> str:
    pairs = [(truth[(c, metric)], f[(c, metric)]) for f in found for c in CANDIDATES]
    errors = np.array([100 * (f.value - t) for t, f in pairs])
    sure = [(t, f) for t, f in pairs if not math.isnan(f.low)]
    held = f"{np.mean([f.low <= t <= f.high for t, f in sure]):.1%}" if sure else "–"
    true = ", ".join(f"{100 * truth[(c, metric)]:+.1f}" for c in CANDIDATES)
    cells = [case.name, metric, true, f"{np.median(np.abs(errors)):.1f}", f"{np.mean(errors):+.1f}", held]
    return "| " + " | ".join([*cells, ranges(pairs), verdicts(pairs)]) + " |"


def ranges(pairs: Sequence[tuple[float, Found]]) -> str:
    known = [(t, f, *f.identified) for t, f in pairs if f.identified]
    width = 100 * float(np.median([high - low for *_, low, high in known])) if known else 0.0
    if width == 0:
        return "exact" if known else "–"
    held = np.mean([low <= t <= high for t, _, low, high in known])
    wider = np.mean([low - (f.value - f.low) <= t <= high + (f.high - f.value) for t, f, low, high in known])
    return f"{held:.1%} ({wider:.1%}), {f'{width:.0f}' if math.isfinite(width) else 'no bound'}"


def verdicts(pairs: Sequence[tuple[float, Found]]) -> str:
    judged = [f.status for t, f in pairs if abs(t) >= LEAST_CHANGE]
    if not judged:
        return "–"
    counts = Counter({"fail": "right", "pass": "wrong"}.get(status, "open") for status in judged)
    return " / ".join(f"{counts[v] / len(judged):.0%}" for v in ("right", "open", "wrong"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crowds", type=int, default=200)
    parser.add_argument("--truth-crowds", type=int, default=1000)
    parser.add_argument("--only", nargs="+", help="words of the cases wanted")
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--requests", type=int, default=40_000, help="a day, on three days")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    size = Size(users=given.users, requests=given.requests)
    truths: dict[Knobs, dict[tuple[str, str], float]] = {}
    print(f"| {' | '.join(HEADINGS)} |\n|---|---|{'--:|' * (len(HEADINGS) - 2)}")
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for case in CASES:
            if given.only and not any(word in case.name for word in given.only):
                continue
            begun = time.perf_counter()
            # The truth is of the market, not of the log: what is only about the log makes no other one.
            world = Knobs(
                **{
                    k: getattr(case.knobs, k)
                    for k in ("first_price", "budget", "pacing", "campaigns", "reaction", "delay_hours")
                }
            )
            if world not in truths:
                crowds = range(TRUTH_CROWDS, TRUTH_CROWDS + given.truth_crowds)
                n = len(crowds)
                truths[world] = true_changes(list(pool.map(live, [world] * n, [size] * n, crowds, chunksize=8)))
            truth, n = truths[world], given.crowds
            found = list(pool.map(replay, [case] * n, [size] * n, range(n), [truth] * n, chunksize=2))
            for metric in METRICS:
                print(line(case, metric, truth, found), flush=True)
            print(f"{case.name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
