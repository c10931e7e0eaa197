"""One head of a bundle, as the bundle's scorer sees it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bidsim.models.columns import Columns


class HeadModel(Protocol):
    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """The head's probability for every row of the batch, shape (rows,). Raises ModelError."""
        ...
