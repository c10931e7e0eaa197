"""Area under the ROC curve, exact for float32 scores.

Mann, Whitney (1947): P(score of a positive > score of a negative) + half of P(equal), weighted by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bidsim.statistics.ranking import Ladder

Floats = npt.NDArray[np.float64]


def auc(ladder: Ladder) -> float:
    """Weighted AUC with ties counted half; NaN when a label is absent."""
    positives = int(ladder.positive.sum())
    if positives == 0 or ladder.negatives == 0:
        return float("nan")
    # Twice the win count keeps the half of a tie whole; extended precision holds the products of two weights.
    wins = ladder.positive.astype(np.longdouble) * (2 * ladder.below.astype(np.longdouble) + ladder.equal)
    return float(wins.sum() / (2 * np.longdouble(positives) * np.longdouble(ladder.negatives)))


def grouped_auc(aucs: Floats, weights: Floats) -> float:
    """gauc: mean of per-campaign AUCs weighted by rows, over campaigns that have both labels (AUC not NaN).

    aucs, weights: shape (campaigns,). Zhu et al. (2017), "Optimized Cost per Click in Taobao Display Advertising".
    """
    known = ~np.isnan(aucs) & (weights > 0)
    if not known.any():
        return float("nan")
    return float((aucs[known] * weights[known]).sum() / weights[known].sum())
