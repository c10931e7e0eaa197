"""The loops over rows that a large log spends its time in, compiled where a C compiler was found at installation.

`kernels.c` has them; without it `reference.py` does the same with numpy, three to ten times slower and to the same bit,
so a result never depends on how bidsim was installed. `BIDSIM_KERNELS=numpy` asks for the latter.
"""

from __future__ import annotations

from bidsim.kernels import compiled, reference

LIBRARY = compiled.load()
COMPILED = LIBRARY is not None

if LIBRARY is not None:
    sum_ones, sum_ints, sum_fixed = LIBRARY.sum_ones, LIBRARY.sum_ints, LIBRARY.sum_fixed
    places, rank, cells, utility = LIBRARY.places, LIBRARY.rank, LIBRARY.cells, LIBRARY.utility
    text_keys, find_keys, add_found = LIBRARY.text_keys, LIBRARY.find_keys, LIBRARY.add_found
else:
    sum_ones, sum_ints, sum_fixed = reference.sum_ones, reference.sum_ints, reference.sum_fixed
    places, rank, cells, utility = reference.places, reference.rank, reference.cells, reference.utility
    text_keys, find_keys, add_found = reference.text_keys, reference.find_keys, reference.add_found

__all__ = [
    "COMPILED", "add_found", "cells", "find_keys", "places", "rank", "sum_fixed", "sum_ints", "sum_ones", "text_keys", "utility"
]  # fmt: skip
