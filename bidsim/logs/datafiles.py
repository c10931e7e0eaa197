"""The data files of a log for another engine that reads Parquet, CSV or NDJSON by itself, such as Spark.

Spark reads Delta and Iceberg tables only with libraries of theirs. Where a table's files hold just the table's rows
under the table's own names, the list of them is as good; where they don't, `bringing` makes files that do.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from bidsim.logs.source import Format, Source
from bidsim.logs.tables import Table


@dataclass(frozen=True)
class DataFiles:
    """files: paths or addresses (s3://, gs://, hdfs://) in the order of the log; schema: of the table, None where only
    the files tell it; partitions: values of columns by which a table is partitioned, a row for each file.

    whole: whether the files' rows are the log's rows: none of them is deleted and no column has another name. A column
    of the schema that a file lacks has missing values there, or its partition's.
    """

    files: tuple[str, ...]
    format: Format
    schema: pa.Schema | None = None
    partitions: pa.Table | None = None
    whole: bool = True


def data_files(source: Source) -> DataFiles:
    """The files of a source that was opened, brought or not; nothing is read."""
    origin = source.origin
    if not isinstance(origin, Table):
        return DataFiles(source.files if origin is None else origin.files, source.format)
    whole = origin.reader.by_name and not any(part.cut for part in origin.parts)
    return DataFiles(origin.files, "parquet", origin.schema, origin.partition_values, whole)
