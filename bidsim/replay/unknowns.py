"""The rows whose fate the log does not show: what they could have cost each policy and what they could have brought.

Read after the reduction, since the predictions that bound them are calibrated on the log's own labels, and only where
some policy has such rows at all. Sums of whole numbers, by segment value. With `outcomes: predicted` the same reading
gives what the rows count for in expectation (`expected`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.aside import UNKNOWN_WIN, Aside
from bidsim.replay.batches import Batch, column_of
from bidsim.replay.expected import Expectation, estimate_curves
from bidsim.replay.fates import settle_fates
from bidsim.replay.measures import COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.sql import render
from bidsim.replay.stages import Stages
from bidsim.replay.worth import RESULT_SCALE, VALUE_SCALE, Predicted, brings_of, predictions_of, wholes_of
from bidsim.statistics.identified import SettledPair, Unknown, UnknownPair
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BARRIER = "barrier"
NAMES = ("rows", "dear", "cheap", "clicks", "conversions", "value")


@dataclass(frozen=True)
class Unknowns:
    """pairs: by candidate and family, its unknown rows beside the baseline's, empty where no policy has any; expected: by
    family and key, what they count for by bucket of units, empty with `outcomes: observed`."""

    pairs: dict[tuple[int, str], UnknownPair | SettledPair]
    expected: dict[str, dict[Key, Floats]]


class _Sums:
    """Bounds by family, and expectations in the families' order. sizes: (values, buckets) of each family."""

    def __init__(
        self,
        plan: Plan,
        sizes: dict[str, tuple[int, int]],
        predicted: Predicted,
        expectation: Expectation | None,
    ) -> None:
        self.plan = plan
        self.predicted = predicted
        self.expectation = expectation
        self.bounds = {name: Tally(values) for name, (values, _) in sizes.items()}
        self.expected = [Tally(values * buckets) for values, buckets in sizes.values()]

    def add(self, incoming: pa.RecordBatch) -> None:
        _add(self.plan, incoming, self.bounds, self.predicted)
        if self.expectation is not None:
            self.expectation.add(Batch(self.plan, incoming), self.expected)

    def merge(self, other: Self) -> None:
        for name, tally in self.bounds.items():
            tally.merge(other.bounds[name])
        for mine, theirs in zip(self.expected, other.expected, strict=True):
            mine.merge(theirs)


def find_unknowns(
    stages: Stages,
    bidders: Sequence[Bidder],
    outcomes: str,
    families: dict[str, Family],
    aside: Aside | None = None,
    *,
    predict: bool,
) -> Unknowns:
    """aside: where the scan set such rows aside; else they are read anew. predict: whether the rows count in expectation.

    Raises LogError where a log can't tell how bids win."""
    engine, plan = stages.engine, stages.plan
    overall = families[OVERALL]
    if not any(overall.get(n, b.policy)[0] for b in bidders for n in ("unknown_wins", "unknown_outcomes")):
        return Unknowns({}, {})
    predicted = predictions_of(plan, overall)
    if plan.budgeted and any(overall.get("unknown_wins", b.policy)[0] for b in bidders):
        return Unknowns(settle_fates(stages, bidders, families, predicted), {})
    sources = [source for by_policy in predicted.values() for source, _ in by_policy]
    expectation = None
    if predict:
        sources += plan.hashed_sources
        place = plan.campaign_segment
        campaigns = 1 if place is None else len(families[plan.segments[place].name].values)
        own = {name: by_policy[0] for name, by_policy in predicted.items()}
        expectation = Expectation(plan, estimate_curves(engine, plan, campaigns), own)
    sizes = {name: (len(f.values), f.buckets) for name, f in families.items()}
    make = partial(_Sums, plan, sizes, predicted, expectation)
    if aside is not None and aside.has("fates"):
        found = aside.reduce("fates", make, engine.threads)
    else:
        found = engine.reduce(_unknown_rows(stages, bidders, outcomes, sources, predict=predict), make)
    pairs: dict[tuple[int, str], UnknownPair | SettledPair] = {}
    for name, family in families.items():
        sums = found.bounds[name].exact(len(family.values), 1)[0]
        for b in bidders[1:]:
            parts = [
                _unknown(plan, sums, who, b.policy, side, len(family.values), predicted)
                for who in ("candidate", "baseline")
                for side in ("alone", "both", "over")
            ]
            pairs[(b.policy, name)] = UnknownPair(*parts)
    return Unknowns(pairs, expectation.families(families, found.expected) if expectation else {})


def _unknown_rows(
    stages: Stages, bidders: Sequence[Bidder], outcomes: str, sources: Sequence[int], *, predict: bool
) -> str:
    """SQL of the rows of unknown fate. sources: indices of the predictions that are needed."""
    plan = stages.plan
    stages.engine.run(f"create or replace table {BARRIER} as select true as yes")
    return render(
        "unknowns",
        weighted=plan.weighted,
        bidders=bidders,
        expected=predict,
        has_floor=plan.has("floor"),
        sources=[(i, plan.sources[i]) for i in dict.fromkeys(sources)],
        segments=plan.segments,
        outcomes=outcomes,
        barrier=BARRIER,
    )


def _add(plan: Plan, batch: pa.RecordBatch, tallies: dict[str, Tally], predicted: Predicted) -> None:
    count = batch.num_rows
    w = column_of(batch, "w") if plan.weighted else np.ones(count)
    wi = column_of(batch, "wi") if plan.weighted else np.ones(count, dtype=np.int64)
    codes = {OVERALL: np.zeros(count, dtype=np.int64)}
    codes |= {s.name: column_of(batch, f"code_{i}").astype(np.int64) for i, s in enumerate(plan.segments)}
    whole: dict[str, npt.NDArray[Any]] = {"rows": wi, **wholes_of(brings_of(plan, batch, predicted), w)}
    for policy in plan.policies[1:]:
        for who, index, opponent in (("candidate", policy.index, 0), ("baseline", 0, policy.index)):
            mine, other = (column_of(batch, f"unknown_{i}") for i in (index, opponent))
            dear, cheap, outbid = (
                column_of(batch, name) for name in (f"dear_{index}", f"cheap_{index}", f"dear_{opponent}")
            )
            both = (mine > 0) & (other > 0)
            over = both & (other == UNKNOWN_WIN) & (dear > outbid)
            least = np.maximum(cheap, outbid)
            for side, mask, low in (
                ("alone", (mine > 0) & (other == 0), cheap),
                ("both", both, cheap),
                ("over", over, least),
            ):
                rows = np.flatnonzero(mask)
                if len(rows) == 0:
                    continue
                for name, values in (whole | {"dear": dear, "cheap": low}).items():
                    key: Key = (f"{who} {side} {name}", policy.index, None)
                    for family, code in codes.items():
                        tallies[family].add(key, code[rows], values[rows])


def _unknown(
    plan: Plan,
    sums: dict[Key, npt.NDArray[np.object_]],
    who: str,
    policy: int,
    side: str,
    size: int,
    predicted: Predicted,
) -> Unknown:
    count = float(2**COUNT_BITS) if plan.weighted else 1.0
    scale = {"rows": count, "dear": MONEY_SCALE, "cheap": MONEY_SCALE, "value": VALUE_SCALE}
    found = {}
    for name in NAMES:
        whole = sums.get((f"{who} {side} {name}", policy, None), np.zeros(size, dtype=object))
        found[name] = np.array([int(v) / scale.get(name, RESULT_SCALE) for v in whole])
    # Without a prediction nobody can say what the rows would have brought.
    for name, role in (("clicks", "click"), ("conversions", "conversion")):
        if plan.has(role) and name not in predicted:
            found[name] = np.where(found["rows"] > 0, np.nan, 0.0)
            found["value"] = np.where(found["rows"] > 0, np.nan, found["value"])
    return Unknown(**found)
