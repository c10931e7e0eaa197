"""Budgets (spec 3.7) settled by the ledger against a loop over rows that keeps money in fractions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bidsim.replay.budget import Ledger, Rows, Settled
from bidsim.replay.limits import Limits, Pace, nano

BILLION = 10**9  # one CPM
MONEY = st.one_of(
    st.integers(0, 12).map(lambda x: x * BILLION),  # few distinct prices: ties, and budgets that they fill exactly
    st.integers(0, 5 * BILLION),
    st.sampled_from([0, 1, 2**62, 8_999_999_999_999_999_999]),
)
LIMITS = st.one_of(
    st.integers(0, 40).map(lambda x: x / 1000),  # in currency: as many whole CPM prices
    st.sampled_from([0.0, -1.0, 1e-12, 0.0005, 3.0, 1e7, 1e15, float("inf"), float("nan")]),
)


@dataclass(frozen=True)
class Row:
    """One row of one policy. bid, price: 1e-9 CPM times weight; limit: currency; elapsed: minutes, None: no pacing."""

    new: bool
    bids: bool
    bid: int
    price: int
    limit: float
    first_price: bool
    elapsed: int | None = None


@st.composite
def logs(draw: st.DrawFn, *, one_limit: bool) -> list[Row]:
    rows = draw(
        st.lists(st.builds(Row, st.booleans(), st.booleans(), MONEY, MONEY, LIMITS, st.booleans()), max_size=40)
    )
    if not one_limit:
        return rows
    limit, fixed = 0.0, []
    for row in rows:
        limit = row.limit if row.new or not fixed else limit
        fixed.append(Row(row.new, row.bids, row.bid, row.price, limit, row.first_price))
    return fixed


SPAN = 60


def paced(rows: list[Row], minutes: list[int]) -> list[Row]:
    """The rows with minutes of the hour that never go back within a group."""
    out: list[Row] = []
    for row, minute in zip(rows, minutes, strict=False):
        before = 1 if row.new or not out else out[-1].elapsed or 1
        out.append(replace(row, elapsed=min(SPAN, before + minute)))
    return out


def settle(rows: list[Row], sizes: list[int], *, never: bool, strict: bool) -> Settled:
    """The ledger over batches of the given sizes."""
    return settle_all([rows], sizes, never=never, strict=strict)[0]


def settle_all(policies: list[list[Row]], sizes: list[int], *, never: bool, strict: bool) -> list[Settled]:
    """Several policies' rows of one log, in one ledger."""
    ledger = Ledger(len(policies), never=never, strict=strict)
    rows = policies[0]
    parts, begin = [], 0
    for size in [*sizes, len(rows)]:
        batch = rows[begin : begin + size]
        if not batch:
            continue
        starts = [r.new or (begin == 0 and i == 0) for i, r in enumerate(batch)]
        pace = None
        if batch[0].elapsed is not None:
            pace = Pace(np.array([r.elapsed for r in batch], dtype=np.int64), np.full(len(batch), SPAN))
        limits = Limits(np.array([r.limit for r in batch]), pace)
        mine = [policy[begin : begin + size] for policy in policies]
        parts.append(ledger.settle(np.array(starts), limits, [as_rows(m, strict) for m in mine]))
        begin += len(batch)
    return [
        Settled(*(np.concatenate([getattr(p[i], f) for p in parts]) for f in Settled.__dataclass_fields__))
        for i in range(len(policies))
    ]


def as_rows(batch: list[Row], strict: bool) -> Rows:
    return Rows(
        bids=np.array([r.bids for r in batch]),
        wins=np.array([r.bids and (r.bid > r.price if strict else r.bid >= r.price) for r in batch]),
        pay=np.array([r.bid if r.first_price else r.price for r in batch], dtype=np.int64),
        bar=np.array([r.price for r in batch], dtype=np.int64),
        first_price=np.array([r.first_price for r in batch]),
    )


def naive(rows: list[Row], *, never: bool, strict: bool) -> list[tuple[bool, bool, Fraction]]:
    """(entered, won, paid in 1e-9 CPM) of each row, as the spec says it."""
    spent, out = Fraction(0), []
    for row in rows:
        if row.new:
            spent = Fraction(0)
        if np.isnan(row.limit) or row.limit == -np.inf:
            out.append((False, False, Fraction(0)))
            continue
        # No purchase passes an infinite budget. A budget is whole units of 1e-12 currency.
        budget = Fraction(10**40) if np.isinf(row.limit) else Fraction(round(Fraction(str(row.limit)) * 10**12))
        left = budget - spent
        released = budget if row.elapsed is None else budget * row.elapsed / SPAN
        if not row.bids or spent >= released:
            out.append((False, False, Fraction(0)))
            continue
        bid = min(Fraction(row.bid), left) if never else Fraction(row.bid)
        won = bid > row.price if strict else bid >= row.price
        paid = (bid if row.first_price else Fraction(row.price)) if won else Fraction(0)
        spent += paid
        out.append((True, won, paid))
    return out


def check(rows: list[Row], sizes: list[int], never: bool, strict: bool) -> None:
    found = settle(rows, sizes, never=never, strict=strict)
    got = list(zip(found.entered.tolist(), found.won.tolist(), map(Fraction, found.paid.tolist()), strict=True))
    assert got == naive(rows, never=never, strict=strict)


SIZES = st.lists(st.integers(1, 15), max_size=6)
HUGE = [Row(False, True, 2**62, 2**62, limit, False) for limit in (1e15, float("inf")) for _ in range(4)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(logs(one_limit=True), SIZES, st.booleans(), st.booleans())
@example(HUGE[:4], [2], False, False)
@example(HUGE[4:], [2], True, True)
def test_the_ledger_is_a_loop_over_rows(rows: list[Row], sizes: list[int], never: bool, strict: bool) -> None:
    if rows:
        check(rows, sizes, never, strict)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(logs(one_limit=False), SIZES, st.booleans(), st.booleans())
def test_a_budget_that_changes_within_its_period_is_the_same_loop(
    rows: list[Row], sizes: list[int], never: bool, strict: bool
) -> None:
    if rows:
        check(rows, sizes, never, strict)


MINUTES = st.lists(st.sampled_from([0, 0, 1, 3, 20]), min_size=40, max_size=40)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(logs(one_limit=False), MINUTES, SIZES, st.booleans(), st.booleans())
@example(HUGE[:4], [30] * 4, [2], False, False)
@example(HUGE[4:], [7] * 4, [2], True, True)
def test_even_pacing_is_the_same_loop_with_a_budget_that_grows_by_the_minute(
    rows: list[Row], minutes: list[int], sizes: list[int], never: bool, strict: bool
) -> None:
    if rows:
        check(paced(rows, minutes), sizes, never, strict)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logs(one_limit=True), st.lists(MONEY, min_size=40, max_size=40), MINUTES, SIZES, st.booleans(), st.booleans())
def test_policies_settled_together_are_settled_as_each_alone(
    rows: list[Row], other: list[int], minutes: list[int], sizes: list[int], never: bool, even: bool
) -> None:
    if not rows:
        return
    rows = paced(rows, minutes) if even else rows
    second = [replace(row, bid=bid) for row, bid in zip(rows, other, strict=False)]
    for found, alone in zip(settle_all([rows, second], sizes, never=never, strict=False), (rows, second), strict=True):
        expected = settle(alone, [], never=never, strict=False)
        for field in ("entered", "won", "paid", "short"):
            assert (getattr(found, field) == getattr(expected, field)).all(), field


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logs(one_limit=True), MINUTES, st.booleans())
def test_short_are_wins_that_all_of_the_budget_could_not_pay(rows: list[Row], minutes: list[int], never: bool) -> None:
    if not rows:
        return
    rows = paced(rows, minutes)
    found = settle(rows, [], never=never, strict=False)
    spent = 0
    for i, row in enumerate(rows):
        spent = 0 if row.new or i == 0 else spent
        budget = 10**40 if row.limit == np.inf else 0 if np.isnan(row.limit) else nano(row.limit)
        beats = row.bids and row.bid >= row.price
        enough = budget - spent >= max(1, row.price) if never else budget - spent > 0
        assert bool(found.short[i]) == (beats and not enough)
        spent += int(found.paid[i])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_long_groups_are_settled_as_the_loop_goes(
    seed: int, never: bool, strict: bool, first_price: bool, even: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = 3000
    bids, prices = (rng.gamma(1.0, 2.0, (2, n)) * BILLION).astype(np.int64).tolist()
    limit = float(rng.choice([0.5, 1.0, 2.5]))
    rows = [
        Row(i % 1700 == 0, bool(rng.random() < 0.9), bids[i], prices[i], limit, first_price and i % 3 > 0)
        for i in range(n)
    ]
    check(paced(rows, [int(i % 40 == 0) for i in range(n)]) if even else rows, [1000, 1, 999], never, strict)


def test_many_groups_are_settled_side_by_side_as_the_loop_goes() -> None:
    rng = np.random.default_rng(7)
    n = 6000
    for never, first_price, even in (
        (False, False, True),
        (True, False, True),
        (True, True, True),
        (True, True, False),
    ):
        bids, prices = (rng.gamma(1.0, 2.0, (2, n)) * BILLION).astype(np.int64).tolist()
        rows = [
            Row(i % 60 == 0, bool(rng.random() < 0.9), bids[i], prices[i], 0.03, first_price and i % 3 > 0)
            for i in range(n)
        ]
        check(paced(rows, [int(i % 2 == 0) for i in range(n)]) if even else rows, [], never, False)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logs(one_limit=True), st.booleans())
def test_never_stays_within_the_budget_and_last_win_passes_it_by_one_win(rows: list[Row], strict: bool) -> None:
    if not rows:
        return
    for never in (True, False):
        found = settle(rows, [], never=never, strict=strict)
        group, spent, last = -1, 0, 0
        for i, row in enumerate(rows):
            if row.new or i == 0:
                group, spent, last = group + 1, 0, 0
            spent += int(found.paid[i])
            last = int(found.paid[i]) or last
            limit = row.limit
            if not np.isfinite(limit):
                continue
            assert spent <= max(0, nano(limit)) + (0 if never else last)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logs(one_limit=False), logs(one_limit=False), logs(one_limit=False), st.booleans(), st.booleans(), MINUTES)
def test_what_comes_later_changes_no_decision(
    past: list[Row], future: list[Row], other: list[Row], never: bool, strict: bool, minutes: list[int]
) -> None:
    if not past:
        return
    if minutes[0]:
        past, future, other = (paced(rows, minutes) for rows in (past, future, other))
    one = settle(past + future, [], never=never, strict=strict)
    two = settle(past + other, [], never=never, strict=strict)
    for field in ("entered", "won", "paid", "short"):
        assert (getattr(one, field)[: len(past)] == getattr(two, field)[: len(past)]).all(), field
    modest = np.array([row.limit <= 3 for row in past])  # money left is exact up to what 64 bits hold
    assert (one.left[: len(past)][modest] == two.left[: len(past)][modest]).all()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 10**15 - 1), st.integers(0, 12))
@example(3, 1)
@example(869561, 2)
def test_a_decimal_amount_of_money_is_exactly_as_many_units(digits: int, places: int) -> None:
    assert nano(float(f"{digits}e-{places}")) == digits * 10 ** (12 - places)
