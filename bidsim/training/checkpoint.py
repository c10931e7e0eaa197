"""Where a training stands, written whole after each round: a killed training goes on from there to the same bytes.

One file a head, NumPy's own format without pickles. A checkpoint belongs to one training: the same examples,
hyperparameters, seed and versions.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from bidsim.errors import BidsimError
from bidsim.files import write_file
from bidsim.models.manifest import CurvePoint, CurveRound
from bidsim.scenario.schema import Head

META = "meta"


class Standing(BaseModel):
    """How far a head is. rows: learned from so far; waited: rounds since the best one; progress: of a first round that
    was cut short, beside its points in `progressive`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    rounds: tuple[CurveRound, ...] = ()
    progressive: tuple[CurvePoint, ...] = ()
    chosen: int = 0
    waited: int = 0
    rows: int = 0
    done: bool = False
    progress: tuple[int, int, float, float] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A folder of checkpoints of one training. key: a hash of all that decides its outcome."""

    directory: Path
    key: str

    def load(self, head: Head) -> tuple[Standing, dict[str, NDArray[Any]]] | None:
        """What was saved of a head, None where nothing was. Raises BidsimError for another training's, or damage."""
        path = self._path(head)
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            standing = Standing.model_validate_json(arrays.pop(META).tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, ValidationError) as error:
            raise BidsimError(
                "is no checkpoint, or damaged; remove it to train from the start", file=str(path)
            ) from error
        if standing.key != self.key:
            raise BidsimError(
                "is of another training (other examples, hyperparameters, seed or versions); remove it, or give another "
                "folder",
                file=str(path),
            )
        return standing, arrays

    def save(self, head: Head, standing: Standing, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write where a head stands, in place of what was there. Raises BidsimError."""
        meta = np.frombuffer(json.dumps(standing.model_dump(mode="json")).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{META: meta, **arrays})
        write_file(self._path(head), buffer.getvalue())

    def _path(self, head: Head) -> Path:
        return self.directory / f"checkpoint-{head}.npz"
