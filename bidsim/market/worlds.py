"""Markets whose truth is known, with a knob for each thing that misleads a replay, and the logs they leave.

A world has a baseline and candidates that predict with errors of their own. `World.live` says what each of them would
really bring: what a long A/B test in this market would show. `World.write` leaves the log that the DSP would have, and
`World.scenario` how a team that knows its market would replay it. A crowd is one draw of users and days from the same
market, so many crowds show how far numbers from one log scatter around the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bidsim.market.live import Day, Rules, run_live
from bidsim.market.market import CAMPAIGNS, CPA, SEED, Acts, Floats, Market, Opportunities

FIRST_DAY = date(2026, 11, 2)
WINDOW_HOURS = 24  # in which a conversion counts, where conversions come late
EXPLORING_BID = 50_000.0
_SPOTS = 40
_MICROS = 1_000_000
# How far each policy's click predictions are off, as standard deviations of logits: by spot, and by audience.
POLICIES = {"baseline": (0.55, 0.4), "better": (0.15, 0.1), "worse": (0.95, 0.75)}
CANDIDATES = tuple(name for name in POLICIES if name != "baseline")


@dataclass(frozen=True)
class Knobs:
    """What makes a log hard, each off by default.

    first_price: a win pays its own bid. logger: who bid in the log: someone who wins everything, or the baseline, which
    wins what it thinks good. prices: of which auctions the log knows the price. budget: of each campaign and day, as a
    share of what the baseline would spend. campaigns: of the DSP's own that compete for each request. kept: the share
    of the rows of every second campaign that is in the log. reaction: how others' prices follow our bids. delay_hours:
    mean time from click to conversion, from a third to five thirds by campaign; those after `WINDOW_HOURS` don't count,
    and the log ends with its last day.
    """

    first_price: bool = False
    logger: Literal["everything", "baseline"] = "everything"
    prices: Literal["all", "won", "none"] = "all"
    budget: float | None = None
    pacing: Literal["asap", "even"] = "asap"
    campaigns: int = 1
    kept: float = 1.0
    reaction: float = 0.0
    delay_hours: float = 0.0


@dataclass(frozen=True)
class Totals:
    """What a policy brings: impressions, currency, and expected clicks and conversions."""

    wins: float
    spend: float
    clicks: float
    conversions: float

    @property
    def cpa(self) -> float:
        return self.spend / self.conversions

    @property
    def cpc(self) -> float:
        return self.spend / self.clicks


@dataclass(frozen=True)
class Size:
    """Of one log. users; days; requests a day."""

    users: int = 2_000
    days: int = 3
    requests: int = 20_000


class World:
    """One draw of users and days from a market. Equal arguments give an equal world."""

    def __init__(self, knobs: Knobs, size: Size | None = None, *, seed: int = SEED, crowd: int = 0) -> None:
        self.knobs, self.size, self._seed, self._crowd = knobs, size or Size(), seed, crowd
        self._market = Market(seed, users=self.size.users, crowd=crowd, click_logit=-2.9, conversion_logit=-1.3)

    @cached_property
    def days(self) -> list[Opportunities]:
        dates = [FIRST_DAY + timedelta(days=n) for n in range(self.size.days)]
        return [self._market.opportunities(day, self.size.requests, self.knobs.campaigns) for day in dates]

    def predictions(self, policy: str, auctions: Opportunities) -> tuple[Floats, Floats]:
        """(pctr, pcvr) as float32, shape (rows,): the truth without the user, bent by the policy's own errors."""
        place = list(POLICIES).index(policy)
        draw = np.random.Generator(np.random.PCG64([self._seed, 7, place]))
        by_spot, by_audience = (
            draw.normal(0, spread, (len(CAMPAIGNS), size))
            for spread, size in zip(POLICIES[policy], (_SPOTS, 8), strict=True)
        )
        errors = by_spot[auctions.campaign, auctions.spot] + by_audience[auctions.campaign, auctions.audience]
        shrink = sum(spread**2 for spread in POLICIES[policy]) / 2
        logit = np.log(auctions.ctr / (1 - auctions.ctr)) - self._market.user_logits[auctions.user]
        pctr = 1 / (1 + np.exp(-(logit + errors - shrink)))
        pcvr = auctions.cvr * 0.7 + auctions.cvr.mean() * 0.3
        return pctr.astype(np.float32), pcvr.astype(np.float32)

    def bids(self, policy: str, auctions: Opportunities) -> Floats:
        """Per 1000 impressions, shape (rows,), in the order of the default formula for CPA."""
        pctr, pcvr = self.predictions(policy, auctions)
        bid = 1000.0 * _targets()[auctions.campaign] * pctr.astype(np.float64) * pcvr.astype(np.float64)
        return np.asarray(bid, dtype=np.float64)

    def live(self, policy: str, budgets: Floats | None = None) -> Totals:
        """What the policy would really bring on these days, with everything that a log doesn't show.

        budgets: currency a campaign and day, by default the market's own (`daily_budgets`) where the knob is on.
        """
        won, spend, clicks, conversions = 0.0, 0.0, 0.0, 0.0
        for auctions in self.days:
            wins, cost = self._run(policy, auctions, budgets)
            clicked = auctions.ctr[wins]
            won, spend, clicks = won + wins.sum(), spend + cost.sum(), clicks + clicked.sum()
            conversions += (clicked * auctions.cvr[wins] * self._in_time(auctions)[wins]).sum()
        return Totals(float(won), float(spend), float(clicks), float(conversions))

    def spend_by_campaign(self, policy: str) -> Floats:
        """Currency a day without budgets, by place in CAMPAIGNS."""
        total = np.zeros(len(CAMPAIGNS))
        for auctions in self.days:
            _, cost = self._run(policy, auctions, np.full(len(CAMPAIGNS), np.inf))
            total += np.bincount(auctions.campaign, weights=cost, minlength=len(CAMPAIGNS))
        return total / len(self.days)

    def _run(self, policy: str, auctions: Opportunities, budgets: Floats | None) -> tuple[Any, Floats]:
        knobs = self.knobs
        if budgets is None and knobs.budget is not None:
            budgets = daily_budgets(knobs, self.size, self._seed)
        rules = Rules(knobs.first_price, knobs.reaction, budgets, knobs.pacing)
        return run_live(_day(auctions), self.bids(policy, auctions), self.bids("baseline", auctions), rules)

    def _mean_delay(self, auctions: Opportunities) -> Floats:
        """Hours by row: campaigns differ."""
        return self.knobs.delay_hours * np.linspace(1 / 3, 5 / 3, len(CAMPAIGNS))[auctions.campaign]

    def _in_time(self, auctions: Opportunities) -> Floats:
        """The share of conversions that come within the window, by row."""
        if not self.knobs.delay_hours:
            return np.ones(len(auctions))
        return np.asarray(1 - np.exp(-WINDOW_HOURS / self._mean_delay(auctions)))

    def write(self, path: Path) -> None:
        """The log that the DSP has, as one Parquet file."""
        pq.write_table(pa.concat_tables([self._log(auctions) for auctions in self.days]), path)

    def _log(self, auctions: Opportunities) -> pa.Table:
        knobs = self.knobs
        draw = np.random.Generator(np.random.PCG64([self._seed, auctions.day.toordinal(), 1000 + self._crowd, 5]))
        if knobs.logger == "everything":
            bid = EXPLORING_BID * (1 + draw.random(len(auctions)))
        else:
            bid = self.bids("baseline", auctions)
        won, _ = run_live(_day(auctions), bid, bid, Rules(knobs.first_price))
        known = np.full(len(auctions), knobs.prices == "all") | (won & (knobs.prices == "won"))
        acts = self._acts(auctions)
        end = (np.datetime64(FIRST_DAY + timedelta(days=self.size.days), "us").astype(np.int64)) - 9 * 3600 * _MICROS
        within = acts.conversion_ts - acts.click_ts <= WINDOW_HOURS * 3600 * _MICROS
        seen = acts.conversion & ((acts.conversion_ts < end) & within if knobs.delay_hours else True)
        share = np.where(auctions.campaign % 2 == 0, knobs.kept, 1.0)
        stamp = pa.timestamp("us", tz="UTC")
        columns: dict[str, Any] = {
            "target_cpa": _targets()[auctions.campaign],
            "bid_price": bid,
            "price": pa.array(auctions.price, mask=~known),
            "is_win": won.astype(np.int8),
            "is_click": pa.array(acts.click.astype(np.int8), mask=~won),
            "cv": pa.array(seen.astype(np.int8), mask=~won),
            "click_ts": pa.array(acts.click_ts, stamp, mask=~(won & acts.click)),
            "cv_ts": pa.array(acts.conversion_ts, stamp, mask=~(won & seen)),
            "sample_weight": 1 / share,
        }
        if knobs.budget is not None:
            columns["daily_budget"] = daily_budgets(knobs, self.size, self._seed)[auctions.campaign]
        for policy in POLICIES:
            columns[f"pctr_{policy}"], columns["pcvr"] = self.predictions(policy, auctions)
        table = auctions.features()
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        return table.filter(pa.array(draw.random(len(auctions)) < share))

    def _acts(self, auctions: Opportunities) -> Acts:
        return self._market.act(auctions, self._mean_delay(auctions) if self.knobs.delay_hours else 6.0)

    def scenario(self, path: Path) -> dict[str, Any]:
        """A replay of the log at `path` that knows what there is to know of its market."""
        knobs = self.knobs
        columns = {
            "time": "ts",
            "unit": "user_id",
            "request": "request_id",
            "campaign": "ad_id",
            "price": "price",
            "bid": "bid_price",
            "won": "is_win",
            "click": "is_click",
            "conversion": "cv",
            "target_cpa": "target_cpa",
        }
        settings: dict[str, Any] = {
            "sample_type": ["imp-click"],
            "logs_tables": {"log": {"path": str(path)}},
            "columns": columns,
            "performance_indicator_type": "cpa",
            "timezone": "Asia/Tokyo",
            "baseline": {"columns": {"pctr": "pctr_baseline", "pcvr": "pcvr"}},
            "candidates": {name: {"columns": {"pctr": f"pctr_{name}", "pcvr": "pcvr"}} for name in CANDIDATES},
            "auction": {"type": "first_price" if knobs.first_price else "second_price"},
        }
        if knobs.campaigns > 1:
            settings["auction"]["internal"] = True
        if knobs.kept < 1:
            columns["weight"] = "sample_weight"
        if knobs.budget is not None:
            columns["daily_budget"] = "daily_budget"
            settings["budget"] = {"amount": "daily_budget", "per": "day", "pacing": knobs.pacing}
        if knobs.delay_hours:
            columns |= {"click_time": "click_ts", "conversion_time": "cv_ts"}
            until = FIRST_DAY + timedelta(days=self.size.days)
            settings["maturity"] = {
                "conversion_window_hours": WINDOW_HOURS,
                "observed_until": f"{until}T00:00:00",
                "immature": "weight",
            }
        return settings


@cache
def daily_budgets(knobs: Knobs, size: Size, seed: int) -> Floats:
    """Currency a day, by place in CAMPAIGNS: the knob's share of what the baseline spends in other crowds."""
    free = Knobs(first_price=knobs.first_price, campaigns=knobs.campaigns)
    each = [World(free, size, seed=seed, crowd=900_000 + i).spend_by_campaign("baseline") for i in range(4)]
    return np.asarray(np.round(np.mean(each, axis=0) * (knobs.budget or 0), 3))


def _targets() -> Floats:
    """target_cpa by place in CAMPAIGNS, currency: clicks are frequent in these markets, so worth less than elsewhere."""
    return np.array([c.target if c.billing_type == CPA else 12 * c.target for c in CAMPAIGNS]) * 0.08


def _day(auctions: Opportunities) -> Day:
    midnight = auctions.ts // (60 * _MICROS) + 9 * 60  # minutes since 1970 in Tokyo
    return Day(auctions.request, auctions.campaign, midnight % (24 * 60), auctions.price)
