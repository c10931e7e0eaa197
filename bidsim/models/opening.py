"""What `--model` and `model:` may name: a bundle, the raw file of a library, or a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bidsim.models.bundle import Bundle
from bidsim.models.packing import open_model
from bidsim.models.predictions import PredictionFile, is_prediction_file
from bidsim.models.sandbox import Limits
from bidsim.models.scorer import Scorer


@dataclass(frozen=True)
class Opened:
    """A model ready to score. sha256: of the file, hex; bundle: None for a file of predictions."""

    scorer: Scorer
    sha256: str
    bundle: Bundle | None = None

    @property
    def training_window(self) -> tuple[str, str] | None:
        """(start, end) as the bundle says, None where it does not."""
        window = self.bundle.manifest.training_window if self.bundle else None
        return None if window is None else (window.start, window.end)


def open_scorer(path: Path, limits: Limits | None = None, threads: int | None = None) -> Opened:
    """Open, check and load a model file, told apart by its content. Raises ModelError.

    threads: how many batches a library scores at once; default: as many as there are cores.
    """
    if is_prediction_file(path):
        predictions = PredictionFile(path)
        return Opened(predictions, predictions.sha256)
    bundle = open_model(path, limits)
    return Opened(bundle.scorer(limits, threads), bundle.sha256, bundle)
