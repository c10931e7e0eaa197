"""The gain chart of a real replay: from its statistics alone, with its sentence, and absent where they are."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures import make_result
from pages import read, undrawn
from small_logs import as_table

from bidsim.replay.pipeline import Replayed, run_replay
from bidsim.report.gains import SAID, TOPS, gains
from bidsim.report.lookup import Lookup
from bidsim.scenario.loading import scenario_from_dict


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Clicks follow pother, which the candidate bids by; the baseline's pctr is a guess that tells nothing."""
    directory = tmp_path_factory.mktemp("gains")
    rng = np.random.default_rng(20261126)
    n = 3000
    score = np.float32(rng.uniform(0.02, 0.4, n))
    rows = [
        {
            "request": i,
            "unit": int(rng.integers(0, 400)),
            "price": 1.0,
            "won": 1,
            "click": int(rng.random() < score[i]),
            "target_cpc": 0.5,
            "pctr": float(np.float32(rng.uniform(0.02, 0.4))),
            "pother": float(score[i]),
        }
        for i in range(n)
    ]
    pq.write_table(as_table(rows), directory / "log.parquet")
    document = {
        "sample_type": "imp-click",
        "logs_tables": {"ad": {"path": str(directory / "log.parquet")}},
        "candidates": {
            "<b>new": {"columns": {"pctr": "pother"}},
            "same": {"bid": {"multiplier": 1.2}},
        },
        "performance_indicator_type": "cpc",
    }
    return run_replay(scenario_from_dict(document, directory=Path(directory)), [], as_of=date(2026, 11, 24))


def test_the_sentence_says_what_the_best_tenth_of_the_rows_holds(replayed: Replayed) -> None:
    (found,) = gains(Lookup(replayed.result), replayed.tables)
    assert found.said.startswith("The 10% of impressions that baseline scores highest hold ")
    assert "of the clicks; those of <b>new " in found.said
    assert found.said.endswith("; same scores them alike.")
    shares = {row[0]: [float(cell.split("%")[0]) for cell in row[1:]] for row in found.table.rows}
    assert shares["<b>new"][TOPS.index(SAID)] > 1.4 * shares["baseline"][TOPS.index(SAID)]
    assert shares["same"] == shares["baseline"]
    assert all(sorted(each) == each for each in shares.values())


def test_the_page_has_a_line_a_policy_and_the_numbers_as_a_table(replayed: Replayed) -> None:
    page = undrawn(replayed.result, replayed.tables)
    parsed = read(page)
    assert not parsed.errors
    assert "What the best scores hold" in parsed.text
    assert "by chance it would be the share of the impressions" in parsed.text
    assert "<b>new" not in page
    (found,) = gains(Lookup(replayed.result), replayed.tables)
    assert str(found.figure.svg).count('stroke-width="1.5"') == 3
    assert 'role="img"' in str(found.figure.svg)
    assert undrawn(replayed.result, replayed.tables) == page


def test_without_the_statistics_there_is_no_gain_chart(replayed: Replayed) -> None:
    assert gains(Lookup(replayed.result), None) == []
    assert "What the best scores hold" not in undrawn(make_result())
