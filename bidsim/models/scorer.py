"""What every model looks like to the replay: log columns in, probabilities out, batch by batch.

A scorer is made once and asked from several threads, so it keeps no state that changes its answers. The caller finds
out through `features` which log columns it must scan, and reports those that the log lacks.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.scenario.schema import Head


class Scorer(Protocol):
    """Predicts probabilities for rows of the log."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The probabilities that the model predicts, in the order ctr, cvr, ctcvr."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the log columns that the model reads, each once."""
        ...

    def score(self, batch: pa.RecordBatch) -> dict[str, NDArray[np.float64]]:
        """Predict every head for every row.

        batch: holds at least the columns named by `features`; others are ignored.
        Returns one array of shape (rows,) per head; NaN where the prediction is undefined.
        Rows are independent: the same row gets the same prediction in any batch.
        Raises ModelError where a column has a type that the model can't take, or the model itself fails.
        Safe to call from several threads at once.
        """
        ...


def end(scorer: Scorer | None) -> None:
    """End the processes of a scorer that will not be asked again, also while threads wait for it; most have none."""
    close = getattr(scorer, "close", None)
    if close is not None:
        close()
