"""Bids and prices of real replays: what is drawn and said, and what is said to be unknown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures import make_result
from pages import read, undrawn
from small_logs import as_table

from bidsim.replay.pipeline import Replayed, run_replay
from bidsim.report.lookup import Lookup
from bidsim.report.prices import BidsAndPrices, bids_and_prices
from bidsim.scenario.loading import scenario_from_dict

TITLE = "Bids and prices"


def run(directory: Path, hidden: str = "", **keys: Any) -> Replayed:
    """Bids of 20 to 400 CPM at prices about 80. hidden: "lost": prices of auctions that the log lost, "some": of a few of
    those, "all": of all."""
    rng = np.random.default_rng(20261127)
    rows = []
    for i in range(4000):
        score, price = float(rng.uniform(0.02, 0.4)), float(np.exp(rng.normal(4.4, 0.7)))
        won = int(1000 * score >= price)
        secret = {"lost": not won, "some": not won and i % 4 == 0, "all": True}.get(hidden, False)
        rows.append(
            {
                "request": i,
                "unit": int(rng.integers(0, 900)),
                "campaign": 1,
                "price": None if secret else 0.0 if i % 20 == 0 and keys.get("zeros") else price,
                "bid": 1000 * score,
                "won": won,
                "click": int(won and rng.random() < score),
                "target_cpc": 1.0,
                "pctr": score,
                "pother": float(np.clip(score * np.exp(rng.normal(-0.3, 0.3)), 0, 1)),
            }
        )
    keys.pop("zeros", None)
    pq.write_table(as_table(rows), directory / "log.parquet")
    document = {
        "sample_type": "imp-click",
        "logs_tables": {"ad": {"path": str(directory / "log.parquet")}},
        "candidates": {"<b>new": {"columns": {"pctr": "pother"}}, "never": {"bid": {"min": 1e9}}},
        "performance_indicator_type": "cpc",
        "currency": "JPY",
        "fidelity": "warn",
        **keys,
    }
    return run_replay(scenario_from_dict(document, directory=directory), [], as_of=date(2026, 11, 24))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    return run(tmp_path_factory.mktemp("prices"))


def section(done: Replayed) -> BidsAndPrices:
    found = bids_and_prices(Lookup(done.result), done.tables)
    assert found is not None
    return found


def numbers(text: str) -> list[float]:
    return [float(t.replace(",", "").replace("−", "-")) for t in re.findall(r"[−\d][\d.,]*\d|\d", text)]


def test_the_sentences_say_medians_and_what_is_won_where_prices_are_highest(replayed: Replayed) -> None:
    medians, dearest = section(replayed).said
    price, ours, theirs = numbers(medians.replace("1000", ""))
    assert price == pytest.approx(np.exp(4.4), rel=0.13)
    assert ours == pytest.approx(210, rel=0.13)
    assert theirs == pytest.approx(210 * np.exp(-0.3), rel=0.13)
    assert "bids of baseline" in medians
    assert "of <b>new" in medians
    assert "never" not in medians
    assert re.match(r"Where prices are highest \(.* of the known ones\), baseline wins \d", dearest)
    assert re.search(r"; <b>new wins [\d.]+% \[.*\], −[\d.]+ pt \[−.*, −.*\]; never does not bid\.$", dearest)


def test_the_numbers_follow_as_tables_of_ten_bands(replayed: Replayed) -> None:
    found = section(replayed)
    assert [name for name, _ in found.rates] == ["<b>new", "never"]
    rows = found.rates[0][1]
    assert len(rows) == 10
    shares = [float(row.share.rstrip("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    baseline = [float(row.cells[0][0].rstrip("%")) for row in rows]
    assert baseline == sorted(baseline, reverse=True)
    assert baseline[0] > 90
    # A single lost bid tells nothing of how many there may be, as in the win rate of the whole log.
    assert all(re.fullmatch(r"\[.*%, .*%\]", row.cells[0][1]) for row in rows[1:])
    assert all(re.fullmatch(r"\[.*%, .*%\]", row.cells[1][1]) for row in rows)
    assert all(
        re.fullmatch(r"−[\d.]+ pt", row.cells[2][0]) and re.fullmatch(r"\[.*, .*\]", row.cells[2][1]) for row in rows
    )
    assert all(row.cells[1:] == [("–", ""), ("–", "")] for row in found.rates[1][1])
    assert [row[0] for row in found.spread.rows] == ["Known prices", "Bids of baseline", "Bids of <b>new"]
    assert all(sorted(numbers(" ".join(row[1:]))) == numbers(" ".join(row[1:])) for row in found.spread.rows)


def test_the_page_shows_both_charts_without_a_script(replayed: Replayed) -> None:
    page = undrawn(replayed.result, replayed.tables)
    parsed = read(page)
    assert not parsed.errors
    assert TITLE in parsed.text
    assert "a price is the lowest bid that would have won" in parsed.text
    assert "CPM in JPY, logarithmic" in parsed.text
    assert "<b>new" not in page
    assert undrawn(replayed.result, replayed.tables) == page
    figures = section(replayed).figures
    assert [figure.title for figure in figures] == ["Bids and known prices", "Bids that win, by price"]
    first, second = (str(figure.svg) for figure in figures)
    for svg in (first, second):
        assert 'role="img"' in svg
        assert not re.search(r'(?:fill|stroke)="#', svg)
        assert "nan" not in svg
    # The shaded prices and two lines; two lines with intervals, of policies that bid.
    assert first.count("<path") >= 3
    assert second.count('stroke-width="1.5"') == 2 + 19
    assert not section(replayed).notes[1:]


def test_without_the_statistics_or_in_those_of_an_older_version_there_is_none(replayed: Replayed) -> None:
    lookup = Lookup(replayed.result)
    assert bids_and_prices(lookup, None) is None
    assert bids_and_prices(lookup, replace(replayed.tables, prices=None)) is None
    assert TITLE not in undrawn(replayed.result, replace(replayed.tables, prices=None))
    assert TITLE not in undrawn(make_result())


def test_prices_of_won_auctions_only_are_called_so(tmp_path: Path) -> None:
    """A win rate over auctions that were won says nothing of the others."""
    found = section(run(tmp_path, "lost"))
    assert found.figures[1].title == "Of auctions the log won: bids that win, by price"
    assert found.said[1].startswith("Of the auctions that the log won, where prices were highest (")
    assert "of none that it lost" in found.notes[0]
    assert "what part of the others a bid would win is not known" in found.notes[0]
    # The log's own bids are the baseline's.
    assert all(row.cells[0][0] == "100.0%" for row in found.rates[0][1])


def test_a_log_that_knows_some_prices_says_of_how_many(tmp_path: Path) -> None:
    found = section(run(tmp_path, "some"))
    assert found.figures[1].title == "Bids that win, by price"
    (share,) = re.findall(r"100\.0% of the auctions it won and ([\d.]+)% of the others", found.notes[0])
    assert float(share) == pytest.approx(75, abs=4)


def test_a_log_without_prices_has_bids_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "all", auction={"type": "first_price"})
    found = section(done)
    assert [figure.title for figure in found.figures] == ["Bids and known prices"]
    assert len(found.said) == 1
    assert "known prices" not in found.said[0]
    assert found.rates == []
    assert not read(undrawn(done.result, done.tables)).errors


def test_zero_prices_and_budgets_are_said(tmp_path: Path) -> None:
    found = section(run(tmp_path, zeros=True, budget={"amount": 60, "per": "total", "overspend": "never"}))
    assert any(n.startswith("5.0% of the known prices are 0") for n in found.notes)
    assert any("before it cut them to the money left; intervals take the course" in n for n in found.notes)
    assert found.rates[0][1][0].price.startswith("0 to ")


def test_constant_bids_hide_no_other_curve(tmp_path: Path) -> None:
    found = section(run(tmp_path, baseline={"bid": {"formula": "50"}}))
    assert found.notes[0] == "Peaks are cut where they would hide the rest."
    ticks = re.findall(r">([\d.]+)%<", str(found.figures[0].svg))
    assert max(map(float, ticks)) < 200
    assert found.said[0].count("bids of baseline 5") == 1


def test_nothing_but_zero_prices_and_no_bid_draws_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, baseline={"bid": {"min": 1e9}}, columns={"price": "price * 0"}, bid={"min": 1e9})
    found = section(done)
    assert found.figures == []
    assert found.said[0] == "Medians, per 1000 impressions: known prices 0."
    assert "baseline does not bid; <b>new does not bid" in found.said[1]
    assert not read(undrawn(done.result, done.tables)).errors
