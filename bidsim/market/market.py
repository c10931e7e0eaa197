"""A synthetic ad market whose truth is known: who sees which ad, what they do, and what the other bidders pay.

It has what makes real logs hard: rare clicks and rarer conversions, ads that work on some spots and for some audiences
only, users who click more than others, competition that knows quality too (so winning is not random), prices and
labels only for auctions that were won, and conversions that come hours after the click.

Everything is drawn from one `numpy.random.PCG64` stream per day, so a day is the same whichever other days are made.
The numbers are the same for one NumPy version and platform; NumPy does not promise its streams across versions.
Money is JPY: bids and prices per 1000 impressions, targets per click or conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOKYO = timezone(timedelta(hours=9))
CPC, CPA = 1, 2  # billing_type: which target the campaign bids for
OS = ("android", "ios", "windows", "macos")
AUDIENCES = 8
SEED = 6
_MICROS = 1_000_000

LOG_SCHEMA = pa.schema(
    [
        ("ts", pa.timestamp("us", tz="UTC")),
        ("request_id", pa.string()),
        ("user_id", pa.string()),
        ("ad_id", pa.int64()),
        ("spot_id", pa.int64()),
        ("hour", pa.int64()),
        ("os", pa.string()),
        ("audience", pa.int64()),
        ("is_application", pa.int64()),
        ("billing_type", pa.int64()),
        ("bid_price", pa.float64()),
        ("paying_price", pa.float64()),
        ("is_win", pa.int64()),
        ("is_click", pa.int64()),
        ("cv", pa.int64()),
        ("click_ts", pa.timestamp("us", tz="UTC")),
        ("cv_ts", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Campaign:
    """target: currency per click (billing_type CPC) or per conversion (CPA); daily_budget: currency, next month's.

    The budgets are about 60% of what the log's days spent: the question of the demo is which model makes more of less
    money. A log can't show what spending more would have brought.
    """

    ad_id: int
    name: str
    billing_type: int
    target: float
    daily_budget: float

    @property
    def target_cpc(self) -> float | None:
        return self.target if self.billing_type == CPC else None

    @property
    def target_cpa(self) -> float | None:
        return self.target if self.billing_type == CPA else None


CAMPAIGNS = (
    Campaign(101, "星空パズル iOS", CPA, 480, 1_300),
    Campaign(102, "ほっこり農場", CPA, 420, 1_250),
    Campaign(103, "Dragon Tactics", CPA, 560, 4_800),
    Campaign(104, "東京フードデリ", CPA, 450, 1_700),
    Campaign(105, "Sakura Bank 口座開設", CPA, 640, 5_100),
    Campaign(106, "英会話レッスン30日", CPA, 500, 520),
    Campaign(107, "City Runner", CPA, 400, 1_080),
    Campaign(108, "お天気ナビ", CPC, 34, 560),
    Campaign(109, "Kaze Airlines 秋の旅", CPC, 45, 5_200),
    Campaign(110, "コスメ定期便", CPC, 40, 1_500),
    Campaign(111, "Manga Box 読み放題", CPC, 30, 350),
    Campaign(112, "中古車ひろば", CPC, 38, 1_900),
)


@dataclass(frozen=True)
class Opportunities:
    """Auctions that the DSP was asked to bid in, one row each, in order of time. Arrays of shape (rows,).

    ts: microseconds since 1970, UTC. request: number of the request within the day; rows of one request are several of
    the DSP's campaigns. campaign: place in CAMPAIGNS. ctr, cvr: the true probabilities.
    price: the lowest bid that wins, floor included, per 1000 impressions; of the request, so the same for its rows.
    """

    day: date
    ts: Ints
    request: Ints
    user: Ints
    campaign: Ints
    spot: Ints
    hour: Ints
    os: Ints
    audience: Ints
    is_application: Ints
    ctr: Floats
    cvr: Floats
    price: Floats

    def __len__(self) -> int:
        return len(self.ts)

    def features(self) -> pa.Table:
        """What a bidder knows before the auction: the log's columns up to billing_type."""
        ids = [f"{self.day:%m%d}-{i:07d}" for i in self.request.tolist()]
        values = {
            "ts": pa.array(self.ts, pa.timestamp("us", tz="UTC")),
            "request_id": ids,
            "user_id": [f"u{user:06d}" for user in self.user.tolist()],
            "ad_id": np.array([c.ad_id for c in CAMPAIGNS])[self.campaign],
            "spot_id": 1001 + self.spot,
            "hour": self.hour,
            "os": pa.array(np.array(OS, dtype=object)[self.os]),
            "audience": self.audience,
            "is_application": self.is_application,
            "billing_type": np.array([c.billing_type for c in CAMPAIGNS])[self.campaign],
        }
        schema = pa.schema([LOG_SCHEMA.field(name) for name in values])
        return pa.table(values, schema=schema)


@dataclass(frozen=True)
class Acts:
    """What users do once they see an ad, shape (rows,). Times: microseconds since 1970, only where it happens."""

    click: NDArray[np.bool_]
    conversion: NDArray[np.bool_]
    click_ts: Ints
    conversion_ts: Ints


class Market:
    """One world, made from a seed: effects of ads, spots, audiences, users and hours.

    seed: of every random number. users, spots: how many there are. crowd: other users and days of the same world
    (the ads, spots and hours stay what they are). click_logit, conversion_logit: where the rates lie.
    """

    def __init__(
        self,
        seed: int = SEED,
        *,
        users: int = 30_000,
        spots: int = 40,
        crowd: int | None = None,
        click_logit: float = -4.45,
        conversion_logit: float = -2.5,
    ) -> None:
        self._seed = seed
        self._logits = click_logit, conversion_logit
        self._more = () if crowd is None else (1000 + crowd,)
        draw = np.random.Generator(np.random.PCG64([seed, 0]))
        ads = len(CAMPAIGNS)
        self._draw_users(draw, users)
        self._spot_app = (draw.random(spots) < 0.6).astype(np.int64)
        self._spot_weight = draw.gamma(0.8, 1.0, spots) + 0.05
        self._spot_ctr = draw.normal(0, 0.35, spots)
        self._spot_floor = np.round(draw.gamma(3.0, 12.0, spots) + 10, 0)
        self._ad_weight = draw.gamma(4.0, 1.0, ads) + 1
        self._ad_ctr = draw.normal(0, 0.25, ads)
        self._ad_cvr = draw.normal(0, 0.25, ads)
        self._ad_spot = draw.normal(0, 0.55, (ads, spots))
        self._ad_audience = draw.normal(0, 0.6, (ads, AUDIENCES))
        self._ad_audience_cvr = draw.normal(0, 0.35, (ads, AUDIENCES))
        self._os_ctr = np.array([0.1, 0.0, -0.35, -0.3])
        self._os_cvr = np.array([-0.1, 0.25, -0.3, -0.1])
        hours = np.arange(24)
        self._hour_weight = 1.3 + np.sin((hours - 14) / 24 * 2 * np.pi) + 0.6 * np.exp(-((hours - 21.5) ** 2) / 6)
        self._hour_ctr = 0.18 * np.sin((hours - 13) / 24 * 2 * np.pi)
        if crowd is not None:
            self._draw_users(np.random.Generator(np.random.PCG64([seed, 0, crowd])), users)

    def _draw_users(self, draw: np.random.Generator, users: int) -> None:
        self._user_audience = draw.integers(0, AUDIENCES, users)
        self._user_os = draw.choice(len(OS), users, p=[0.42, 0.38, 0.14, 0.06])
        self._user_ctr = draw.normal(0, 0.3, users)
        self._user_weight = draw.gamma(0.6, 1.0, users) + 0.02

    @property
    def user_logits(self) -> Floats:
        """How much more each user clicks than others, shape (users,)."""
        return self._user_ctr

    def opportunities(self, day: date, rows: int, campaigns: int = 1) -> Opportunities:
        """The auctions of one calendar day in Tokyo: the same for the same seed, crowd, day and number of rows.

        rows: requests; campaigns: how many of the DSP's campaigns could answer each, a row each.
        """
        draw = np.random.Generator(np.random.PCG64([self._seed, day.toordinal(), *self._more]))
        hour = np.sort(draw.choice(24, rows, p=self._hour_weight / self._hour_weight.sum()))
        within = np.sort(draw.integers(0, 3600 * _MICROS, rows) + hour * 3600 * _MICROS)
        midnight = datetime(day.year, day.month, day.day, tzinfo=TOKYO).astimezone(UTC)
        user = draw.choice(len(self._user_weight), rows, p=self._user_weight / self._user_weight.sum())
        spot = draw.choice(len(self._spot_weight), rows, p=self._spot_weight / self._spot_weight.sum())
        request = np.arange(rows)
        if campaigns == 1:
            campaign = draw.choice(len(CAMPAIGNS), rows, p=self._ad_weight / self._ad_weight.sum())
        else:
            # Drawn without replacement: the smallest of exponential keys (Efraimidis, Spirakis 2006).
            keys = draw.exponential(1.0, (rows, len(CAMPAIGNS))) / self._ad_weight
            campaign = np.argsort(keys, axis=1)[:, :campaigns].reshape(-1)
            request = np.repeat(request, campaigns)
            hour, within, user, spot = hour[request], within[request], user[request], spot[request]
        audience, system = self._user_audience[user], self._user_os[user]
        # What every bidder in the market can see of the chance of a click, and what only the right model sees.
        common = self._spot_ctr[spot] + self._os_ctr[system] + self._hour_ctr[hour]
        own = self._ad_ctr[campaign] + self._ad_spot[campaign, spot] + self._ad_audience[campaign, audience]
        ctr = _sigmoid(self._logits[0] + common + own + self._user_ctr[user])
        cvr = _sigmoid(
            self._logits[1]
            + self._ad_cvr[campaign]
            + self._os_cvr[system]
            + self._ad_audience_cvr[campaign, audience]
            + 0.3 * self._ad_spot[campaign, spot]
        )
        rivals = 500 * np.exp(0.45 * common + 0.12 * own + draw.normal(0, 0.55, len(request)))
        price = np.round(np.maximum(rivals, self._spot_floor[spot]), 3)
        if campaigns > 1:
            price = price[request * campaigns]
        return Opportunities(
            day=day,
            ts=within + int(midnight.timestamp()) * _MICROS,
            request=request,
            user=user,
            campaign=campaign,
            spot=spot,
            hour=hour,
            os=system,
            audience=audience,
            is_application=self._spot_app[spot],
            ctr=ctr,
            cvr=cvr,
            price=price,
        )

    def settle(self, auctions: Opportunities, bid: Floats) -> pa.Table:
        """Run the auctions and let the users act: the log that the DSP would have written (LOG_SCHEMA).

        bid: per 1000 impressions, shape (rows,); NaN is no bid. Second price, ties win. Prices are known and clicks
        and conversions observed only where the bid won; elsewhere they are NULL.
        The users' dice are the same whatever is bid, so two policies can be compared on the same world.
        """
        acts = self.act(auctions)
        won = bid >= auctions.price
        click, conversion = won & acts.click, won & acts.conversion
        click_ts, cv_ts = acts.click_ts, acts.conversion_ts
        stamp = pa.timestamp("us", tz="UTC")
        table = auctions.features()
        outcomes = {
            "bid_price": pa.array(bid, mask=np.isnan(bid)),
            "paying_price": pa.array(auctions.price, mask=~won),
            "is_win": pa.array(won.astype(np.int64)),
            "is_click": pa.array(click.astype(np.int64), mask=~won),
            "cv": pa.array(conversion.astype(np.int64), mask=~won),
            "click_ts": pa.array(click_ts, stamp, mask=~click),
            "cv_ts": pa.array(cv_ts, stamp, mask=~conversion),
        }
        for name, column in outcomes.items():
            table = table.append_column(LOG_SCHEMA.field(name), column)
        return table

    def act(self, auctions: Opportunities, delay_hours: float | Floats = 6.0) -> Acts:
        """What each user would do if the ad were shown. delay_hours: mean time from click to conversion, exponential."""
        draw = np.random.Generator(np.random.PCG64([self._seed, auctions.day.toordinal(), *self._more, 1]))
        rows = len(auctions)
        click_dice, cv_dice = draw.random(rows), draw.random(rows)
        click_delay = draw.exponential(4.0, rows) + 0.5  # seconds
        cv_delay = draw.standard_exponential(rows) * (delay_hours * 3600.0) + 30.0
        click = click_dice < auctions.ctr
        click_ts = auctions.ts + (click_delay * _MICROS).astype(np.int64)
        cv_ts = click_ts + (cv_delay * _MICROS).astype(np.int64)
        return Acts(click, click & (cv_dice < auctions.cvr), click_ts, cv_ts)

    def heuristic_bids(self, auctions: Opportunities) -> Floats:
        """What the DSP bid before it had a model: the target at flat rates, shaken to explore, per 1000 impressions."""
        draw = np.random.Generator(np.random.PCG64([self._seed, auctions.day.toordinal(), 2]))
        flat = np.array([c.target * (0.016 if c.billing_type == CPC else 0.016 * 0.085) for c in CAMPAIGNS])
        shaken = 1000 * flat[auctions.campaign] * np.exp(draw.normal(0, 0.5, len(auctions)))
        return np.asarray(np.round(shaken, 3), dtype=np.float64)


def model_bids(auctions: Opportunities, pctr: Floats, pcvr: Floats) -> Floats:
    """The demo's bid formula: 1000 * coalesce(target_cpa * pctr * pcvr, target_cpc * pctr), per 1000 impressions.

    Multiplied in the order of the SQL expression, so that a replay computes the same doubles.
    """
    target = np.array([c.target for c in CAMPAIGNS], dtype=np.float64)[auctions.campaign]
    is_cpa = np.array([c.billing_type == CPA for c in CAMPAIGNS])[auctions.campaign]
    value = target * pctr
    return np.asarray(1000.0 * np.where(is_cpa, value * pcvr, value), dtype=np.float64)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-z)), dtype=np.float64)
