"""The demo: a week of a synthetic market, the model in production, and a candidate with a mistake worth catching.

First days: production bids by rule of thumb and both models are trained on what it won. Last days: production bids
with `prod.bin`, scored through the same Scorer that a replay uses, so the logged bids are exactly its bids.

The candidate `v2.bin` ranks better (it knows spots, audiences and crosses) and predicts too many clicks. The reason is
an everyday one: its training job keeps only a share of the rows without a click and undoes that in the bias. Somebody
changed the share from 30% to 25% in the sampling job, and the correction still says 30%.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bidsim.errors import BidsimError
from bidsim.market.market import CAMPAIGNS, SEED, Campaign, Floats, Market, Opportunities, model_bids
from bidsim.models import Feature, HashedLogisticRegression, HashedSpec, Scorer, hash_matrix, pack_hashed

BITS = 16
NEGATIVES_KEPT = 0.25
NEGATIVES_BELIEVED_KEPT = 0.30

_ALL = tuple(
    Feature(name=name, type="categorical") for name in ("ad_id", "spot_id", "hour", "os", "audience", "is_application")
)


@dataclass(frozen=True)
class DemoSize:
    """How much the demo writes. The default gives figures that mean something in about ten seconds."""

    training_days: int = 4
    training_rows_per_day: int = 120_000
    evaluation_days: int = 3
    evaluation_rows_per_day: int = 150_000
    first_day: date = date(2026, 11, 1)


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo lies. log: a glob."""

    scenario: Path
    log: str
    campaigns: Path
    baseline: Path
    candidate: Path


def write_demo(
    directory: Path,
    progress: Callable[[str], None],
    *,
    size: DemoSize | None = None,
    seed: int = SEED,
) -> DemoFiles:
    """Write log, campaign table, both models and a scenario; the same bytes for the same seed, size and libraries.

    progress: is told in words what happens. With another size than the default the scenario's window must be adapted
    unless the days are the same. Raises BidsimError where the directory can't be written, or holds a scenario.yaml
    that is not the demo's.
    """
    size = size or DemoSize()
    files = DemoFiles(
        scenario=directory / "scenario.yaml",
        log=str(directory / "logs" / "dt=*" / "*.parquet"),
        campaigns=directory / "campaigns.csv",
        baseline=directory / "prod.bin",
        candidate=directory / "v2.bin",
    )
    scenario = resources.files("bidsim.market").joinpath("demo.yaml").read_bytes()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if files.scenario.exists() and files.scenario.read_bytes() != scenario:
            raise BidsimError("already there and not the demo's; choose another directory", file=str(files.scenario))
        _write(files, directory, Market(seed), size, seed, progress)
        files.scenario.write_bytes(scenario)
    except OSError as error:
        raise BidsimError(
            f"the demo can't be written: {error.strerror or error}; choose another directory", file=str(directory)
        ) from error
    return files


def _write(
    files: DemoFiles, directory: Path, market: Market, size: DemoSize, seed: int, progress: Callable[[str], None]
) -> None:
    _write_campaigns(files.campaigns, CAMPAIGNS)
    days = [size.first_day + timedelta(days=n) for n in range(size.training_days + size.evaluation_days)]
    training, evaluation = days[: size.training_days], days[size.training_days :]
    window = (f"{training[0]}T00:00:00+09:00", f"{evaluation[0]}T00:00:00+09:00")

    progress(f"{len(training)} days of auctions, bids by rule of thumb")
    logs = []
    for day in training:
        auctions = market.opportunities(day, size.training_rows_per_day)
        logs.append(market.settle(auctions, market.heuristic_bids(auctions)))
        _write_log(directory, day, logs[-1])
    won = pa.concat_tables(logs).filter(pc.field("is_win") == 1)

    progress(f"the production model, trained on {won.num_rows:,} impressions")
    baseline = {"ctr": train_baseline_ctr(won), "cvr": train_baseline_cvr(_clicked(won))}
    prod = pack_hashed(
        files.baseline, baseline, training_window=window, versions=_versions(), note="The model in production."
    )

    progress("the candidate, trained on all clicks and a sample of the rest")
    candidate = {"ctr": train_candidate_ctr(won, seed), "cvr": train_candidate_cvr(_clicked(won))}
    note = "More features, negatives sampled."
    pack_hashed(files.candidate, candidate, training_window=window, versions=_versions(), note=note)

    progress(f"{len(evaluation)} days of auctions, bids by the production model")
    scorer = prod.scorer()
    for day in evaluation:
        auctions = market.opportunities(day, size.evaluation_rows_per_day)
        _write_log(directory, day, market.settle(auctions, production_bids(auctions, scorer)))


def production_bids(auctions: Opportunities, scorer: Scorer) -> Floats:
    """Bids of a model under the demo's formula, per 1000 impressions, shape (rows,)."""
    batch = auctions.features().combine_chunks().to_batches()[0]
    scores = scorer.score(batch)
    return model_bids(auctions, scores["ctr"], scores["cvr"])


def train_baseline_ctr(rows: pa.Table) -> HashedLogisticRegression:
    """A few features, no crosses: what a first production model looks like."""
    return _fit(rows, "is_click", names=("ad_id", "spot_id", "hour", "os"), crosses=(), strength=0.5)


def train_baseline_cvr(clicks: pa.Table) -> HashedLogisticRegression:
    """Hardly more than a rate per campaign."""
    return _fit(clicks, "cv", names=("ad_id", "os"), crosses=(), strength=0.5)


def train_candidate_ctr(rows: pa.Table, seed: int) -> HashedLogisticRegression:
    """More features and crosses, on all clicks and a quarter of the rest, with the wrong correction for that."""
    draw = np.random.Generator(np.random.PCG64([seed, 3]))
    clicked = rows["is_click"].to_numpy() == 1
    sample = rows.filter(pa.array(clicked | (draw.random(rows.num_rows) < NEGATIVES_KEPT)))
    model = _fit(
        sample,
        "is_click",
        names=tuple(feature.name for feature in _ALL),
        crosses=(("ad_id", "spot_id"), ("ad_id", "audience")),
        strength=0.25,
    )
    # Keeping a share s of the negatives raises the odds to 1/s times what they are. This is the mistake: s is stale.
    bias = model.bias + float(np.log(NEGATIVES_BELIEVED_KEPT))
    return HashedLogisticRegression(model.spec, model.features, model.weights, bias)


def train_candidate_cvr(clicks: pa.Table) -> HashedLogisticRegression:
    """Conversions are few: strong shrinkage, and only the cross that matters most."""
    names = ("ad_id", "os", "audience", "is_application")
    return _fit(clicks, "cv", names=names, crosses=(("ad_id", "audience"),), strength=0.05)


def _fit(
    rows: pa.Table, label: str, *, names: tuple[str, ...], crosses: tuple[tuple[str, ...], ...], strength: float
) -> HashedLogisticRegression:
    """Logistic regression by scikit-learn on the hashed columns that occur; strength: its C (inverse of L2)."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    features = tuple(feature for feature in _ALL if feature.name in names)
    spec = HashedSpec(bits=BITS, features=tuple(feature.name for feature in features), crosses=crosses)
    matrix = hash_matrix(rows, spec, features)
    used = np.unique(matrix.indices)
    labels: NDArray[np.int64] = rows[label].to_numpy()
    model: Any = LogisticRegression(C=strength, tol=1e-6, max_iter=500)
    with threadpool_limits(limits=1):  # more threads would add in another order, and give other bytes
        model.fit(matrix[:, used], labels)
    weights = np.zeros(1 << BITS, dtype=np.float32)
    weights[used] = model.coef_[0]
    return HashedLogisticRegression(spec, features, weights, float(np.float32(model.intercept_[0])))


def _clicked(won: pa.Table) -> pa.Table:
    return won.filter(pc.field("is_click") == 1)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("numpy", "scikit-learn", "scipy")}


def _write_log(directory: Path, day: date, table: pa.Table) -> None:
    folder = directory / "logs" / f"dt={day}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.combine_chunks(), folder / "part-0.parquet", compression="zstd", row_group_size=1 << 16)


def _write_campaigns(path: Path, campaigns: tuple[Campaign, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ad_id", "name", "target_cpc", "target_cpa", "daily_budget"])
        for c in campaigns:
            money = ["" if value is None else f"{value:g}" for value in (c.target_cpc, c.target_cpa, c.daily_budget)]
            writer.writerow([c.ad_id, c.name, *money])
