"""The small tables that a log is reduced to: everything from which numbers, intervals and curves are computed.

Sums are by family of segments, segment value and bucket of units. They merge by addition, so parts of a log can be
reduced apart; what does not (the exact AUC, the isotonic fit, the equal-mass bins) is kept as found, beside the grid of
scores by bucket that would give it to a cell's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bidsim.statistics.calibration import Bins
from bidsim.statistics.identified import SettledPair, UnknownPair
from bidsim.statistics.matched_range import MatchedRanges
from bidsim.statistics.prices import Prices
from bidsim.statistics.split import Stage
from bidsim.statistics.spread import Sample
from bidsim.statistics.tallies import Family

Floats = npt.NDArray[np.float64]
Place = tuple[str, int, str]  # head, source, family name


@dataclass(frozen=True)
class Outline:
    """What was reduced. policies: names, the baseline first; sources: by policy and head, the index of the prediction
    that is judged; shown: families in the result's order; campaigns: the family that cuts by campaign; betas: of the
    expected utility; units: number of units."""

    policies: tuple[str, ...]
    heads: tuple[str, ...]
    sources: Mapping[tuple[int, str], int]
    shown: tuple[str, ...]
    campaigns: str | None
    has_click: bool
    has_conversion: bool
    weighted: bool
    betas: tuple[float, ...]
    units: int


@dataclass(frozen=True)
class ScoreGrid:
    """Labels by bucket of units and cell of a fixed grid of scores. negative, positive: weights, shape (buckets, cells);
    score: the middle of each cell, shape (cells,), ascending."""

    negative: Floats
    positive: Floats
    score: Floats


@dataclass(frozen=True)
class Ranked:
    """How one prediction of one head orders and meets the labels of one family.

    auc, recalibrated: by segment value, the exact AUC and the Brier score after isotonic recalibration; bins: by segment
    value. won, lost: shape (values, buckets), over positives the share of negatives that score below them (ties half),
    over negatives the share of positives that do. grid: for the whole log only. wiggle: by segment value, how much of the
    summed squares the isotonic fit may owe to noise; spans: of the bins, see `calibration` (both None in older files).
    """

    auc: Floats
    recalibrated: Floats
    bins: list[Bins]
    won: Floats
    lost: Floats
    grid: ScoreGrid | None = None
    wiggle: Floats | None = None
    spans: Floats | None = None


@dataclass(frozen=True)
class AtLevel:
    """What a policy's wins come to at its matched level by bucket of units, shape (values, buckets), and how its
    results and the logarithm of its multiplier move with its spend there, shape (values,), per currency."""

    spend: Floats
    clicks: Floats
    conversions: Floats
    clicks_slope: Floats
    conversions_slope: Floats
    multiplier_slope: Floats


@dataclass(frozen=True)
class Matched:
    """Results at the baseline's spend, shape (values,), NaN where the policy can't spend as much."""

    multiplier: Floats
    spend: Floats
    clicks: Floats
    conversions: Floats
    level: AtLevel | None = None


@dataclass(frozen=True)
class Tables:
    """One replay, reduced. matched: by policy and family; stages: by candidate, the baseline moved to its level, overall
    and campaign by campaign; unknown: by candidate and family, empty where the log knows every fate; at_matched: by the
    same, over the fates at matched spend, empty where not computed; prices: None in older files."""

    outline: Outline
    families: dict[str, Family]
    ranked: dict[Place, Ranked]
    matched: dict[tuple[int, str], Matched]
    stages: dict[int, tuple[Stage, Stage]]
    unknown: dict[tuple[int, str], UnknownPair | SettledPair]
    at_matched: Mapping[tuple[int, str], MatchedRanges] = field(default_factory=dict)
    prices: Prices | None = None

    def sample(self, family: str, confidence: float) -> Sample:
        """What intervals of a family's numbers need."""
        found = self.families[family]
        return Sample(confidence, found.by_bucket("rows"), self.outline.units, given=not found.reruns)
