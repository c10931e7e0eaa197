"""Bids and prices: how both are spread, and what part of its bids a policy wins at which price.

From the counts by price that the run's statistics keep: the log is not read again. What the log has no price of is in
none of it, which the page says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from bidsim.report import format as f
from bidsim.report.drawing import Sketch
from bidsim.report.frame import Axis, Frame, steps
from bidsim.report.knowledge import Plain
from bidsim.report.lookup import Lookup
from bidsim.report.plots import CANDIDATES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bidsim.statistics.prices import Bands, ByPrice, Prices, WinRates
    from bidsim.statistics.tables import Tables

    Floats = npt.NDArray[np.float64]

BANDS = 10
PARTS = (0.1, 0.25, 0.5, 0.75, 0.9)
# Of each distribution so much at either end has no place on the axis.
OUTSIDE = 0.002
APART = 0.015  # of the axis
# An axis of more decades is drawn in stretches of two cells.
COARSE = 1.2
# No curve is drawn so many times lower than the picture is high: constant bids are all in one stretch.
TALLEST = 2.5


Written = tuple[str, str]  # a value and its interval, empty without one


@dataclass(frozen=True)
class Line:
    """A band of prices: its ends, its share of the known ones, and the win rates of baseline and candidate and the change."""

    price: str
    share: str
    cells: list[Written]


@dataclass(frozen=True)
class BidsAndPrices:
    """said: what they say in a sentence each; spread: percentiles of bids and prices; rates: by
    candidate, its win rates by price beside the baseline's; notes: what is not in them."""

    figures: list[Sketch]
    said: list[str]
    spread: Plain
    rates: list[tuple[str, list[Line]]]
    notes: list[str]


@dataclass(frozen=True)
class _Rated:
    """change: against the baseline; None of the baseline."""

    name: str
    rates: WinRates
    change: WinRates | None


def bids_and_prices(lookup: Lookup, tables: Tables | None) -> BidsAndPrices | None:
    """None without the run's statistics, or those of an older version, or where there is neither a bid nor a price."""
    if tables is None or tables.prices is None:
        return None
    from bidsim.statistics.prices import Bands, ByPrice, quantiles
    from bidsim.statistics.tallies import OVERALL

    prices, names = tables.prices, tables.outline.policies
    if not (prices.bids.any() or prices.fates.any()):
        return None
    bands = Bands.of(prices, BANDS)
    drawn = range(min(len(names), CANDIDATES + 1))
    x = _axis([prices.priced, *(prices.bids[i] for i in drawn)], prices.edges, lookup)
    figures, cut = [], False
    if x is not None:
        picture, cut = _spread_picture(prices, x, drawn)
        alone = "Bids, and known prices (shaded)" if bands is not None else "Bids"
        figures.append(Sketch("bids-and-prices", "Bids and known prices", Markup(picture), alone))
    rated: list[_Rated] = []
    if bands is not None:
        weight = float(tables.families[OVERALL].row_weight[0])
        by_price = ByPrice(prices, bands, lookup.confidence, tables.outline.units, weight)
        rated = [_rated(by_price, i, name) for i, name in enumerate(names)]
        if x is not None:
            rates_picture = _rates_picture(bands, [rated[i] for i in drawn], x)
            figures.append(Sketch("win-rate-by-price", _title(prices), Markup(rates_picture)))
    known = quantiles(prices.priced, prices.edges, PARTS) if bands is not None else None
    bids = [(names[i], quantiles(b, prices.edges, PARTS)) for i, b in enumerate(prices.bids) if b.any()]
    lines = [*([("Known prices", known)] if known is not None else []), *((f"Bids of {name}", v) for name, v in bids)]
    spread = Plain(["", *(f"{part:.0%} lie below" for part in PARTS)], [[name, *map(_cpm, v)] for name, v in lines])
    said = [_medians(known, bids[: sum(bool(prices.bids[i].any()) for i in drawn)])]
    if bands is not None and rated:
        said.append(_dearest(bands, [rated[i] for i in drawn], won_only=_won_only(prices)))
    rates = [(one.name, _rates(bands, rated[0], one)) for one in rated[1:] if bands is not None]
    return BidsAndPrices(figures, said, spread, rates, _notes(lookup, prices, cut=cut))


def _rated(by_price: ByPrice, policy: int, name: str) -> _Rated:
    return _Rated(name, by_price.rates(policy), by_price.change(policy) if policy else None)


def _cpm(value: float) -> str:
    return f.significant(value, 3)


def _band(bands: Bands, at: int) -> str:
    return f"{_cpm(bands.low[at])} to {_cpm(bands.high[at])}"


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    """Nothing where there is no interval, or none that says anything."""
    known = math.isfinite(low) and math.isfinite(high) and low < high
    return (float(low), float(high)) if known else (None, None)


def _points(value: float | None) -> str:
    # What rounds to nothing has no sign.
    return f.delta(None if value is None else round(100 * value, 1), 1)


def _rate(rates: WinRates, at: int) -> Written:
    return f.share(float(rates.value[at])), f.interval(*_ends(rates.low[at], rates.high[at]), f.share)


def _change(change: WinRates, at: int) -> Written:
    value = float(change.value[at])
    if not math.isfinite(value):
        return f.DASH, ""
    return f"{_points(value)} pt", f.interval(*_ends(change.low[at], change.high[at]), _points)


def _rates(bands: Bands, base: _Rated, one: _Rated) -> list[Line]:
    assert one.change is not None
    return [
        Line(
            _band(bands, at),
            f.share(float(bands.share[at])),
            [_rate(base.rates, at), _rate(one.rates, at), _change(one.change, at)],
        )
        for at in range(len(bands.share))
    ]


def _together(written: Written) -> str:
    return " ".join(written).rstrip()


def _medians(known: Floats | None, bids: Sequence[tuple[str, Floats]]) -> str:
    """known, and of each policy that bids: percentiles, as PARTS has them."""
    at = PARTS.index(0.5)
    words = [f"{'bids of ' if i == 0 else 'of '}{f.clean_name(name)} {_cpm(v[at])}" for i, (name, v) in enumerate(bids)]
    prices = [f"known prices {_cpm(known[at])}"] if known is not None else []
    return f"Medians, per 1000 impressions: {'; '.join([*prices, ', '.join(words)] if words else prices)}."


def _dearest(bands: Bands, rated: Sequence[_Rated], *, won_only: bool) -> str:
    """What the policies win where prices are highest. won_only: whether these are auctions that the log won."""
    last = len(bands.share) - 1
    texts: list[str] = []
    for one in rated:
        name, bid = f.clean_name(one.name), math.isfinite(one.rates.value[last])
        of = " of its bids" if not texts else ""
        text = f"{name} wins {_together(_rate(one.rates, last))}{of}" if bid else f"{name} does not bid"
        if one.change is not None and bid and one.change.value[last]:
            text += f", {_together(_change(one.change, last))}"
        texts.append(text)
    share = f.share(float(bands.share[last]))
    where = "Of the auctions that the log won, where prices were highest" if won_only else "Where prices are highest"
    return f"{where} ({_band(bands, last)}, {share} of the known ones), {'; '.join(texts)}."


def _won_only(prices: Prices) -> bool:
    """Whether the log has no price of any auction that it did not win, and there are such."""
    return bool(prices.known[0, 0] > 0 and prices.known[0, 1] == 0)


def _title(prices: Prices) -> str:
    return "Of auctions the log won: bids that win, by price" if _won_only(prices) else "Bids that win, by price"


def _notes(lookup: Lookup, prices: Prices, *, cut: bool) -> list[str]:
    (lost_open, lost_priced), (won_open, won_priced) = prices.known.tolist()
    total = lost_open + lost_priced + won_open + won_priced
    notes = ["Peaks are cut where they would hide the rest."] if cut else []
    if _won_only(prices):
        notes.append(
            f"This log knows the price of {f.share((lost_priced + won_priced) / total)} of its rows, and of none that it "
            "lost: these are the prices of auctions that production’s bids won, and what part of the others a bid would "
            "win is not known."
        )
    elif lost_open + won_open > 0:
        won = (
            [f"{f.share(won_priced / (won_priced + won_open))} of the auctions it won"] if won_priced + won_open else []
        )
        lost = [f"{f.share(lost_priced / (lost_priced + lost_open))} of the others"] if lost_priced + lost_open else []
        notes.append(f"This log knows the price of {f.listed([*won, *lost])}; rows without one are in no price here.")
    if prices.priced[0] > 0:
        notes.append(
            f"{f.share(float(prices.priced[0] / prices.priced.sum()))} of the known prices are 0, which has no place on a "
            "logarithmic axis."
        )
    if prices.unseen:
        notes.append(
            "A win counts here whether or not the log shows what it brought; the win rate above counts those it shows."
        )
    budget = lookup.result.scenario.get("budget")
    if isinstance(budget, dict):
        before = ", as they were before it cut them to the money left" if budget.get("overspend") == "never" else ""
        notes.append(
            f"Bids are those that the budget let enter{before}; intervals take the course of the budget as given."
        )
    return notes


def _axis(distributions: Sequence[Floats], edges: Floats, lookup: Lookup) -> Axis | None:
    """The logarithm of what all of them reach, but for little at both ends."""
    from bidsim.statistics.prices import quantiles

    ends = [quantiles(d[1:], edges[1:], (OUTSIDE, 1 - OUTSIDE)) for d in distributions if d[1:].any()]
    # What lies in the lowest cell of these has an end of 0: take the cell's own.
    known = [max(float(v), float(edges[1])) for pair in ends for v in pair]
    if not known:
        return None
    low, high = math.log10(min(known)), math.log10(max(known))
    middle = (low + high) / 2
    low, high = min(low, middle - 0.3) - 0.05, max(high, middle + 0.3) + 0.05
    title = f"CPM in {lookup.money.code}" if lookup.money.code else "CPM"
    return Axis(low, high, _ticks(low, high), f"{title}, logarithmic")


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """At 1, 2 and 5 times powers of ten, or at these alone where there are many."""
    span = high - low
    factors = (1, 2, 5) if span < 2 else (1, 3) if span < 3.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1, max(1, math.ceil(span / 8)))
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [(math.log10(v), f.significant(v, 1)) for v in values if low <= math.log10(v) <= high]


def _curve(weights: Floats, edges: Floats, x: Axis) -> list[tuple[float, float]]:
    from bidsim.statistics.prices import density

    # Whole units from 4 upwards then fill stretches of their own without gaps.
    middle, share = density(weights, edges, 2 if x.high - x.low > COARSE and (len(edges) - 2) % 2 == 0 else 1)
    points = [(math.log10(m), float(s)) for m, s in zip(middle, share, strict=True)]
    return [(at, s) for at, s in points if x.low <= at <= x.high]


def _spread_picture(prices: Prices, x: Axis, drawn: range) -> tuple[str, bool]:
    """(the picture, whether peaks are cut)."""
    from bidsim.statistics.prices import quantiles

    known = _curve(prices.priced, prices.edges, x) if prices.priced.any() else []
    curves = {i: _curve(prices.bids[i], prices.edges, x) for i in drawn if prices.bids[i].any()}
    peaks = [peak for c in (known, *curves.values()) if (peak := max((s for _, s in c), default=0.0)) > 0]
    top = min(1.05 * max(peaks), TALLEST * min(peaks)) if peaks else 1.0
    ticks = [(t, f"{100 * t:g}%") for t in steps(0.0, top)]
    frame = Frame(x, Axis(0.0, top, ticks, "share per doubling of CPM"))
    if known:
        frame.area(known)
    for series, points in curves.items():
        frame.line(points, series)
        (half,) = quantiles(prices.bids[series], prices.edges, [0.5])
        if half > 0 and x.low <= math.log10(half) <= x.high:
            frame.mark(frame.across(math.log10(half)), frame.up(0.0), series)
    described = (
        "How each policy’s bids and the known prices are spread over CPM, one line a policy, the prices shaded; marks are "
        "the medians of bids. Percentiles follow as a table."
    )
    return frame.svg(described), bool(peaks) and max(peaks) > top


def _rates_picture(bands: Bands, rated: Sequence[_Rated], x: Axis) -> str:
    ticks: list[tuple[float, str]] = [(n / 5, f"{20 * n}%") for n in range(6)]
    frame = Frame(x, Axis(0.0, 1.0, ticks, "share of its bids that win"))
    places = [math.log10(m) if m > 0 else x.low for m in bands.middle]
    for series, one in enumerate(rated):
        # Side by side, so that no mark hides another.
        aside = (series - (len(rated) - 1) / 2) * APART * (x.high - x.low)
        known = [at for at in range(len(places)) if math.isfinite(one.rates.value[at])]
        if known:
            frame.line([(places[at] + aside, float(one.rates.value[at])) for at in known], series)
        for at in known:
            across = frame.across(places[at] + aside)
            low, high = _ends(one.rates.low[at], one.rates.high[at])
            if low is not None and high is not None:
                frame.interval(across, low, high, series)
            frame.mark(across, frame.up(float(one.rates.value[at])), series)
    return frame.svg(
        f"The share of its bids that each policy wins, by the price of the auction, in {len(places)} stretches that hold as "
        "many known prices each, with intervals. The numbers follow as a table."
    )
