"""Does an A/B test of the size that `bidsim plan` asks for confirm the change as often as it promises?

    python tests/benchmarks/coverage_plan.py --logs 40 --tests 400

Logs are drawn as in `coverage_more.py`; each gives a plan for the effect that is true. Then A/B tests of that many users are
drawn, dealt to two arms, and judged as an experimenter would: the difference of logarithms of a ratio of two sums over
users, by the delta method, against a normal quantile. Without noise in the plan the share of tests that confirm would be
the power that was asked for.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from coverage_more import KINDS, draw_log, scenario
from scipy.special import ndtri

from bidsim.replay.pipeline import Settings, run_replay
from bidsim.scenario.loading import scenario_from_dict
from bidsim.statistics.experiment import plan_experiment

ROWS_PER_USER = 20
RATIOS = {
    "spend": ("spend", None),
    "clicks": ("clicks", None),
    "cpc": ("spend", "clicks"),
    "cpa": ("spend", "conversions"),
}
Floats = npt.NDArray[np.float64]


def by_user(users: int, rng: np.random.Generator) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """What each policy would bring from each user, shape (users,)."""
    log = draw_log(KINDS["second"], users, users * ROWS_PER_USER, rng)
    found = []
    for name in ("pctr_a", "pctr_b"):
        won = 1000 * 500.0 * log[name].astype(np.float64) * log["pcvr"] >= log["price"]
        columns = (("spend", log["price"] / 1000), ("clicks", log["click"]), ("conversions", log["cv"]))
        found.append({what: np.bincount(log["user_id"], won * each, users) for what, each in columns})
    return found[0], found[1]


def log_mean(above: Floats, below: Floats | None) -> tuple[float, float]:
    """(logarithm of a ratio of sums over users, or of a mean per user, its variance)."""
    z = above / above.sum() - (1 / len(above) if below is None else below / below.sum())
    rate = above.sum() / (len(above) if below is None else below.sum())
    return math.log(rate), float((z**2).sum())


def confirms(
    arms: tuple[dict[str, Floats], dict[str, Floats]], metric: str, share: float, rng: np.random.Generator
) -> float:
    """Sign of the change that a test finds significant, 0 where it finds none."""
    above, below = RATIOS[metric]
    theirs = rng.random(len(arms[0]["spend"])) < share
    (a, va), (b, vb) = (
        log_mean(arm[above][who], None if below is None else arm[below][who])
        for arm, who in ((arms[0], ~theirs), (arms[1], theirs))
    )
    z = (b - a) / math.sqrt(va + vb)
    return float(np.sign(z)) if abs(z) > float(ndtri(0.975)) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--units", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--logs", type=int, default=40)
    parser.add_argument("--tests", type=int, default=400)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5])
    parser.add_argument("--power", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    whole = by_user(300_000, rng)
    truth = {}
    for metric, (above, below) in RATIOS.items():
        truth[metric] = math.log(whole[1][above].sum() / whole[0][above].sum())
        truth[metric] -= 0 if below is None else math.log(whole[1][below].sum() / whole[0][below].sum())
    print(
        "| log's users | metric | true change | share | users planned, median (10%, 90%) | confirmed |\n|--:|---|--:|--:|--:|--:|"
    )
    for units in given.units:
        planned: dict[tuple[str, float], list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.parquet"
            for _ in range(given.logs):
                pq.write_table(pa.table(draw_log(KINDS["second"], units, units * ROWS_PER_USER, rng)), path)
                loaded = scenario_from_dict(scenario(KINDS["second"], path, 0.0), directory=Path.cwd())
                tables = run_replay(
                    loaded,
                    [],
                    baseline=None,
                    tables={},
                    as_of=date(2026, 1, 1),
                    settings=Settings(threads=1),
                    progress=None,
                ).tables
                plan = plan_experiment(
                    tables, shares=given.shares, power=given.power, confidence=0.95, metrics=list(RATIOS)
                )
                for need in plan:
                    for arm in need.arms:
                        # The same log's plan for the true effect: its own prediction has noise that no plan can know.
                        if arm.times:
                            times = arm.times * (math.log1p(need.change) / truth[need.metric]) ** 2
                            planned.setdefault((need.metric, arm.share), []).append(times * units)
        for (metric, share), sizes in planned.items():
            confirmed = 0
            for test in range(given.tests):
                users = max(round(sizes[test % len(sizes)]), 20)
                picked = rng.integers(0, len(whole[0]["spend"]), users)
                arms = tuple({what: each[picked] for what, each in arm.items()} for arm in whole)
                confirmed += confirms(arms, metric, share, rng) == np.sign(truth[metric])  # type: ignore[arg-type]
            low, middle, high = np.quantile(sizes, (0.1, 0.5, 0.9))
            print(
                f"| {units} | {metric} | {math.expm1(truth[metric]):+.2%} | {share:g} | {middle:.0f} ({low:.0f}, {high:.0f}) "
                f"| {confirmed / given.tests:.1%} |"
            )


if __name__ == "__main__":
    main()
