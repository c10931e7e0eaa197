"""Does the verdict stand in another market? The replay again with dearer prices, and with candidates that are off.

Two things that no log can promise: that the others go on asking what they asked, and that the candidate's predictions
stay as calibrated as they were on these days. Prices: everybody else's prices and floors times a factor, for all
policies. Calibration: the candidates' bids times a factor, as a model would bid whose predictions (of clicks, of
conversions, or of both together) come to be off by it; the baseline, which is live, stays. Prediction metrics are about
the log and do not move. Each world is a whole replay; between two grid points with different verdicts the flip is found
by halving.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from bidsim.logs.bringing import brought
from bidsim.logs.opening import open_log
from bidsim.replay.pipeline import Settings, run_replay
from bidsim.result import Result
from bidsim.scenario.loading import LoadedScenario, Shift, refuse_spark
from bidsim.scratch import scratch

SCHEMA = "bidsim.stress/1"
Kind = Literal["prices", "calibration"]
KINDS: tuple[Kind, ...] = ("prices", "calibration")
PRICES = (-0.10, -0.05, 0.05, 0.10, 0.20, 0.30)
CALIBRATION = (-0.20, -0.10, 0.10, 0.25)
METRICS = ("spend", "conversions", "cpa", "clicks", "cpc")
NEAR = 0.005


@dataclass(frozen=True)
class Rule:
    """A rule's outcome that is not a pass. policy, segment: whose, and of which segment value."""

    rule: str
    policy: str
    segment: str
    status: str


@dataclass(frozen=True)
class Point:
    """One world. shift: 0.1 is 10% more; change: by candidate and metric, relative to the baseline in the same world."""

    shift: float
    verdict: str
    rules: tuple[Rule, ...]
    change: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Flip:
    """Where the verdict becomes another: it still holds at `holds` and is `verdict` at `breaks`; rules: those that differ."""

    kind: Kind
    holds: float
    breaks: float
    verdict: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Stress:
    """The verdict as it is, the worlds in order of their shift, and the nearest flip on either side of each kind."""

    verdict: str
    points: Mapping[Kind, tuple[Point, ...]]
    flips: tuple[Flip, ...]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def stress(
    loaded: LoadedScenario,
    models: Sequence[Path],
    *,
    as_of: date,
    prices: Sequence[float] = PRICES,
    calibration: Sequence[float] = CALIBRATION,
    baseline: Path | None = None,
    tables: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Stress:
    """Replay in every world. prices, calibration: shifts, each above -1; told: hears which world is replayed.

    Raises BidsimError as a replay does.
    """

    refuse_spark(loaded, "bidsim stress")

    def world(kind: Kind, shift: float) -> Point:
        told("as it is" if shift == 0 else f"{kind} {shift:+.1%}")
        moved = Shift(prices=1 + shift) if kind == "prices" else Shift(candidates=1 + shift)
        changed = replace(loaded, shift=moved)
        made = run_replay(changed, models, as_of=as_of, baseline=baseline, log=log, settings=settings)
        return _point(made.result, shift)

    found = open_log(loaded, tables or {})
    with (
        scratch(settings.directory if settings else None) as work,
        brought(found, Path(work).resolve(), told) as log,  # once for all worlds
    ):
        whole = world("prices", 0.0)
        points: dict[Kind, tuple[Point, ...]] = {}
        flips: list[Flip] = []
        for kind, shifts in zip(KINDS, (prices, calibration), strict=True):
            grid = [world(kind, shift) for shift in sorted(set(shifts) - {0.0})]
            for side in ([p for p in grid if p.shift < 0][::-1], [p for p in grid if p.shift > 0]):
                flip = _first_flip(kind, whole, side, world)
                if flip is not None:
                    flips.append(flip)
            points[kind] = tuple(sorted([*grid, whole], key=lambda p: p.shift))
    return Stress(whole.verdict, points, tuple(flips))


def _point(result: Result, shift: float) -> Point:
    rules = tuple(
        Rule(o.rule, o.policy, ", ".join(f"{k}={v}" for k, v in o.segment.items()), o.status)
        for o in result.gate.rules
        if o.action not in ("pass", "ignore")
    )
    change: dict[str, dict[str, float | None]] = {name: {} for name in result.candidates}
    for d in result.differences:
        if not d.segment and d.head is None and d.metric in METRICS:
            change[d.policy][d.metric] = d.relative.value
    return Point(shift, result.gate.verdict, rules, change)


def _first_flip(kind: Kind, whole: Point, side: Sequence[Point], world: Callable[[Kind, float], Point]) -> Flip | None:
    """The nearest flip among worlds that go away from the log's, to within NEAR."""
    holds = whole
    for point in side:
        if point.verdict == whole.verdict:
            holds = point
            continue
        breaks = point
        while abs(breaks.shift - holds.shift) > NEAR:
            middle = world(kind, (holds.shift + breaks.shift) / 2)
            holds, breaks = (middle, breaks) if middle.verdict == whole.verdict else (holds, middle)
        names = {(r.rule, r.status) for r in holds.rules} ^ {(r.rule, r.status) for r in breaks.rules}
        return Flip(kind, holds.shift, breaks.shift, breaks.verdict, tuple(sorted({name for name, _ in names})))
    return None
