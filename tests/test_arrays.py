"""Arrow and numpy arrays into each other, beside pyarrow's own conversions, and that none of it imports pandas."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command import SCENARIO, write_log, write_model, write_scenario
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.arrays import array_of, array_of_texts, texts_of, values_of

NUMBERS = st.sampled_from([pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()])
CUTS = st.tuples(st.integers(0, 20), st.integers(0, 40))


@settings(deadline=None)
@given(NUMBERS, st.lists(st.none() | st.integers(0, 100), max_size=40), CUTS)
def test_numbers_are_those_of_the_array(kind: pa.DataType, numbers: list[int | None], cut: tuple[int, int]) -> None:
    array = pa.array(numbers, kind)[slice(*cut)]
    found = values_of(array, 7)
    assert found.dtype == kind.to_pandas_dtype()
    assert found.tolist() == [7 if n is None else n for n in array.to_pylist()]


@settings(deadline=None)
@given(st.lists(st.none() | st.booleans(), max_size=40), CUTS, st.booleans())
def test_flags_are_those_of_the_array(flags: list[bool | None], cut: tuple[int, int], missing: bool) -> None:
    array = pa.array(flags, pa.bool_())[slice(*cut)]
    assert values_of(array, missing).tolist() == [missing if f is None else f for f in array.to_pylist()]


@settings(deadline=None)
@given(st.lists(st.text(max_size=5) | st.just("底\0x"), max_size=20), st.tuples(st.integers(0, 5), st.integers(0, 20)))
def test_texts_are_those_of_the_array(texts: list[str], cut: tuple[int, int]) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        array = pa.array(texts, kind)[slice(*cut)] if kind != pa.string_view() else pa.array(texts, kind)
        assert texts_of(array) == array.to_pylist()
    assert array_of_texts(texts).equals(pa.array(texts, pa.string()))


@settings(deadline=None)
@given(
    st.sampled_from(["bool", "uint8", "int16", "int32", "int64", "float64"]),
    st.lists(st.integers(0, 100), max_size=40),
    st.integers(1, 3),
)
def test_arrays_are_what_pyarrow_makes_of_the_values(kind: str, numbers: list[int], step: int) -> None:
    values = np.array(numbers).astype(kind)[::step]
    made = array_of(values)
    made.validate(full=True)
    assert made.equals(pa.array(values))


def test_nan_stays_nan_and_is_no_null() -> None:
    made = array_of(np.array([1.0, np.nan]))
    assert made.null_count == 0
    assert np.isnan(made[1].as_py())


def test_nulls_that_nothing_stands_in_for_and_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="1 nulls in an array where none can be"):
        values_of(pa.array([1, None]))
    with pytest.raises(ValueError, match="string array where numbers"):
        values_of(pa.array(["a"]))
    with pytest.raises(ValueError, match="1 nulls where texts"):
        texts_of(pa.array(["a", None]))


@pytest.mark.parametrize(
    "more", [{}, {"budget": {"amount": 0.9, "per": "day"}}, {"columns": {**SCENARIO["columns"], "unit": "request_id"}}]
)
def test_a_replay_imports_no_pandas(tmp_path: Path, more: dict[str, Any]) -> None:
    log, model = write_log(tmp_path / "log.parquet"), write_model(tmp_path / "m.bin")
    scenario = write_scenario(tmp_path / "s.yaml", {**SCENARIO, **more})
    command = ["replay", "--scenario", str(scenario), "--table", f"ad={log}", "--model", str(model)]
    code = (
        "import importlib.util, json, sys\n"
        "from bidsim.cli import run\n"
        f"status = run({json.dumps([*command, '--out', str(tmp_path / 'run')])})\n"
        "print(json.dumps([status, 'pandas' in sys.modules, importlib.util.find_spec('pandas') is not None]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    status, imported, there = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert there, "pandas has to be installed for this test to say anything"
    assert not imported
