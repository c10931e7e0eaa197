"""bidsim: an offline bid-simulation evaluator.

Replays held-out auction logs through a candidate and a baseline and says what happens to spend, wins, clicks,
conversions and CPA. `replay` is the whole job; `Scenario` and `Result` are its input and output as data.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import bidsim.replay  # noqa: F401  the package first: the function of the same name then stays bound
from bidsim.api import replay
from bidsim.errors import BidsimError

if TYPE_CHECKING:
    from bidsim.result import Result
    from bidsim.scenario.schema import Scenario

__version__ = "0.1.0"
__all__ = ["BidsimError", "Result", "Scenario", "__version__", "replay"]

_HOMES = {"Result": "bidsim.result", "Scenario": "bidsim.scenario.schema"}


def __getattr__(name: str) -> Any:
    # Heavy imports wait until they are used: `bidsim --help` must not pay for an engine.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
