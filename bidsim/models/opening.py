"""What `--model` and `model:` may name: a bundle, the raw file of a library, or a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bidsim.models.packing import open_model
from bidsim.models.predictions import PredictionFile, is_prediction_file
from bidsim.models.sandbox import Limits
from bidsim.models.scorer import Scorer


@dataclass(frozen=True)
class Opened:
    """A model ready to score. sha256: of the file, hex."""

    scorer: Scorer
    sha256: str


def open_scorer(path: Path, limits: Limits | None = None) -> Opened:
    """Open, check and load a model file, told apart by its content. Raises ModelError."""
    if is_prediction_file(path):
        predictions = PredictionFile(path)
        return Opened(predictions, predictions.sha256)
    bundle = open_model(path, limits)
    return Opened(bundle.scorer(limits), bundle.sha256)
