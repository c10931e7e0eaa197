"""How well offline forecasts have told what online tests showed: over all runs whose outcome was recorded.

For each metric tested online: the share of forecast intervals that held the online change, the share with the right
direction, the mean miss, and the offline metric whose order of the candidates agrees best with the order online
(Kendall's tau-b between improvements). The online change has noise of its own, so even a perfect forecast's 95%
interval holds less than 95% of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from bidsim.gate.bounds import HIGHER_IS_BETTER, LOWER_IS_BETTER
from bidsim.store.ledger import latest, read_outcomes
from bidsim.store.record import ForecastRecord
from bidsim.store.scan import StoredRun

# With fewer online tests than this the best of two dozen metrics is mostly luck.
FEWEST = 5

Name = tuple[str, str | None]


@dataclass(frozen=True)
class Predictor:
    """An offline metric as a predictor: tau between its improvements and those online, over so many tests."""

    metric: str
    head: str | None
    tau: float
    tests: int


@dataclass(frozen=True)
class MetricTrack:
    """A metric tested online. held, direction: (how many, of how many); miss: mean abs(forecast - online); shared: in how
    many tests both arms spent from the same budgets, as far as was recorded."""

    metric: str
    head: str | None
    tests: int
    held: tuple[int, int]
    direction: tuple[int, int]
    miss: float | None
    best: Predictor | None
    shared: int = 0


@dataclass(frozen=True)
class Track:
    metrics: list[MetricTrack]

    def to_data(self) -> list[dict[str, Any]]:
        return [asdict(m) for m in self.metrics]


@dataclass(frozen=True)
class _Pair:
    """An online change beside all forecasts of its candidate. shared: whether the arms shared their budgets."""

    online: float
    forecasts: dict[Name, ForecastRecord]
    shared: bool = False


def track_record(runs: Sequence[StoredRun]) -> Track:
    """The track record of the forecasts of all runs with a recorded outcome."""
    tested: dict[Name, list[_Pair]] = {}
    for run in runs:
        for (policy, metric, head), change in latest(read_outcomes(run.directory)).items():
            mine = {(f.metric, f.head): f for f in reversed(run.record.forecasts) if f.policy == policy}
            if (metric, head) in mine:
                tested.setdefault((metric, head), []).append(_Pair(change.change, mine, change.budget_split is False))
    return Track([_metric_track(name, tested[name]) for name in sorted(tested, key=str)])


def _metric_track(name: Name, pairs: Sequence[_Pair]) -> MetricTrack:
    own = [(p.online, p.forecasts[name].relative) for p in pairs]
    known = [(online, f.value) for online, f in own if f.value is not None]
    with_interval = [(o, f.low, f.high) for o, f in own if f.low is not None and f.high is not None]
    held = sum(low <= online <= high for online, low, high in with_interval)
    right = sum(_sign(online) == _sign(value) for online, value in known)
    misses = [abs(online - value) for online, value in known]
    return MetricTrack(
        metric=name[0],
        head=name[1],
        tests=len(pairs),
        held=(held, len(with_interval)),
        direction=(right, len(known)),
        miss=math.fsum(misses) / len(misses) if misses else None,
        best=_best(name, pairs),
        shared=sum(p.shared for p in pairs),
    )


def _best(name: Name, pairs: Sequence[_Pair]) -> Predictor | None:
    way = _way(name[0])
    if way == 0 or len(pairs) < FEWEST:
        return None
    found = []
    for other in dict.fromkeys(key for p in pairs for key in p.forecasts):
        mine = _way(other[0])
        both = [(way * p.online, mine * value) for p in pairs if (value := _change(p, other)) is not None]
        if mine and len(both) >= FEWEST:
            tau = kendall(both)
            if tau is not None:
                found.append(Predictor(other[0], other[1], tau, len(both)))
    # The metric itself wins a tie, then the order of the result.
    return max(found, key=lambda p: (p.tau, (p.metric, p.head) == name), default=None)


def _change(pair: _Pair, name: Name) -> float | None:
    found = pair.forecasts.get(name)
    if found is None:
        return None
    return found.relative.value if found.relative.value is not None else found.absolute.value


def kendall(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of (x, y) pairs, ties counted (Kendall 1945); None where x or y never differ."""
    agree = tied_x = tied_y = 0
    total = 0
    for (x1, y1), (x2, y2) in combinations(pairs, 2):
        dx, dy = _sign(x1 - x2), _sign(y1 - y2)
        agree += dx * dy
        tied_x += dx == 0
        tied_y += dy == 0
        total += 1
    scale = math.sqrt((total - tied_x) * (total - tied_y))
    return agree / scale if scale else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _way(metric: str) -> int:
    return (metric in HIGHER_IS_BETTER) - (metric in LOWER_IS_BETTER)
