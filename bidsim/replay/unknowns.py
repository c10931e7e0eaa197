"""The rows whose fate the log does not show: what they could have cost each policy and what they could have brought.

Read after the reduction, since the predictions that bound them are calibrated on the log's own labels, and only where
some policy has such rows at all. Sums of whole numbers, by segment value. With `outcomes: predicted` the same reading
gives what the rows count for in expectation (`expected`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.batches import Batch
from bidsim.replay.engine import Engine
from bidsim.replay.expected import Expectation, empty_tallies, estimate_curves, worth_of
from bidsim.replay.measures import COUNT_BITS, MONEY_SCALE
from bidsim.replay.plan import Plan
from bidsim.replay.policies import Bidder
from bidsim.replay.sql import render
from bidsim.replay.stream import STREAM_ROWS, share
from bidsim.statistics.identified import Unknown, UnknownPair
from bidsim.statistics.tallies import OVERALL, Family, Key, Tally

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESULT_SCALE = 2.0**40
VALUE_SCALE = 10.0**9
NAMES = ("rows", "dear", "cheap", "clicks", "conversions", "value")


@dataclass(frozen=True)
class Unknowns:
    """pairs: by candidate and family, its unknown rows beside the baseline's, empty where no policy has any; expected: by
    family and key, what they count for by bucket of units, empty with `outcomes: observed`."""

    pairs: dict[tuple[int, str], UnknownPair]
    expected: dict[str, dict[Key, Floats]]


@dataclass
class _Worker:
    """What one thread sums: bounds by family, expectations in the families' order."""

    bounds: dict[str, Tally]
    expected: list[Tally]


def find_unknowns(
    engine: Engine,
    plan: Plan,
    bidders: Sequence[Bidder],
    outcomes: str,
    families: dict[str, Family],
    *,
    predict: bool,
    threads: int,
) -> Unknowns:
    """predict: whether the rows count in expectation. Raises LogError where a log can't tell how bids win."""
    overall = families[OVERALL]
    if not any(overall.get(n, b.policy)[0] for b in bidders for n in ("unknown_wins", "unknown_outcomes")):
        return Unknowns({}, {})
    predicted = _predictions(plan, overall)
    sources = [source for by_policy in predicted.values() for source, _ in by_policy]
    expectation = None
    if predict:
        sources += plan.hashed_sources
        place = plan.campaign_segment
        campaigns = 1 if place is None else len(families[plan.segments[place].name].values)
        own = {name: by_policy[0] for name, by_policy in predicted.items()}
        expectation = Expectation(plan, estimate_curves(engine, plan, campaigns), own)
    sql = render(
        "unknowns",
        weighted=plan.weighted,
        bidders=bidders,
        expected=predict,
        sources=[(i, plan.sources[i]) for i in dict.fromkeys(sources)],
        segments=plan.segments,
        outcomes=outcomes,
    )

    def work(incoming: pa.RecordBatch, worker: _Worker) -> None:
        _add(plan, incoming, worker.bounds, predicted)
        if expectation is not None:
            expectation.add(Batch(plan, incoming), worker.expected)

    workers = [
        _Worker({name: Tally(len(f.values)) for name, f in families.items()}, empty_tallies(families))
        for _ in range(threads)
    ]
    share(engine.stream(sql, STREAM_ROWS), work, workers)
    first = workers[0]
    for other in workers[1:]:
        for name, tally in first.bounds.items():
            tally.merge(other.bounds[name])
        for mine, theirs in zip(first.expected, other.expected, strict=True):
            mine.merge(theirs)
    pairs = {}
    for name, family in families.items():
        sums = first.bounds[name].exact(len(family.values), 1)[0]
        for b in bidders[1:]:
            parts = [
                _unknown(plan, sums, who, b.policy, side, len(family.values), predicted)
                for who in ("candidate", "baseline")
                for side in ("alone", "both")
            ]
            if plan.budgeted:
                # Unknown wins would have used money of the budget, and changed what is won after them.
                spent = [bool(overall.get("unknown_wins", index)[0]) for index in (b.policy, b.policy, 0, 0)]
                parts = [_unsayable(part) if unsure else part for part, unsure in zip(parts, spent, strict=True)]
            pairs[(b.policy, name)] = UnknownPair(*parts)
    return Unknowns(pairs, expectation.families(families, first.expected) if expectation else {})


def _unsayable(part: Unknown) -> Unknown:
    return replace(part, rows=np.full(len(part.rows), np.nan))


def _predictions(plan: Plan, overall: Family) -> dict[str, list[tuple[int, float]]]:
    """By result, (source, calibration factor) of every policy's prediction of it from the impression on."""
    out: dict[str, list[tuple[int, float]]] = {}
    for result, head, role in (("clicks", "ctr", "click"), ("conversions", "ctcvr", "conversion")):
        if not plan.has(role):
            continue
        found = []
        for policy in plan.policies:
            sql = plan.prediction(policy.index, head)
            if sql is not None:
                found.append((plan.sources.index(sql), _factor(plan, overall, policy.index, head)))
        if found:
            out[result] = found
    return out


def _factor(plan: Plan, overall: Family, policy: int, head: str) -> float:
    """Observed over predicted on the labelled rows; of a product of heads, the product. 1 where nothing is labelled."""
    if head in plan.heads:
        y, p = overall.get("y", policy, head)[0], overall.get("p", policy, head)[0]
        return float(y / p) if y > 0 and p > 0 else 1.0
    if head == "ctcvr" and {"ctr", "cvr"} <= set(plan.heads):
        return _factor(plan, overall, policy, "ctr") * _factor(plan, overall, policy, "cvr")
    return 1.0


def _column(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    return np.asarray(batch.column(name))


def _add(
    plan: Plan, batch: pa.RecordBatch, tallies: dict[str, Tally], predicted: dict[str, list[tuple[int, float]]]
) -> None:
    count = batch.num_rows
    w = _column(batch, "w") if plan.weighted else np.ones(count)
    wi = _column(batch, "wi") if plan.weighted else np.ones(count, dtype=np.int64)
    codes = {OVERALL: np.zeros(count, dtype=np.int64)}
    codes |= {s.name: _column(batch, f"code_{i}").astype(np.int64) for i, s in enumerate(plan.segments)}
    brings = _brings(plan, batch, predicted)
    whole: dict[str, npt.NDArray[Any]] = {"rows": wi}
    whole |= {name: np.rint(brings[name] * w * RESULT_SCALE) for name in ("clicks", "conversions") if name in brings}
    if "value" in brings:
        whole["value"] = np.rint(np.minimum(brings["value"] * w, 1e12) * VALUE_SCALE)
    ours = _column(batch, "unknown_0") > 0
    for policy in plan.policies[1:]:
        theirs = _column(batch, f"unknown_{policy.index}") > 0
        for who, index, mine, other in (
            ("candidate", policy.index, theirs, ours),
            ("baseline", 0, ours, theirs),
        ):
            money = {name: _column(batch, f"{name}_{index}") for name in ("dear", "cheap")}
            for side, mask in (("alone", mine & ~other), ("both", mine & other)):
                rows = np.flatnonzero(mask)
                if len(rows) == 0:
                    continue
                for name, values in (whole | money).items():
                    key: Key = (f"{who} {side} {name}", policy.index, None)
                    for family, code in codes.items():
                        tallies[family].add(key, code[rows], values[rows])


def _brings(plan: Plan, batch: pa.RecordBatch, predicted: dict[str, list[tuple[int, float]]]) -> dict[str, Floats]:
    """What each row could bring: its label where the log shows it, else the larger of the calibrated predictions."""
    out: dict[str, Floats] = {}
    for result, label in (("clicks", "click"), ("conversions", "conversion")):
        if result in predicted:
            best = np.zeros(batch.num_rows)
            for source, factor in predicted[result]:
                best = np.fmax(best, np.minimum(_column(batch, f"score_{source}") * factor, 1.0))
            seen = _column(batch, label).astype(np.float64)
            out[result] = np.where(np.isnan(seen), best, seen)
    value = worth_of(plan, {name: _column(batch, name) for name in ("target_cpc", "target_cpa")}, out)
    if value is not None:
        out["value"] = value
    return out


def _unknown(
    plan: Plan,
    sums: dict[Key, npt.NDArray[np.object_]],
    who: str,
    policy: int,
    side: str,
    size: int,
    predicted: dict[str, list[tuple[int, float]]],
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
