"""What a scenario may set of Spark, and what is missing: one message each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bidsim
from bidsim.cli_options import parse_engine, parse_spark
from bidsim.errors import BidsimError, ScenarioError
from bidsim.replay.spark.session import FIXED, open_session, refused_settings


def scenario(folder: Path, **keys: Any) -> dict[str, Any]:
    pq.write_table(pa.table({"price": [1.0, 2.0], "click": [0, 1], "pctr": [0.1, 0.2]}), folder / "log.parquet")
    return {
        "logs_tables": {"ad": {"path": str(folder / "log.parquet")}},
        "bid": {"formula": "10 * pctr"},
        "candidates": {"new": {"bid": {"multiplier": 2.0}}},
        "engine": "spark",
        **keys,
    }


@pytest.mark.parametrize(
    "setting",
    [
        "spark.jars",
        "spark.jars.packages",
        "spark.driver.extraJavaOptions",
        "spark.executor.extraJavaOptions",
        "spark.executor.extraClassPath",
        "spark.pyspark.python",
        "spark.executorEnv.LD_PRELOAD",
        "spark.sql.extensions",
        "spark.sql.catalog.x",
        "spark.plugins",
        "spark.remote",
        "spark.master",
        "spark.sql.warehouse.dir",
        "spark.hadoop.fs.s3a.endpoint",
        "spark.submit.pyFiles",
        "spark.sql.ansi.enabled",
        "spark.sql.session.timeZone",
        "spark.executor.memoryX",
    ],
)
def test_a_scenario_sets_nothing_that_loads_code_or_changes_answers(tmp_path: Path, setting: str) -> None:
    document = scenario(tmp_path, spark={"config": {"spark.sql.shuffle.partitions": 4, setting: "x"}})
    with pytest.raises(ScenarioError, match=f"a scenario may not set {setting}") as caught:
        bidsim.replay(document)
    assert "--spark" in caught.value.message


def test_settings_that_change_speed_are_a_scenarios_to_make() -> None:
    config = {
        "spark.sql.shuffle.partitions": "4",
        "spark.executor.memory": "4g",
        "spark.dynamicAllocation.enabled": "true",
    }
    assert refused_settings(config) == []


def test_a_scenarios_master_is_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"spark\.master"):
        bidsim.replay(scenario(tmp_path, spark={"master": "spark://elsewhere:7077"}))
    with pytest.raises(ScenarioError, match="remote"):
        bidsim.replay(scenario(tmp_path, spark={"remote": "sc://elsewhere"}))


def test_settings_that_answers_depend_on_are_nobodys() -> None:
    for name in FIXED:
        with pytest.raises(BidsimError, match="results depend on it"):
            open_session(remote=None, master=None, config={name: "x"}, threads=1, memory_bytes=2**30)


def test_without_pyspark_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(BidsimError, match=r"pip install 'bidsim\[spark\]'"):
        bidsim.replay(scenario(tmp_path))


def test_without_java_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setattr(sql.SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BidsimError, match="needs Java 17"):
        bidsim.replay(scenario(tmp_path))


def test_the_command_line_names_engines_and_settings() -> None:
    assert parse_engine("spark") == "spark"
    with pytest.raises(BidsimError, match="there are duckdb and spark"):
        parse_engine("flink")
    assert parse_spark(["remote=sc://host:15002", "spark.jars=a.jar"]) == {
        "remote": "sc://host:15002",
        "spark.jars": "a.jar",
    }
    for entry in ("spark.jars", "jars=a.jar", "remote="):
        with pytest.raises(BidsimError, match="--spark"):
            parse_spark([entry])


def test_other_commands_say_that_they_run_on_duckdb(tmp_path: Path) -> None:
    from bidsim.checks.run import run_check
    from bidsim.scenario.loading import scenario_from_dict

    with pytest.raises(ScenarioError, match="runs on DuckDB only"):
        run_check(scenario_from_dict(scenario(tmp_path), directory=tmp_path), [])
