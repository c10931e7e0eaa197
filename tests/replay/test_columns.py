"""Spec section 2: the log column of each role; and the values of segments, whatever they read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_logs import by_segment, numbers, replay

import bidsim
from bidsim.errors import BidsimError

ROWS = 60
LOG = {
    "campaign": ["a", "null", None] * (ROWS // 3),
    "price": [float(i % 7) for i in range(ROWS)],
    "won": [1] * ROWS,
    "click": [i % 2 for i in range(ROWS)],
    "pctr": [0.5] * ROWS,
}


def test_defaults_are_the_role_names_in_whatever_case_the_log_writes_them() -> None:
    formula = {"formula": "4.5 * pctr * 2"}
    plain = numbers(replay(pa.table(LOG), bid=formula, segments=["campaign"]), "new")
    table = pa.table({name.upper(): values for name, values in LOG.items()})
    found = replay(table, bid=formula, segments=["campaign"])
    assert numbers(found, "new") == plain
    assert by_segment(found, "new", "campaign", ["wins"]).keys() == {"a", "null", '"null"'}


def test_a_value_that_reads_null_is_not_the_missing_one() -> None:
    """Everything is given for each value of each segment: two values never share a name."""
    log = {**LOG, "price": [1.0 if name is None else 9.0 for name in LOG["campaign"]]}
    result = replay(pa.table(log), bid={"formula": "5 * pctr * 2"}, segments=["campaign"])
    wins = {name: found["wins"] for name, found in by_segment(result, "new", "campaign", ["wins"]).items()}
    assert wins == {"a": 0.0, '"null"': 0.0, "null": ROWS / 3}
    keys = [(m.policy, m.metric, m.head, m.beta, tuple(m.segment.items())) for m in result.metrics]
    assert len(set(keys)) == len(keys)


def test_roles_are_columns_whose_names_sql_would_ask_quotes_for() -> None:
    names = {"price": "Group By", "won": "order", "click": 'we"ird', "pctr": "1st"}
    table = pa.table({names.get(name, name): values for name, values in LOG.items()})
    found = replay(table, columns=names, bid={"formula": "9 * pctr"})
    assert numbers(found, "new") == numbers(replay(pa.table(LOG), bid={"formula": "9 * pctr"}), "new")


def test_what_an_expression_says_of_a_nan_does_not_depend_on_the_rows_beside_it_in_the_file() -> None:
    """Spec section 4: the same rows give the same numbers, whatever the way that they are spread over files."""
    nan = float("nan")
    table = pa.table({**LOG, "x": [nan if i % 2 else i / ROWS for i in range(ROWS)]})
    keys = {
        "conditions": ["x <= 1 or price < 5"],
        "segments": [{"low": "x between 0 and 2"}],
        "bid": {"formula": "case when x > 5 then 8 else 12 * pctr end"},
    }
    found = []
    for size in (1, 7, ROWS):
        result = replay(table, row_group_size=size, **keys)
        found.append((result.data.rows, numbers(result, "new"), by_segment(result, "new", "low", ["wins"])))
    assert found[0] == found[1] == found[2]
    assert found[0][2]["false"]["wins"] == sum(i % 2 == 1 and i % 7 < 5 for i in range(ROWS))


def test_an_expression_that_a_csv_file_can_not_answer_is_named_by_its_key(tmp_path: Path) -> None:
    """The file's reader takes the cast for its own, and would blame the file."""
    (tmp_path / "log.csv").write_text("price,won,click,pctr,site\n" + "1,1,0,0.5,news\n" * 30)
    scenario = {
        "logs_tables": {"ad": {"path": str(tmp_path / "log.csv")}},
        "candidates": {"new": {"bid": {"multiplier": 2.0}}},
        "bid": {"formula": "9 * pctr"},
    }
    with pytest.raises(BidsimError, match=r"budget\.amount: needs a number .* 'news'"):
        bidsim.replay({**scenario, "budget": {"amount": "site", "per": "total"}}, threads=1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"auction": {"type": "third_price"}},
            'auction.type: "third_price" is neither second_price nor first_price nor',
        ),
        ({"budget": {"amount": 1, "per": "week"}}, 'budget.per: "week" is neither day, hour nor total, nor a column'),
    ],
)
def test_a_word_that_is_no_column_is_told_what_it_could_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BidsimError, match=message):
        replay(pa.table(LOG), bid={"formula": "9 * pctr"}, **keys)


def test_campaigns_that_the_campaign_table_lacks_are_said(tmp_path: Path) -> None:
    """Spec section 2: the table gives targets; a campaign without one is never bid on, which must not go unseen."""
    log = {**LOG, "campaign": ["a", "b", None] * (ROWS // 3)}
    for lines, lacking in (
        ("a,0.01\n", "40 rows are of 2 campaigns "),
        ("a,0.01\nb,0.02\n", "20 rows are of 1 campaign "),
    ):
        (tmp_path / "c.csv").write_text("campaign,target_cpc\n" + lines)
        result = replay(pa.table(log), campaigns=str(tmp_path / "c.csv"), performance_indicator_type="cpc")
        said = [f.message for f in result.findings if f.code == "campaigns_missing"]
        assert len(said) == 1
        assert said[0].startswith(lacking)
    whole = {**LOG, "campaign": ["a"] * ROWS}
    result = replay(pa.table(whole), campaigns=str(tmp_path / "c.csv"), performance_indicator_type="cpc")
    assert "campaigns_missing" not in {f.code for f in result.findings}


@pytest.mark.parametrize(("own", "borrowed"), [("pctr", ["cvr"]), ("pcvr", ["ctr"])])
def test_a_new_model_of_clicks_beside_productions_model_of_all_predicts_by_what_it_bids(
    own: str, borrowed: list[str]
) -> None:
    """Spec 3.2 and section 4: predicted conversions are what the policy itself predicted for its own wins."""
    n = 40
    log = {
        "price": [1.0] * n,
        "won": [1] * n,
        "click": [1] * n,
        "conversion": [i % 2 for i in range(n)],
        "pctr": [0.5] * n,
        "pcvr": [0.25] * n,
        "pctcvr": [0.0625] * n,
        "mine": [0.75] * n,
        "target_cpa": [1.0] * n,
    }
    result = replay(pa.table(log), candidates={"new": {"columns": {own: "mine"}}})
    other = 0.25 if own == "pctr" else 0.5
    assert numbers(result, "new")["predicted_conversions"] == n * 0.75 * other
    assert numbers(result, "new")["calibration", "ctcvr"] == n * 0.75 * other / (n / 2)
    assert numbers(result, "baseline")["predicted_conversions"] == n * 0.0625
    assert result.policies[1].formula == "1000 * target_cpa * pctr * pcvr"
    assert result.policies[1].borrowed_heads == borrowed


@pytest.mark.parametrize("budget", [None, {"amount": 0.02, "per": "total"}], ids=["plain", "budget"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [([-0.0, 0.0, 1.0], pa.float64()), ([[1], [1], [2]], pa.list_(pa.int64())), ([{"a": 1}, {"a": 1}, {"a": 2}], None)],
    ids=["zeros", "lists", "structs"],
)
def test_values_that_are_equal_are_one_campaign_and_one_segment_value_of_whatever_type(
    values: list[Any], kind: pa.DataType | None, budget: dict[str, Any] | None
) -> None:
    """Spec sections 3.7 and 4: a budget is per campaign, everything is given for each value of each segment."""
    given = {"budget": budget, "bid": {"formula": "9"}, "segments": ["ad", "campaign"]}
    found = []
    for ads, of in ((values, kind), (["a", "a", "b"], pa.string())):
        table = pa.table({**LOG, "unit": list(range(ROWS))}).drop_columns(["campaign"])
        table = table.append_column("ad", pa.array(ads * (ROWS // 3), type=of))
        result = replay(table, columns={"campaign": "ad"}, **{k: v for k, v in given.items() if v is not None})
        names = by_segment(result, "new", "ad", ["wins", "spend", "bids"])
        found.append([*names.values(), *by_segment(result, "new", "campaign", ["wins", "spend", "bids"]).values()])
        assert len(found[-1]) == 4
    assert found[0] == found[1]


def test_campaigns_of_128_bits_do_not_share_a_budget() -> None:
    keys = {"columns": {"campaign": "cast(n as hugeint)"}, "budget": {"amount": 0.01, "per": "total"}}
    log = {**LOG, "n": [2**60 + i % 3 for i in range(ROWS)], "price": [1.0] * ROWS}
    found = replay(pa.table(log).drop_columns(["campaign"]), bid={"formula": "9"}, segments=["campaign"], **keys)
    assert [v["wins"] for v in by_segment(found, "new", "campaign", ["wins"]).values()] == [10.0, 10.0, 10.0]


def test_a_segment_called_campaign_that_is_none_has_its_own_values() -> None:
    """Spec section 4: for each value of each segment; gauc is over campaigns, whatever segments are called."""
    log = pa.table({**LOG, "campaign": [i % 4 for i in range(ROWS)], "pctr": [i / ROWS for i in range(ROWS)]})
    plain = replay(log, bid={"formula": "9"}, segments=[{"pair": "campaign % 2"}])
    found = replay(log, bid={"formula": "9"}, segments=[{"campaign": "campaign % 2"}])
    assert by_segment(found, "new", "campaign", []) == by_segment(plain, "new", "pair", [])
    assert numbers(found, "new") == numbers(plain, "new")
    assert found.data.campaigns == 4


def test_a_segment_needs_a_name() -> None:
    with pytest.raises(BidsimError, match="a segment needs a name"):
        replay(pa.table(LOG), bid={"formula": "9"}, segments=[{"": "campaign"}])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"columns": {"price": "prices"}}, r"columns\.price: the log's column is DOUBLE\[\]"),
        ({"bid": {"formula": "prices"}}, r"bid\.formula: gives a DOUBLE\[\], where an amount of money is needed"),
        ({"conditions": ["prices"]}, r"conditions\.0: \"prices\" gives a DOUBLE\[\], where true or false is needed"),
    ],
    ids=["price", "bid", "condition"],
)
def test_a_list_of_numbers_is_no_number(keys: dict[str, Any], said: str) -> None:
    table = pa.table({**LOG, "prices": [[1.0]] * ROWS})
    with pytest.raises(BidsimError, match=said):
        replay(table, **{"bid": {"formula": "9"}, **keys})


def test_rows_of_the_campaign_table_without_a_campaign_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "campaigns.csv").write_text("campaign,name\na,A\n,B\n,C\n")
    found = replay(pa.table(LOG), bid={"formula": "9"}, campaigns=str(tmp_path / "campaigns.csv"))
    assert numbers(found, "new")["rows"] == ROWS


@pytest.mark.parametrize(
    ("kind", "first"),
    [(pa.uint64(), 0), (pa.uint64(), 2**63 - ROWS), (pa.decimal128(20, 0), 0), (pa.int32(), 0)],
    ids=["unsigned", "large", "decimal", "small"],
)
def test_the_same_units_fall_into_the_same_buckets_whatever_type_of_whole_number_they_are(
    kind: pa.DataType, first: int
) -> None:
    """Spec section 4: a hash that is the same on every engine; Spark reads unsigned numbers as decimals."""
    log = pa.table({**LOG, "price": [i / 10 for i in range(ROWS)]})
    ids = [None if i == 7 else first + i // 2 for i in range(ROWS)]
    found = [
        replay(log.append_column("unit", pa.array(ids, type=of)), bid={"formula": "9 * pctr"})
        for of in (pa.int64(), kind)
    ]
    assert found[0].metrics == found[1].metrics
    assert any(m.metric == "clicks" and m.low is not None for m in found[0].metrics)
    assert found[0].data.units == found[1].data.units


def test_units_beyond_64_bits_with_a_sign_are_told_apart() -> None:
    log = pa.table({**LOG, "unit": pa.array([2**64 - 1 - i for i in range(ROWS)], pa.uint64())})
    assert replay(log, bid={"formula": "9"}).data.units == ROWS


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({}, [("target_cpc", 40)]),
        ({"columns": {"target_cpc": "target_cpc"}}, []),
        ({"conditions": ["ad = 'a'"]}, []),
        ({"budget": {"amount": "daily_budget", "per": "total"}}, [("target_cpc", 40), ("daily_budget", 20)]),
    ],
    ids=["differ", "named", "equal", "budget"],
)
def test_a_target_that_log_and_campaign_table_give_otherwise_is_said_to_be_the_logs(
    tmp_path: Path, keys: dict[str, Any], rows: list[tuple[str, int]]
) -> None:
    """Spec section 2: the campaign table is joined for targets and budgets; what the log has itself counts."""
    (tmp_path / "campaigns.csv").write_text("ad,target_cpc,daily_budget,name\na,2,1,A\nb,2,3,B\nc,2,,C\n")
    log = {
        **LOG,
        "campaign": ["a", "b", "c"] * (ROWS // 3),
        "target_cpc": [2.0, 3.0, None] * (ROWS // 3),
        "daily_budget": [1, 2, 3] * (ROWS // 3),
    }
    keys = {**keys, "columns": {"campaign": "ad", **keys.get("columns", {})}}
    table = pa.table(log).rename_columns({"campaign": "ad"})
    result = replay(table, campaigns=str(tmp_path / "campaigns.csv"), **keys)
    said = [f.message for f in result.findings if f.code == "two_sources"]
    assert [m.split(" in the log")[0] for m in said] == [f"{n} rows have another {role}" for role, n in rows]
    assert all(f"columns: {{{role}: {role}}}" in m for m, (role, _) in zip(said, rows, strict=True))


def test_roles_left_out_are_the_logs_columns_and_only_targets_and_budgets_the_campaign_tables(tmp_path: Path) -> None:
    """Spec section 2: columns name the log's, the campaign table has targets, budgets and names."""
    (tmp_path / "campaigns.csv").write_text("campaign,bid,weight,time,floor,target_cpc\na,3,7,2020-01-01,99,4\n")
    log = pa.table({**LOG, "campaign": ["a"] * ROWS})
    found = replay(log, campaigns=str(tmp_path / "campaigns.csv"))
    plain = replay(log.append_column("target_cpc", pa.array([4.0] * ROWS)))
    assert numbers(found, "new") == numbers(plain, "new")
    assert not found.fidelity.checked
    named = {"weight": "weight", "bid": "bid"}
    assert numbers(replay(log, campaigns=str(tmp_path / "campaigns.csv"), columns=named), "new")["rows"] == 7 * ROWS


@pytest.mark.parametrize("budget", [None, {"amount": 0.1, "per": "total"}], ids=["plain", "budget"])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=["whole", "text"])
def test_a_row_without_a_unit_is_one_by_itself_whatever_its_price(
    kind: pa.DataType, budget: dict[str, Any] | None
) -> None:
    """Spec section 1: a unit's default is the row."""
    rows = 20 * ROWS
    log = {name: (values * 20)[:rows] for name, values in LOG.items() if name != "campaign"}
    log |= {"pctr": [(i + 1) / (rows + 1) for i in range(rows)], "time": [datetime(2026, 1, 1)] * rows}
    half = pa.array([str(i // 6) if i % 6 < 3 else None for i in range(rows)]).cast(kind)
    keys = {"bid": {"formula": "9"}, **({"budget": budget} if budget else {})}
    found = replay(pa.table({**log, "unit": half}), **keys)
    assert found.data.units == rows // 6 + rows // 2
    wins = next(m for m in found.metrics if (m.policy, m.metric) == ("new", "wins"))
    assert wins.value is not None
    assert wins.low is not None
    assert wins.high is not None
    assert wins.high - wins.low < (1.0 if budget else 0.3) * wins.value
