"""Write a realistic Parquet log of any size, and the scenario that replays it.

    python tests/benchmarks/make_log.py 5e6 /tmp/log5

Seven days of auctions of 200 campaigns with a production model and a better-ranked candidate as columns. The bidder
that made the log explored: its bids are production's times 0.8 to 2.5, so the log shows most of what either policy
would win. Prices are known for all rows, labels for the rows that were won. Equal arguments give equal rows, whatever
the number of threads; memory is bounded by a row group a thread.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

START = np.datetime64("2026-11-02T00:00:00", "ms")
DAYS = 7
SPOTS = 40
ROW_GROUP = 1 << 20
BLOCK = 1 << 16
SLOTS = 1 << 16

SCENARIO = """\
# Production's predictions against those of v42, both columns of the log.
name: benchmark
sample_type: [imp-click, click-conversion]
logs_tables:
  ad: {path: log/*.parquet}
columns:
  {time: ts, unit: user_id, campaign: ad_id, price: price, bid: bid_price, won: is_win, click: is_click, conversion: cv,
   pctr: pctr_prod, pcvr: pcvr_prod, target_cpa: target_cpa, target_cpc: target_cpc}
currency: JPY
performance_indicator_type: cpa
bid: {formula: "1000 * target_cpa * pctr * pcvr"}
baseline: {columns: {pctr: pctr_prod, pcvr: pcvr_prod}}
candidates:
  v42: {columns: {pctr: pctr_v42, pcvr: pcvr_v42}}
auction: {type: second_price, ties: win}
segments: [campaign]
gate:
  - {name: conversions cost no more, metric: cpa, max_increase: 5%}
"""


@dataclass(frozen=True)
class Market:
    """What rows are drawn from. Effects are on the logit of CTR or CVR, or on the logarithm of the price."""

    rows: int
    seed: int
    user_ctr: Singles
    user_cvr: Singles
    user_price: Singles
    campaign_slots: npt.NDArray[np.int32]
    campaign_ctr: Singles
    campaign_cvr: Singles
    target_cpa: Doubles
    target_cpc: Doubles
    spot_slots: npt.NDArray[np.int16]
    spot_ctr: Singles
    spot_price: Singles
    hour_ctr: Singles
    hour_price: Singles
    elapsed: Doubles  # share of the week's rows before each hour, shape (168 + 1,)


def slots_of(weights: Doubles) -> Ints:
    """Table of SLOTS entries in which each index stands as often as its weight asks: a draw is one look-up."""
    edges = np.round(np.cumsum(weights) / weights.sum() * SLOTS).astype(np.int64)
    return np.searchsorted(edges, np.arange(SLOTS), side="right")


def make_market(rows: int, campaigns: int, units: int, seed: int) -> Market:
    rng = np.random.default_rng([seed, 0])

    def normal(size: int, scale: float) -> Singles:
        return np.asarray(rng.standard_normal(size, dtype=np.float32) * np.float32(scale))

    hours = np.arange(24)
    busy = 1.0 + 0.7 * np.sin((hours - 14) * np.pi / 12)
    target_cpa = np.round(rng.lognormal(math.log(700.0), 0.5, campaigns)).astype(np.float64)
    campaign_cvr = normal(campaigns, 0.4)
    user_ctr = normal(units, 0.6)
    return Market(
        rows=rows,
        seed=seed,
        user_ctr=user_ctr,
        user_cvr=normal(units, 0.3),
        user_price=np.float32(0.3) * user_ctr + normal(units, 0.25),
        campaign_slots=slots_of(np.reciprocal(np.arange(campaigns, dtype=np.float64) + 8.0)).astype(np.int32),
        campaign_ctr=normal(campaigns, 0.4),
        campaign_cvr=campaign_cvr,
        target_cpa=target_cpa,
        target_cpc=np.round(target_cpa * 0.075, 2),
        spot_slots=slots_of(np.reciprocal(np.arange(SPOTS, dtype=np.float64) + 3.0)).astype(np.int16),
        spot_ctr=normal(SPOTS, 0.4),
        spot_price=normal(SPOTS, 0.2),
        hour_ctr=(0.15 * np.sin((hours - 16) * np.pi / 12)).astype(np.float32),
        hour_price=(0.2 * np.sin((hours - 13) * np.pi / 12)).astype(np.float32),
        elapsed=np.concatenate([[0.0], np.cumsum(np.tile(busy, DAYS))]) / (DAYS * busy.sum()),
    )


def sigmoid(x: Singles) -> Singles:
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def draw(market: Market, begin: int, count: int) -> dict[str, npt.NDArray[Any]]:
    """Rows begin to begin + count of the log, one array a column; labels of lost rows are meaningless."""
    rng = np.random.default_rng([market.seed, 1, begin])

    def noise(scale: float) -> Singles:
        out = rng.standard_normal(count, dtype=np.float32)
        out *= np.float32(scale)
        return out

    share = (begin + np.arange(count) + rng.random(count)) / market.rows
    hours = np.interp(share, market.elapsed, np.arange(DAYS * 24 + 1))
    hour = hours.astype(np.int64) % 24
    # Squaring makes some users far busier than others: density falls as 1 / sqrt.
    user = (rng.random(count) ** 2 * len(market.user_ctr)).astype(np.int64)
    drawn = rng.integers(0, SLOTS, (2, count), dtype=np.uint16)
    campaign, spot = market.campaign_slots[drawn[0]], market.spot_slots[drawn[1]]
    user_ctr = market.user_ctr[user]
    # What both models see, then what the truth adds: both models miss a part of the user and the row.
    seen_ctr = market.campaign_ctr[campaign] + market.spot_ctr[spot] + market.hour_ctr[hour] - np.float32(4.9)
    seen_cvr = market.campaign_cvr[campaign] - np.float32(2.7)
    ctr = sigmoid(seen_ctr + user_ctr)
    cvr = sigmoid(seen_cvr + market.user_cvr[user])
    pctr_prod = sigmoid(seen_ctr + np.float32(0.3) * user_ctr + noise(0.35) + np.float32(0.12))
    pctr_v42 = sigmoid(np.float32(1.05) * (seen_ctr + np.float32(0.8) * user_ctr + noise(0.2)) + np.float32(0.36))
    pcvr_prod = sigmoid(seen_cvr + noise(0.3))
    pcvr_v42 = sigmoid(seen_cvr + noise(0.2) + np.float32(0.05))
    log_price = market.user_price[user] + market.spot_price[spot] + market.hour_price[hour] + noise(0.6)
    price = np.round(np.exp(log_price, dtype=np.float32).astype(np.float64) * 600.0, 2)
    target_cpa = market.target_cpa[campaign]
    explored = rng.uniform(0.8, 2.5, count)
    bid = np.round(1000.0 * target_cpa * pctr_prod * pcvr_prod * explored, 2)
    click = rng.random(count, dtype=np.float32) < ctr
    return {
        "ts": START + (hours * 3_600_000).astype("timedelta64[ms]"),
        "user_id": (user * 2_654_435_761 + 1_000_003) % (1 << 40),
        "ad_id": campaign + np.int32(1000),
        "hour": hour.astype(np.int8),
        "spot_id": spot,
        "price": price,
        "bid_price": bid,
        "is_win": bid >= price,
        "is_click": click.view(np.int8),
        "cv": (click & (rng.random(count, dtype=np.float32) < cvr)).view(np.int8),
        "pctr_prod": pctr_prod,
        "pcvr_prod": pcvr_prod,
        "pctr_v42": pctr_v42,
        "pcvr_v42": pcvr_v42,
        "target_cpa": target_cpa,
        "target_cpc": market.target_cpc[campaign],
    }


def row_group(market: Market, begin: int, end: int) -> pa.Table:
    # Blocks that stay in the processor's cache.
    blocks = [draw(market, b, min(BLOCK, end - b)) for b in range(begin, end, BLOCK)]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    lost = ~columns["is_win"]
    columns["is_win"] = columns["is_win"].view(np.int8)
    labels = ("is_click", "cv")
    return pa.table({name: pa.array(c, mask=lost if name in labels else None) for name, c in columns.items()})


def write_file(market: Market, path: Path, begin: int, end: int) -> None:
    writer: pq.ParquetWriter | None = None
    few = ["ad_id", "hour", "spot_id", "target_cpa", "target_cpc"]
    for group in range(begin, end, ROW_GROUP):
        table = row_group(market, group, min(group + ROW_GROUP, end))
        writer = writer or pq.ParquetWriter(
            path, table.schema, compression="zstd", compression_level=1, use_dictionary=few
        )
        writer.write_table(table, row_group_size=ROW_GROUP)
    if writer is not None:
        writer.close()


def write_log(rows: int, out: Path, *, campaigns: int, units: int, seed: int, threads: int) -> None:
    """At least four files, each of whole row groups, the log's rows in order of time."""
    market = make_market(rows, campaigns, units, seed)
    (out / "log").mkdir(parents=True)
    blocks = -(-rows // BLOCK)
    files = max(4, -(-rows // (8 * ROW_GROUP)))
    per_file = max(1, -(-blocks // files)) * BLOCK
    with ThreadPoolExecutor(threads) as pool:
        done = [
            pool.submit(write_file, market, out / "log" / f"part-{i:04}.parquet", begin, min(begin + per_file, rows))
            for i, begin in enumerate(range(0, rows, per_file))
        ]
        for each in done:
            each.result()
    (out / "scenario.yaml").write_text(SCENARIO)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", type=lambda text: int(float(text)), help="e.g. 5e6")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--units", type=int, help="users; default: one for 25 rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    begun = time.perf_counter()
    units = given.units or max(1, given.rows // 25)
    write_log(given.rows, given.out, campaigns=given.campaigns, units=units, seed=given.seed, threads=given.threads)
    size = sum(f.stat().st_size for f in (given.out / "log").iterdir())
    seconds = time.perf_counter() - begun
    print(
        f"{given.rows} rows of {units} users, {size / 2**20:.0f} MiB, in {seconds:.1f} s: {given.out}", file=sys.stderr
    )


if __name__ == "__main__":
    main()
