"""Ranges at matched spend from curves made by hand."""

from __future__ import annotations

import numpy as np

from bidsim.statistics.matched_range import NAMES, Curves, Opening


def test_what_is_none_of_several_sums_is_not_their_last_digits() -> None:
    """All that the baseline's unknown rows could bring, less the part that both policies share, is 0.3 - (0.1 + 0.2)."""
    edges = np.array([[1.0, 2.0, 3.0]])
    nothing, still = np.zeros((1, 3)), np.ones((1, 3))
    opening = Opening(nothing, nothing, nothing, nothing)
    sums = {"spend": 0.0, "clicks": 0.0, "conversions": 0.1 + 0.2}
    curves = Curves(
        multiplier=np.array([0.5, 1.0, 2.0]),
        seen={"spend": edges, "clicks": edges, "conversions": nothing},
        alone=Opening(1e-3 * still, 1e-3 * still, nothing, nothing),
        both=opening,
        ours={
            fate: {n: (sums[n] if fate == "cheap" else 0.0) * still for n in NAMES}
            for fate in ("lost", "dear", "cheap")
        },
        counted={"spend": np.array([2.5]), "clicks": np.array([2.5]), "conversions": np.zeros(1)},
        all_ours={
            fate: {n: np.array([0.3 if (fate, n) == ("cheap", "conversions") else 0.0]) for n in NAMES}
            for fate in ("lost", "dear", "cheap")
        },
        exact={"spend": np.array([2.5]), "clicks": np.array([2.5]), "conversions": np.zeros(1)},
        exact_multiplier=np.array([1.4]),
    )
    found = curves.ranges(frozenset())
    # In worlds where the baseline has none either there is no relative change; elsewhere it is a fall by all.
    assert (found.relative["conversions"][0][0], found.relative["conversions"][1][0]) == (-1.0, -1.0)
    assert found.absolute["conversions"][1][0] == 0.0
