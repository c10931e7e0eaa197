"""Percentiles, bands and win rates by price against plain computations on the values themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta, binom

from bidsim.statistics.prices import (
    CELLS,
    COUNTED,
    EDGES,
    FATES,
    LOST,
    NO_BID,
    PRICE_BUCKETS,
    UNSEEN,
    Bands,
    ByPrice,
    Prices,
    cells_of,
    density,
    quantiles,
)

CELL = 1.125  # an eighth of an octave is at most so wide


def counts(values: np.ndarray) -> np.ndarray:
    return np.bincount(cells_of(values), minlength=CELLS).astype(np.float64)


def table(price: np.ndarray, bids: list[np.ndarray], bucket: np.ndarray, seen: np.ndarray | None = None) -> Prices:
    """From rows whose prices are all known; a bid of NaN is none."""
    fates = np.zeros((len(bids), len(FATES), PRICE_BUCKETS, CELLS))
    for policy, bid in enumerate(bids):
        won = np.where(seen if seen is not None else True, COUNTED, UNSEEN)
        fate = np.where(np.isnan(bid), NO_BID, np.where(bid >= price, won, LOST))
        np.add.at(fates[policy], (fate, bucket, cells_of(price)), 1.0)
    entered = np.array([counts(b[~np.isnan(b)]) for b in bids])
    return Prices(fates, entered, np.array([[0.0, 0.0], [0.0, len(price)]]), EDGES)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261127)


def test_percentiles_are_those_of_the_values_to_a_cell(rng: np.random.Generator) -> None:
    values = np.exp(rng.normal(4.0, 1.2, 20_000))
    at = (0.1, 0.25, 0.5, 0.75, 0.9)
    found = quantiles(counts(values), EDGES, at)
    assert found == pytest.approx(np.quantile(values, at), rel=0.02)
    assert quantiles(counts(np.zeros(3)), EDGES, [0.5]).tolist() == [0.0]
    assert np.isnan(quantiles(np.zeros(CELLS), EDGES, [0.5])).all()
    # Of one value: within its own cell.
    (alone,) = quantiles(counts(np.full(5, 3.3)), EDGES, [0.99])
    assert 3.25 <= alone <= 3.5


def test_the_density_is_a_share_per_doubling(rng: np.random.Generator) -> None:
    middle, share = density(counts(2 ** rng.uniform(3.0, 5.0, 100_000)), EDGES)
    inside = (middle > 8) & (middle < 32)
    assert share[inside] == pytest.approx(0.5, rel=0.05)
    assert not share[~inside].any()
    with_zeros = counts(np.array([0.0, 1.0]))
    assert density(with_zeros, EDGES)[1].max() == pytest.approx(0.5 / np.log2(CELL))
    # Whole numbers from 4 upwards have no gaps between them in stretches of two cells.
    whole = counts(np.repeat(np.arange(4.0, 8.0), 5))
    middle, share = density(whole, EDGES, 2)
    assert (share[(middle > 4) & (middle < 8)] > 0).all()
    assert (share > 0).sum() == 4
    assert share.max() == pytest.approx(0.25 / np.log2(8 / 7))


def test_bands_hold_every_price_once_and_about_as_many_each(rng: np.random.Generator) -> None:
    price = np.exp(rng.normal(2.0, 1.0, 5000))
    bands = Bands.of(table(price, [price], rng.integers(0, 64, 5000)), 10)
    assert bands is not None
    assert len(bands.share) == 10
    assert bands.share.sum() == pytest.approx(1.0)
    assert bands.share == pytest.approx(0.1, abs=0.04)
    assert (bands.low[1:] == bands.high[:-1]).all()
    assert bands.low[0] <= price.min()
    assert bands.high[-1] >= price.max()
    for low, high, middle, share in zip(bands.low, bands.high, bands.middle, bands.share, strict=True):
        inside = price[(price >= low) & (price < high)]
        assert len(inside) / 5000 == pytest.approx(share)
        assert middle == pytest.approx(np.median(inside), rel=CELL - 1)


@pytest.mark.parametrize("values", [[2.0], [2.0, 9.0], [0.0, 2.0, 9.0, 9.0], [0.0]])
def test_few_different_prices_are_fewer_bands(values: list[float]) -> None:
    price = np.array(values)
    bands = Bands.of(table(price, [price], np.zeros(len(price), dtype=np.int64)), 10)
    assert bands is not None
    assert len(bands.share) == len(set(values))
    assert bands.share.tolist() == [values.count(v) / len(values) for v in sorted(set(values))]
    assert Bands.of(table(price[:0], [price[:0]], np.zeros(0, dtype=np.int64)), 10) is None


def test_a_win_rate_is_wins_by_bids_and_the_change_is_paired(rng: np.random.Generator) -> None:
    n = 40_000
    price, noise = np.exp(rng.normal(3.0, 1.0, n)), rng.normal(3.0, 1.0, n)
    base = np.where(rng.random(n) < 0.1, np.nan, np.exp(noise))
    candidate = np.exp(noise + 0.1 * rng.normal(size=n))
    seen = rng.random(n) < 0.5
    prices = table(price, [base, candidate], rng.integers(0, 64, n), seen)
    assert prices.unseen
    bands = Bands.of(prices, 10)
    assert bands is not None
    by_price = ByPrice(prices, bands, 0.95, n, 1.0)
    ours, theirs, change = by_price.rates(0), by_price.rates(1), by_price.change(1)
    for at, (low, high) in enumerate(zip(bands.low, bands.high, strict=True)):
        inside = (price >= low) & (price < high)
        for rates, bid in ((ours, base), (theirs, candidate)):
            mine = inside & ~np.isnan(bid)
            bids, wins = mine.sum(), (bid[mine] >= price[mine]).sum()
            assert rates.value[at] == pytest.approx(wins / bids)
            # Rows that have nothing in common: the interval is about the binomial one.
            width = 2 * 1.96 * np.sqrt(rates.value[at] * (1 - rates.value[at]) / bids)
            assert rates.high[at] - rates.low[at] == pytest.approx(width, rel=0.35)
            assert 0 <= rates.low[at] < rates.value[at] < rates.high[at] <= 1
        assert change.value[at] == pytest.approx(theirs.value[at] - ours.value[at])
        assert change.low[at] < change.value[at] < change.high[at]
    apart = np.hypot(ours.high - ours.low, theirs.high - theirs.low)
    assert ((change.high - change.low) < 0.6 * apart).all()


def test_intervals_hold_what_they_promise(rng: np.random.Generator) -> None:
    """Units of 20 rows that bid alike: intervals by rows would be far too narrow."""
    held, tried = 0, 0
    for _ in range(150):
        unit = np.repeat(np.arange(300), 20)
        price = np.exp(rng.normal(2.0, 0.5, 6000))
        bid = np.exp(2.0 + 0.8 * rng.normal(size=300))[unit]
        prices = table(price, [bid], unit % 64)
        bands = Bands.of(prices, 3)
        assert bands is not None
        found = ByPrice(prices, bands, 0.95, 300, 1.0).rates(0)
        from scipy.stats import norm

        for at in range(3):
            inside = price[(price >= bands.low[at]) & (price < bands.high[at])]
            truth = norm.sf(np.log(inside), 2.0, 0.8).mean()
            held += bool(found.low[at] <= truth <= found.high[at])
            tried += 1
    assert binom.cdf(held, tried, 0.95) > 1e-3
    assert held / tried > 0.92


def test_where_all_bids_win_it_is_said_how_many_may_not(rng: np.random.Generator) -> None:
    price = np.full(500, 2.0)
    prices = table(price, [price, np.full(500, np.nan)], rng.integers(0, 64, 500))
    bands = Bands.of(prices, 10)
    assert bands is not None
    by_price = ByPrice(prices, bands, 0.95, 500, 1.0)
    rates = by_price.rates(0)
    assert (rates.value[0], rates.high[0]) == (1.0, 1.0)
    # Clopper and Pearson, two-sided, of 500 of 500.
    assert rates.low[0] == pytest.approx(beta.ppf(0.025, 500, 1), abs=1e-4)
    # Who never bids has no rate, and no change.
    assert np.isnan(by_price.rates(1).value).all()
    assert np.isnan(by_price.change(1).value).all()
    assert np.isnan(by_price.change(1).low).all()


def test_rows_that_all_weigh_the_same_say_as_much_as_without_weights(rng: np.random.Generator) -> None:
    price = np.exp(rng.normal(2.0, 1.0, 3000))
    bids = [np.exp(rng.normal(3.5, 1.0, 3000)), np.full(3000, 1e6)]
    prices = table(price, bids, rng.integers(0, 64, 3000))
    heavy = replace(prices, fates=prices.fates * 4, bids=prices.bids * 4, known=prices.known * 4)
    for found, weight in ((prices, 1.0), (heavy, 4.0)):
        bands = Bands.of(found, 10)
        assert bands is not None
        by_price = ByPrice(found, bands, 0.95, 3000, weight)
        each = [by_price.rates(0), by_price.rates(1), by_price.change(1)]
        numbers = np.array([[r.value, r.low, r.high] for r in each])
        if weight == 1.0:
            expected = numbers
    assert numbers == pytest.approx(expected, rel=1e-12, nan_ok=True)
    # All bids of the second win: its interval knows how many rows that are.
    assert (numbers[1, 1] < 1).all()
