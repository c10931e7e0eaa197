"""DuckDB's types and Spark's for the same values: times without a zone are TIMESTAMP_NTZ there, with one TIMESTAMP."""

from __future__ import annotations

import re

WHOLE = {
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "INT": "int",
    "BIGINT": "bigint",
    "HUGEINT": "decimal(38,0)",
    "INT128": "decimal(38,0)",
    "UTINYINT": "smallint",
    "USMALLINT": "int",
    "UINTEGER": "bigint",
    "UINT": "bigint",
    "UBIGINT": "decimal(20,0)",
}
OTHER = {
    "BOOLEAN": "boolean",
    "FLOAT": "float",
    "REAL": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "TEXT": "string",
    "DATE": "date",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP_S": "timestamp_ntz",
    "TIMESTAMP_MS": "timestamp_ntz",
    "TIMESTAMP_NS": "timestamp_ntz",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "TIMESTAMPTZ": "timestamp",
    '"NULL"': "int",
}


def spark_type(kind: str) -> str | None:
    """Spark's type for one of DuckDB's; None where it has none."""
    kind = kind.upper()
    if kind.startswith(("DECIMAL", "NUMERIC")):
        size = re.search(r"\((\d+)(?:,\s*(\d+))?\)", kind)
        return f"decimal({size.group(1)},{size.group(2) or 0})" if size else "decimal(18,3)"
    return WHOLE.get(kind) or OTHER.get(kind)


def is_whole(kind: str) -> bool:
    return kind.upper() in WHOLE


def is_float(kind: str) -> bool:
    return kind.upper() in ("DOUBLE", "FLOAT", "REAL")
