"""A file of predictions is a model: joined by its key, and a row without one is not guessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.errors import ModelError
from bidsim.models import open_scorer
from bidsim.models.predictions import is_prediction_file

DRAW = np.random.default_rng(5)


def write(path: Path, table: dict[str, Any]) -> Path:
    made = pa.table(table)
    csv.write_csv(made, path) if path.suffix == ".csv" else pq.write_table(made, path)
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
@pytest.mark.parametrize("text", [False, True])
def test_predictions_are_found_by_key(tmp_path: Path, name: str, text: bool) -> None:
    keys = DRAW.permutation(1000) * 7 - 300
    p = DRAW.random(1000)
    shown = [f"request-{k}-é" for k in keys] if text else keys.tolist()
    opened = open_scorer(write(tmp_path / name, {"request": shown, "pctr": p, "pcvr": p / 2}))
    assert opened.scorer.heads == ("ctr", "cvr")
    assert opened.scorer.features == ("request",)
    asked = [shown[500], None, shown[3], "request-" if text else 10**6, shown[3] + "x" * 300 if text else -(10**9)]
    scores = opened.scorer.score(pa.RecordBatch.from_pydict({"request": asked}))
    np.testing.assert_array_equal(scores["ctr"], [p[500], np.nan, p[3], np.nan, np.nan])
    np.testing.assert_array_equal(scores["cvr"][[0, 2]], p[[500, 3]] / 2)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"request": [1, 2, 1], "pctr": [0.1, 0.2, 0.3]}, "has 1 twice"),
        ({"request": [1, None], "pctr": [0.1, 0.2]}, "is missing in some row"),
        ({"request": [1.5, 2], "pctr": [0.1, 0.2]}, "is double, not a whole number or text"),
        ({"a": [1], "b": [2], "pctr": [0.1]}, "exactly one other column"),
        ({"request": [1], "score": [0.1]}, "exactly one other column"),
        ({"request": [1], "pctr": ["high"]}, 'column "pctr" is string, not a number'),
    ],
)
def test_files_that_are_no_predictions_are_refused(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        open_scorer(write(tmp_path / "p.parquet", table))


def test_a_key_of_another_type_is_named_with_both_types(tmp_path: Path) -> None:
    scorer = open_scorer(write(tmp_path / "p.parquet", {"request": [1, 2], "pctr": [0.1, 0.2]})).scorer
    with pytest.raises(ModelError, match=r'the key "request" is a whole number in the file of predictions, but string'):
        scorer.score(pa.RecordBatch.from_pydict({"request": ["1"]}))


def test_a_replay_with_a_file_is_the_replay_with_the_same_columns(tmp_path: Path) -> None:
    n = 500
    log = {
        "request": list(range(n)),
        "price": DRAW.gamma(2, 50, n),
        "click": (DRAW.random(n) < 0.1).astype(np.int8),
        "target_cpc": np.full(n, 1.0),
        "pctr": DRAW.random(n) / 5,
        "other": DRAW.random(n) / 5,
    }
    write(tmp_path / "log.parquet", log)
    write(tmp_path / "new.parquet", {"request": log["request"], "pctr": log["other"]})
    document = {"logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}}, "performance_indicator_type": "cpc"}
    by_file = bidsim.replay(document, [tmp_path / "new.parquet"], threads=1)
    by_column = bidsim.replay({**document, "candidates": {"new": {"columns": {"pctr": "other"}}}}, threads=1)
    numbers = [[(m.metric, m.policy, m.segment, m.value) for m in r.metrics] for r in (by_file, by_column)]
    assert numbers[0] == numbers[1]
    assert by_file.policies[1].sha256 is not None


@pytest.mark.parametrize(("keys", "refused"), [([900, 901], True), ([900, 3], False)])
def test_predictions_of_none_of_the_rows_are_refused_and_of_some_counted(
    tmp_path: Path, keys: list[int], refused: bool
) -> None:
    rows = {"request": list(range(20)), "price": [1.0] * 20, "click": [0, 1] * 10, "pctr": [0.5] * 20}
    write(tmp_path / "log.parquet", rows)
    write(tmp_path / "new.parquet", {"request": keys, "pctr": [0.1, 0.2]})
    document = {"logs_tables": {"ad": {"path": str(tmp_path / "log.parquet")}}, "bid": {"formula": "10 * pctr"}}
    if refused:
        with pytest.raises(ModelError, match=r'new\.parquet: none of its keys is that of a row of the log .*"request"'):
            bidsim.replay(document, [tmp_path / "new.parquet"], threads=1)
    else:
        found = bidsim.replay(document, [tmp_path / "new.parquet"], threads=1)
        assert [m.value for m in found.metrics if m.metric == "bids" and m.policy == "new" and not m.segment] == [1.0]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run would carry the hash of other predictions than those that it replayed."""
    from bidsim.models import predictions

    file = write(tmp_path / "p.csv", {"request": [1, 2], "pctr": [0.1, 0.2]})
    read = predictions.read_table

    def then_written(path: Path) -> pa.Table:
        table = read(path)
        write(file, {"request": [1, 2], "pctr": [0.1, 0.3]})
        return table

    monkeypatch.setattr(predictions, "read_table", then_written)
    with pytest.raises(ModelError, match=r"p.csv: the file was changed while it was read; run again"):
        open_scorer(file)


def test_a_header_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"requ\xe6st_id,pctr\nr1,0.5\n")
    with pytest.raises(ModelError, match=r"p\.csv: a column's name is not UTF-8"):
        open_scorer(tmp_path / "p.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_no_file_of_predictions_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    both = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # so that nothing waits here, whatever is done
    try:
        os.write(both, b"PAR1".ljust(4096))
        assert not is_prediction_file(pipe)
    finally:
        os.close(both)
    with pytest.raises(ModelError, match="no regular file"):
        open_scorer(pipe)
