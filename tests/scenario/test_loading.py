"""Spec section 2: the scenario file. Every refusal is one message with file and line."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_text import EXTRACTION

from bidsim.errors import BidsimError, NotSupportedYetError, ScenarioError
from bidsim.scenario.loading import (
    LoadedScenario,
    json_schema,
    load_scenario,
    parse_scenario,
    refuse_unsupported,
    scenario_from_dict,
)

REPLAY = """\
columns:                           # log column (or SQL expression) for each role; defaults are the role names
  {time: ts, unit: user_id, request: request_id, campaign: ad_id, price: paying_price, bid: bid_price, won: is_win,
   click: is_click, conversion: cv, weight: sample_weight, pctr: pctr_prod, pcvr: pcvr_prod,
   target_cpc: tcpc, target_cpa: tcpa, daily_budget: budget}
campaigns: campaigns.csv
currency: JPY
timezone: Asia/Tokyo
baseline: {model: prod.bin}
candidates:
  v42: {columns: {pctr: pctr_v42}}
  v43: {model: v43.bin, bid: {multiplier: 0.9}}
bid: {formula: "1000 * target_cpa * pctr * pcvr", multiplier: 1.0, min: 0, max: 5000, round: none}
auction: {type: second_price, ties: win}
outcomes: observed
budget: {amount: daily_budget, per: day, pacing: asap, overspend: last_win}
segments: [campaign, hour]
intervals: {confidence: 0.95, unit: user_id}
maturity: {conversion_window_hours: 720, observed_until: "2017-11-15T12:00:00"}
gate: [{metric: cpa, max_increase: 1%}]
"""
BARE = "logs_tables: {ad: {}}\n"


def parse(text: str) -> LoadedScenario:
    return parse_scenario(text, file="scenario.yaml", directory=Path("/data"))


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return str(caught.value)


def test_an_extraction_config_loads_as_it_is() -> None:
    loaded = parse(EXTRACTION)
    scenario = loaded.scenario
    assert scenario.heads == ("ctr",)
    assert scenario.conditions == ["billing_type = 1", "is_application = 1"]
    assert scenario.features == ["ad_id", "hour", "spot_id"]
    assert scenario.remove_anomaly_cvr_cpns is True
    assert scenario.performance_indicator_type == "cpa"
    assert loaded.name == "scenario"
    assert loaded.window() == (datetime(2017, 10, 14, 13, tzinfo=UTC), datetime(2017, 10, 15, 13, tzinfo=UTC))


def test_what_the_replay_adds_loads_too() -> None:
    scenario = parse(EXTRACTION + REPLAY).scenario
    assert scenario.columns.price == "paying_price"
    assert scenario.columns.won == "is_win"
    assert refused(BARE + "columns: {win: a, won: b}\n").startswith(
        "scenario.yaml:2: columns: win and won are the same"
    )
    assert scenario.candidates["v43"].bid is not None
    assert scenario.candidates["v43"].bid.multiplier == 0.9
    assert scenario.bid.max == 5000


def test_the_historic_spelling_is_accepted_but_not_both() -> None:
    historic = EXTRACTION.replace("remove_anomaly", "remove_anormaly", 1)
    assert parse(historic).scenario.remove_anomaly_cvr_cpns is True
    both = BARE + "remove_anomaly_cvr_cpns: true\nremove_anormaly_cvr_cpns: true\n"
    assert refused(both).startswith("scenario.yaml:3: remove_anomaly_cvr_cpns stands twice")


def test_a_table_without_anything_is_bound_on_the_command_line() -> None:
    assert parse("logs_tables:\n  ad:\n").scenario.logs_tables["ad"].path is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BARE + "conditon: [a]\n", 'scenario.yaml:2: unknown key "conditon" (did you mean "conditions"?)'),
        (BARE + "x: [a]\n", 'scenario.yaml:2: unknown key "x"; known here are name, sample_type, logs_tables, '),
        (BARE + "bid:\n  formulla: x\n", 'scenario.yaml:3: unknown key "formulla" (did you mean "formula"?)'),
        (
            BARE + "candidates:\n  conditon:\n    colums: {}\n",
            'scenario.yaml:4: unknown key "colums" (did you mean "columns"?)',
        ),
        (
            BARE + "candidates:\n  v:\n    bid:\n      multipler: 1\n",
            'scenario.yaml:5: unknown key "multipler" (did you mean "multiplier"?)',
        ),
        ("logs_tables:\n  ad:\n    pth: x\n", 'scenario.yaml:3: unknown key "pth" (did you mean "path"?)'),
        (
            BARE + "gate:\n- metric: a\n  at_mots: 1\n",
            'scenario.yaml:4: unknown key "at_mots" (did you mean "at_most"?)',
        ),
        (BARE + "bid:\n  max: -3\n", "scenario.yaml:3: bid.max: must be greater than 0, got -3"),
        (BARE + "bid: {max: abc}\n", "scenario.yaml:2: bid.max: must be a number, got 'abc'"),
        (BARE + "bid: {max: true}\n", "scenario.yaml:2: bid.max: must be a number, got true"),
        (BARE + "bid: {max: .nan}\n", "scenario.yaml:2: bid.max: must be a finite number, got nan"),
        (BARE + "budget: {per: day}\n", "scenario.yaml:2: budget.amount is missing"),
        (BARE + "budget: {amount: [1]}\n", "scenario.yaml:2: budget.amount: must be text or a number, got a list"),
        (BARE + "conditions:\n", "scenario.yaml:2: conditions: must be a list, but it is empty"),
        (BARE + "conditions:\n- a\n- ''\n", "scenario.yaml:4: conditions.1: must not be empty"),
        (BARE + "sample_type: [imp-click, x]\n", "scenario.yaml:2: sample_type.1: must be 'imp-click', 'click-conv"),
        (BARE + "currency: yen\n", "scenario.yaml:2: currency: must be three capital letters such as JPY, got 'yen'"),
        (BARE + "remove_anomaly_cvr_cpns: yes\n", "scenario.yaml:2: remove_anomaly_cvr_cpns: must be true or false"),
        (BARE + "timezone: Asia/Tokio\n", 'scenario.yaml:2: timezone: there is no time zone "Asia/Tokio" (did you m'),
        (BARE + "gate:\n- {metric: cpa}\n", "scenario.yaml:3: gate.0: a rule has exactly one bound"),
        (
            BARE + "gate:\n- {metric: churn, head: ctr, max_increase: 0.1}\n",
            'scenario.yaml:3: gate.0: max_increase bounds a change, and "churn" is of the candidate alone',
        ),
        (BARE + "name: a\nname: b\n", 'scenario.yaml:3: the key "name" stands twice'),
        (BARE + "name: &x a\n", "scenario.yaml:2: anchors and aliases"),
        (BARE + "name: !!python/object:os.system a\n", "scenario.yaml:2: the tag !!python/object:os.system"),
        (BARE + "<<: {name: a}\n", "scenario.yaml:2: merging with <<"),
        (BARE + "---\nname: a\n", "scenario.yaml:2: a second YAML document"),
        ("%YAML 1.1\n---\n" + BARE, "scenario.yaml:1: directives"),
        (BARE + "1: x\n", "scenario.yaml:2: the key 1 is not text"),
        ("\tname: x\n", "scenario.yaml:1:1: not valid YAML: found character '\\t'"),
        ("name: [1\n", "scenario.yaml:2:1: not valid YAML"),
        ("", "scenario.yaml: the scenario is empty"),
        ("# nothing\n", "scenario.yaml: the scenario is empty"),
        ("- a\n", "scenario.yaml:1: a scenario is a mapping"),
        ("[" * 5000, "scenario.yaml:1: nested more than 20 deep"),
        ("{a: " * 3000, "scenario.yaml:1: nested more than 20 deep"),
        (BARE + "bid: {max: " + "9" * 5000 + "}\n", "scenario.yaml:2: a number has at most 300 digits"),
        (BARE + "name: \x00\n", "scenario.yaml:2: has control characters"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_a_scenario_that_would_take_long_to_read_is_not_read() -> None:
    many = "".join(f"k{i}: 1\n" for i in range(20_000))
    assert refused(many) == "scenario.yaml:15001: more than 30000 keys and values; a scenario is smaller"
    assert "conditions: must have at most 200 entries" in refused(BARE + "conditions:\n" + "  - a > 1\n" * 201)
    assert "segments: must have at most 500 entries" in refused(BARE + "segments:\n" + "  - a\n" * 501)


def test_several_mistakes_are_all_told_each_with_its_line() -> None:
    said = refused(BARE + "bid:\n  max: -1\n  min: -1\nauction:\n  ties: x\n").splitlines()
    assert [line.split(" ")[0] for line in said] == ["scenario.yaml:4:", "scenario.yaml:3:", "scenario.yaml:6:"]


@pytest.mark.parametrize("hour", ['"2017-10-15T12:00:00"', "2017-10-15T12:00:00", "2017-10-15 12:00:00"])
@pytest.mark.parametrize(
    ("zone", "offset", "start"),
    [("UTC", "", 13), ("Asia/Tokyo", "", 4), ("Asia/Tokyo", "+05:00", 8), ("Asia/Tokyo", "Z", 13)],
)
def test_times_without_an_offset_are_in_the_time_zone(hour: str, zone: str, offset: str, start: int) -> None:
    hour = hour[:-1] + offset + '"' if hour.endswith('"') else hour + offset
    loaded = parse(f"logs_tables: {{ad: {{last_hour: {hour}, duration_hour: 24}}}}\ntimezone: {zone}\n")
    assert loaded.window() == (datetime(2017, 10, 14, start, tzinfo=UTC), datetime(2017, 10, 15, start, tzinfo=UTC))


def test_hours_of_the_window_are_elapsed_hours() -> None:
    """On 29 March 2026 clocks in Berlin skip an hour: 24 hours back from midnight is 22:00 the day before."""
    text = "logs_tables: {ad: {last_hour: 2026-03-29T23:00, duration_hour: 24}}\ntimezone: Europe/Berlin\n"
    assert parse(text.replace("T23:00", "T23:00:00")).window() == (
        datetime(2026, 3, 28, 22, tzinfo=UTC),
        datetime(2026, 3, 29, 22, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{last_hour: '2017-10-15T12:30:00', duration_hour: 1}", "not a whole hour"),
        ("{last_hour: yesterday, duration_hour: 1}", "not a time"),
        ("{last_hour: '2017-10-15T12:00:00'}", "go together"),
        ("{last_hour: '2017-10-15T12:00:00', duration_hour: 0}", "must be at least 1"),
        ("{last_hour: '2017-10-15T12:00:00', duration_hour: 1.5}", "must be a whole number"),
        ("{last_hour: '2017-10-15T12:00:00', duration_hour: 99999999999999}", "beyond the years"),
        ("{last_hour: '9999-12-31T23:00:00', duration_hour: 1}", "beyond the years"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(table: str, message: str) -> None:
    said = refused(f"name: x\nlogs_tables:\n  ad: {table}\n")
    assert message in said
    assert said.startswith("scenario.yaml:3:")


RULE = "gate:\n- metric: cpa\n  at_most: 1\n  evidence: point\n"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("outcomes: predicted\nbudget: {amount: 5}\n", 2, "outcomes: predicted under a budget"),
    ],
)
def test_what_comes_later_is_refused_and_never_ignored(text: str, line: int, key: str) -> None:
    loaded = parse(BARE + text)
    with pytest.raises(NotSupportedYetError) as caught:
        refuse_unsupported(loaded)
    assert str(caught.value).startswith(f"scenario.yaml:{line}: {key} is not supported yet")


@pytest.mark.parametrize(("key", "form"), [("version", "delta"), ("snapshot", "iceberg")])
def test_versions_are_of_their_format(key: str, form: str) -> None:
    parse(f"logs_tables:\n  ad:\n    format: {form}\n    {key}: 3\n")
    for other in ("parquet", "delta" if form == "iceberg" else "iceberg"):
        with pytest.raises(ScenarioError, match=f"{key} is of a table with format: {form}"):
            parse(f"logs_tables:\n  ad:\n    format: {other}\n    {key}: 3\n")


def test_one_table_for_now() -> None:
    with pytest.raises(NotSupportedYetError, match=r"^scenario.yaml:3: .*second table"):
        parse("logs_tables:\n  ad: {}\n  more: {}\n")


def test_what_is_supported_passes() -> None:
    refuse_unsupported(parse(EXTRACTION + RULE))


def test_files_that_are_no_scenario(tmp_path: Path) -> None:
    cases = {"binary.yaml": b"\x89PNG\r\n\x1a\n\x00", "latin.yaml": b"a: 1\nb: \xe9\n", "big.yaml": b"#" * 1_048_577}
    said = {}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name in [*cases, ".", "missing.yaml"]:
        with pytest.raises(ScenarioError) as caught:
            load_scenario(tmp_path / name)
        said[name] = str(caught.value).removeprefix(str(tmp_path)).removeprefix("/")
    assert said["binary.yaml"].startswith("binary.yaml:1: not UTF-8")
    assert said["latin.yaml"].startswith("latin.yaml:2: not UTF-8")
    assert "at most 1048576 bytes" in said["big.yaml"]
    assert "is a folder" in said["."]
    assert "no such file" in said["missing.yaml"]


def test_relative_paths_are_relative_to_the_scenario_file(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(BARE)
    loaded = load_scenario(tmp_path / "demo.yaml")
    assert loaded.name == "demo"
    assert loaded.resolve("logs/a.parquet") == tmp_path.resolve() / "logs/a.parquet"
    assert loaded.resolve("/logs/a.parquet") == Path("/logs/a.parquet")


def test_the_hash_is_of_the_content_not_of_the_layout() -> None:
    one = parse("name: a\nlogs_tables: {ad: {}}   # comment\n")
    two = parse("logs_tables:\n  ad: {}\nname: 'a'\n")
    assert one.sha256 == two.sha256 != parse(BARE).sha256
    assert scenario_from_dict(one.document, directory=Path()).sha256 == one.sha256


def test_lines_of_keys() -> None:
    loaded = parse(EXTRACTION)
    assert loaded.line_of("conditions", 1) == 8
    assert loaded.line_of("logs_tables", "ad", "duration_hour") == 5
    assert loaded.line_of("logs_tables", "ad", "path") == 3
    assert str(loaded.error("no", "conditions", 0)) == "scenario.yaml:7: no"


def test_a_scenario_from_python_has_no_lines() -> None:
    loaded = scenario_from_dict({"logs_tables": {"ad": {"path": Path("a.csv")}}}, directory=Path("/x"))
    assert loaded.scenario.logs_tables["ad"].path == "a.csv"
    with pytest.raises(ScenarioError, match=r'^scenario: unknown key "bidd"'):
        scenario_from_dict({"logs_tables": {"ad": {}}, "bidd": 1}, directory=Path())
    with pytest.raises(ScenarioError, match="object is not a value"):
        scenario_from_dict({"logs_tables": {"ad": {"path": object()}}}, directory=Path())


def test_the_json_schema_accepts_what_loads_and_names_the_historic_key() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "remove_anormaly_cvr_cpns" in schema["properties"]
    jsonschema.validate(parse(EXTRACTION + REPLAY).document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"logs_tables": {"ad": {}}, "conditon": []}, schema)


def test_loading_pays_for_no_engine() -> None:
    code = "import sys, bidsim.scenario.loading; print([m for m in ('duckdb', 'scipy', 'sqlglot', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


YAMLISH = st.lists(
    st.sampled_from([*"{}[]:,-#&*!|>'\"%@`?\n\t ", "  ", "\n  ", "\n- ", ": ", "logs_tables", "ad", "bid", "max", "gate",
                     "conditions", "1", "0x", "null", "~", "2017-99-99", "12:00", ".inf", "1e5", "é", "---", "...", "<<"]),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=60), YAMLISH.map("".join), YAMLISH.map(lambda parts: BARE + "".join(parts))))
def test_no_text_raises_anything_but_our_error(text: str) -> None:
    try:
        parse(text)
    except BidsimError as error:
        said = str(error)
    else:
        return
    assert said.startswith("scenario.yaml")
