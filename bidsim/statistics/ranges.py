"""The identified range of every number of a result (spec 3.6), by segment value, from what the tables say of unknown rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bidsim.result import IdentifiedChange, Range
from bidsim.statistics.identified import holding, identified, identified_change, over_campaigns
from bidsim.statistics.matched_range import AT_MATCHED
from bidsim.statistics.metrics import ECONOMIC, Values
from bidsim.statistics.rare import Rare
from bidsim.statistics.spread import Bounds
from bidsim.statistics.tables import Tables
from bidsim.statistics.tallies import OVERALL, ratio

Known = Callable[[str], Sequence[Range | None]]
KnownChange = Callable[[str], Sequence[IdentifiedChange | None]]


def known_values(tables: Tables, index: int, name: str, values: Values) -> Known:
    """The identified ranges of a metric by segment value; the value itself where every fate is known."""
    pair = tables.unknown.get((max(index, 1), name))
    size = len(tables.families[name].values)
    if pair is None:
        ranges = {m: (v.value, v.value) for (m, head, _), v in values.items() if head is None and m in ECONOMIC}
    else:
        ranges = identified(tables.families[name], index, pair)
        if name == OVERALL and (campaigns := tables.outline.campaigns):
            several = tables.unknown[(max(index, 1), campaigns)]
            ranges |= identified(tables.families[campaigns], index, several, over_campaigns)
        if tables.families[name].expected:
            ranges = {
                m: holding(s, values[(m, None, None)].value) for m, s in ranges.items() if (m, None, None) in values
            }
    matched = tables.at_matched.get((max(index, 1), name))
    if matched is not None:
        # The baseline spends what it spends: at its own level it is what it is.
        own = matched.value if index else {m: ranges[m] for m in matched.value.keys() & ranges.keys()}
        one = np.ones(size)
        own = own if index else own | {"multiplier": (one, one)}
        ranges |= {f"{metric}{AT_MATCHED}": span for metric, span in own.items()}
    return lambda metric: _ranges(ranges.get(metric), size)


def known_changes(tables: Tables, index: int, name: str, ours: Values, theirs: Values) -> KnownChange:
    pair, matched = tables.unknown.get((index, name)), tables.at_matched.get((index, name))
    size = len(tables.families[name].values)
    ranges = {} if pair is None else identified_change(tables.families[name], index, pair)
    if pair is not None and name == OVERALL and (campaigns := tables.outline.campaigns):
        several = tables.unknown[(index, campaigns)]
        ranges |= identified_change(tables.families[campaigns], index, several, over_campaigns)
    if tables.families[name].expected:
        for metric in [m for m in ranges if (m, None, None) in theirs]:
            base, value = (values[(metric, None, None)].value for values in (ours, theirs))
            absolute, relative = ranges[metric]
            change = value - base
            ranges[metric] = holding(absolute, change), holding(relative, ratio(change, np.abs(base)))
    if matched is not None:
        rare = Rare.of(tables.families[name], index)
        # The same bids are the same whatever the unknown rows did, although other levels may spend as much.
        same = np.zeros(size, dtype=bool) if rare is None else rare.same

        def none_if_same(span: Bounds) -> Bounds:
            return np.where(same, 0.0, span[0]), np.where(same, 0.0, span[1])

        ranges |= {
            f"{m}{AT_MATCHED}": (none_if_same(span), none_if_same(matched.relative[m]))
            for m, span in matched.absolute.items()
        }

    def known(metric: str) -> Sequence[IdentifiedChange | None]:
        absolute, relative = (_ranges(r, size) for r in ranges.get(metric, (None, None)))
        return [
            IdentifiedChange.built(absolute=a, relative=r) if a and r else None
            for a, r in zip(absolute, relative, strict=True)
        ]

    return known


def _ranges(span: Bounds | None, size: int) -> Sequence[Range | None]:
    """By segment value. An end that has no bound is null; NaN: nothing to say."""
    if span is None:
        return [None] * size
    return [
        None if nothing else Range.built(low=low, high=high)
        for nothing, low, high in zip(np.isnan(span[0]).tolist(), nulls(span[0]), nulls(span[1]), strict=True)
    ]


# Tens of thousands of records of plain floats and texts: they are built without validation, which tests make up for.


def nulls(values: npt.NDArray[Any]) -> list[float | None]:
    """Values as a result has them: None for what is not finite."""
    whole: list[float | None] = np.asarray(values, dtype=np.float64).tolist()
    for at in np.flatnonzero(~np.isfinite(np.asarray(values, dtype=np.float64))):
        whole[at] = None
    return whole
