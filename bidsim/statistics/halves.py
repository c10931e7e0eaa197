"""Balanced half-samples: how far numbers vary whose rows share something, such as a budget.

The buckets of units form 16 strata of two halves each. A replicate is the log of one half of every stratum, with half of
what its rows share; the 16 replicates are a Hadamard design, so that what the halves of a stratum differ by can be told
apart from all others (McCarthy 1969, "Pseudo-Replication: Half Samples"; Wolter 2007, "Introduction to Variance
Estimation", chapter 3). Halves rather than nearly whole logs, because results jump where a budget ends: a jump weighs no
more than the difference that half of the users make, while a jackknife would multiply it.

What comes out is a table by stratum that stands in for sums by bucket: a sixteenth of the whole, plus what its halves
differ by. Differences that a smaller log makes as such (a constant over replicates) are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bidsim.statistics.units import BUCKETS

Floats = npt.NDArray[np.float64]

STRATA = 16
REPLICATES = 16
# Of so few buckets halves may be alike by chance.
FEW = 5
# Sylvester's Hadamard matrix, shape (replicates, strata): +1 takes a stratum's first half, -1 its second.
DESIGN = np.array([[1 - 2 * ((r & h).bit_count() & 1) for h in range(STRATA)] for r in range(REPLICATES)])
# The first stratum's halves are the same in all replicates, so the others speak for it.
_STRETCH = float(np.sqrt(STRATA / (STRATA - 1)))


def in_half() -> npt.NDArray[np.bool_]:
    """Whether a bucket of units is in a replicate, shape (replicates, BUCKETS)."""
    bucket = np.arange(BUCKETS)
    first = np.where(bucket // (BUCKETS // STRATA // 2) % 2 == 0, 1, -1)
    return np.asarray(DESIGN[:, bucket // (BUCKETS // STRATA)] == first)


def by_stratum(own: Floats, moved: Floats | None = None) -> Floats:
    """What stands in for sums by bucket, shape (values, STRATA), adding up to the whole.

    own: sums by bucket, shape (values, buckets), at least 32. moved: in each replicate, how the sums of its own rows
    differ from what they are in the whole log, shape (values, replicates); None: they don't.
    """
    halves = own.reshape(len(own), STRATA, 2, -1).sum(axis=3)
    contrast = halves[:, :, 0] - halves[:, :, 1]
    if moved is not None:
        contrast = contrast + 2 * (moved @ DESIGN) / REPLICATES
    contrast = contrast.copy()
    contrast[:, 0] = 0.0
    contrast *= _STRETCH
    whole = own.sum(axis=1, keepdims=True)
    return np.asarray(whole / STRATA + contrast - contrast.mean(axis=1, keepdims=True))
