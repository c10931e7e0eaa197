"""The least that any evaluation of a log costs: one DuckDB scan that sums each column that the replay reads.

python tests/benchmarks/bare_scan.py /tmp/log5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb

COLUMNS = (
    "user_id",
    "ad_id",
    "price",
    "bid_price",
    "is_win",
    "is_click",
    "cv",
    "pctr_prod",
    "pcvr_prod",
    "pctr_v42",
    "pcvr_v42",
    "target_cpa",
    "target_cpc",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="as make_log.py writes it")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    connection = duckdb.connect(config={"threads": given.threads})
    sums = ", ".join(f"sum({name}) as {name}" for name in COLUMNS)
    relation = connection.sql(f"select count(*) as rows, {sums} from read_parquet('{given.directory}/log/*.parquet')")
    print(dict(zip(relation.columns, relation.fetchall()[0], strict=True)))


if __name__ == "__main__":
    main()
