"""Area under the ROC curve, exact for float32 scores, and what each bucket of units adds to it.

Mann, Whitney (1947): P(score of a positive > score of a negative) + half of P(equal), weighted by row. Influence of
clustered data: Obuchowski (1997), "Nonparametric analysis of clustered ROC curve data", on the structural components
of DeLong, DeLong, Clarke-Pearson (1988).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bidsim.statistics.measured import Mean, Measured
from bidsim.statistics.ranking import Ladder
from bidsim.statistics.tallies import ratio

Floats = npt.NDArray[np.float64]


def auc(ladder: Ladder) -> float:
    """Weighted AUC with ties counted half; NaN when a label is absent."""
    positives = int(ladder.positive.sum())
    if positives == 0 or ladder.negatives == 0:
        return float("nan")
    # Twice the win count keeps the half of a tie whole; extended precision holds the products of two weights.
    wins = ladder.positive.astype(np.longdouble) * (2 * ladder.below.astype(np.longdouble) + ladder.equal)
    return float(wins.sum() / (2 * np.longdouble(positives) * np.longdouble(ladder.negatives)))


def auc_of(area: Floats, won: Floats, lost: Floats, positives: Floats, rows: Floats) -> Measured:
    """The AUC of each segment value with what each bucket adds: a mean over positives and one over negatives.

    won: over the bucket's positives, the share of all negatives that score below them (ties half); lost: over its
    negatives, the share of all positives that score below them; positives, rows: weights by bucket. Shapes (values,
    buckets), area (values,).
    """
    negatives = rows - positives
    a = area[:, None]
    all_positives, all_negatives = positives.sum(axis=1, keepdims=True), negatives.sum(axis=1, keepdims=True)
    means = (
        Mean(ratio(won - a * positives, all_positives), ratio(positives, all_positives)),
        Mean(ratio(negatives - lost - a * negatives, all_negatives), ratio(negatives, all_negatives)),
    )
    # Of one score for all rows it is 0.5 whatever comes; where all positives score higher, few have been seen.
    return Measured(area, means[0].influence + means[1].influence, means=means, extreme=(area == 0.0) | (area == 1.0))


def grouped_auc(aucs: Floats, weights: Floats) -> float:
    """gauc: mean of per-campaign AUCs weighted by rows, over campaigns that have both labels (AUC not NaN).

    aucs, weights: shape (campaigns,). Zhu et al. (2017), "Optimized Cost per Click in Taobao Display Advertising".
    """
    known = ~np.isnan(aucs) & (weights > 0)
    if not known.any():
        return float("nan")
    return float((aucs[known] * weights[known]).sum() / weights[known].sum())


def grouped_influence(value: float, aucs: Measured, rows: Floats, parts: Floats) -> Floats:
    """What each bucket adds to gauc, shape (1, buckets). rows: of each campaign, parts: the same by bucket."""
    known = ~np.isnan(aucs.value) & (rows > 0)
    if not known.any() or aucs.parts is None:
        return np.zeros((1, parts.shape[1]))
    z = aucs.parts[known] * rows[known][:, None] + (aucs.value[known] - value)[:, None] * parts[known]
    return np.asarray(z.sum(axis=0, keepdims=True) / rows[known].sum())
