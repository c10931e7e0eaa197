"""What a row brings, or could bring: its labels where the log shows them, else calibrated predictions, and their value.

Predictions are calibrated on the log's own labelled rows by one factor for each policy and head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bidsim.replay.batches import column_of
from bidsim.replay.measures import AMOUNT_BITS
from bidsim.replay.plan import Plan
from bidsim.scenario.schema import Head
from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]
# By result, (source, calibration factor) of every policy's prediction of it.
Predicted = dict[str, list[tuple[int, float]]]

# That of observed results, so that a world in which nothing is won more gives the very same sums.
RESULT_SCALE = 2.0**AMOUNT_BITS
HEADS: dict[str, Head] = {"clicks": "ctr", "conversions": "ctcvr"}
VALUE_SCALE = 10.0**9
MOST_VALUE = 1e12  # currency: of one row; beyond it is a mistake in units


def predictions_of(plan: Plan, overall: Family) -> Predicted:
    """By result, (source, calibration factor) of every policy's prediction of it from the impression on."""
    return {
        result: [(source, _factor(plan, overall, policy, HEADS[result])) for policy, source in found]
        for result, found in sources_of_results(plan).items()
    }


def sources_of_results(plan: Plan) -> dict[str, list[tuple[int, int]]]:
    """By result that somebody predicts, (policy, index of its prediction in `Plan.sources`)."""
    out: dict[str, list[tuple[int, int]]] = {}
    for result, role in (("clicks", "click"), ("conversions", "conversion")):
        each = [
            (policy.index, plan.prediction(policy.index, HEADS[result])) for policy in plan.policies if plan.has(role)
        ]
        found = [(index, plan.sources.index(sql)) for index, sql in each if sql is not None]
        if found:
            out[result] = found
    return out


def _factor(plan: Plan, overall: Family, policy: int, head: Head) -> float:
    """Observed over predicted on the labelled rows; of a product of heads, the product. 1 where nothing is labelled."""
    factor = 1.0
    for one in plan.calibrated_by.get(head, ()):
        y, p = overall.get("y", policy, one)[0], overall.get("p", policy, one)[0]
        factor *= float(y / p) if y > 0 and p > 0 else 1.0
    return factor


def brings_of(plan: Plan, batch: pa.RecordBatch, predicted: Predicted) -> dict[str, Floats]:
    """As `results_of`, and their value."""
    out = results_of(batch, predicted)
    targets = {name: column_of(batch, name) for name in ("target_cpc", "target_cpa") if plan.has(name)}
    value = worth_of(plan, targets, out)
    if value is not None:
        out["value"] = value
    return out


def results_of(batch: pa.RecordBatch, predicted: Predicted) -> dict[str, Floats]:
    """What each row could bring: its label where the log shows it, else the larger of the calibrated predictions."""
    out: dict[str, Floats] = {}
    for result, label in (("clicks", "click"), ("conversions", "conversion")):
        if result in predicted:
            best = np.zeros(batch.num_rows)
            for source, factor in predicted[result]:
                best = np.fmax(best, np.minimum(column_of(batch, f"score_{source}") * factor, 1.0))
            seen = column_of(batch, label).astype(np.float64)
            out[result] = np.where(np.isnan(seen), best, seen)
    return out


def wholes_of(brings: dict[str, Floats], weight: Floats) -> dict[str, Floats]:
    """What rows bring as whole numbers: results in units of 1 / RESULT_SCALE, value of 1 / VALUE_SCALE, weighted."""
    out = {name: np.rint(each * weight * RESULT_SCALE) for name, each in brings.items() if name != "value"}
    if "value" in brings:
        out["value"] = np.rint(np.minimum(brings["value"] * weight, MOST_VALUE) * VALUE_SCALE)
    return out


def worth_of(plan: Plan, columns: dict[str, npt.NDArray[Any]], brings: dict[str, Floats]) -> Floats | None:
    """Value of what rows bring, in currency: target x result, by the performance indicator first."""
    targets = {"clicks": "target_cpc", "conversions": "target_cpa"}
    order = ("conversions", "clicks") if plan.indicator == "cpa" else ("clicks", "conversions")
    value: Floats | None = None
    for result in order:
        if result in brings and plan.has(targets[result]):
            worth = columns[targets[result]].astype(np.float64) * brings[result]
            value = worth if value is None else np.where(np.isnan(value), worth, value)
    return None if value is None else np.nan_to_num(value, nan=0.0)
