"""Crosses, parts of the time and lists as features of the libraries' models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidsim.errors import ModelError
from bidsim.models import open_bundle
from bidsim.models.feature_file import FeatureFile, read_feature_file
from bidsim.models.packing import pack_models
from tests.command import bidsim, write_log, write_scenario
from tests.models.library_models import BATCH, FRAME, LABEL

CROSSED = FRAME.assign(os_ad=FRAME.os + "_" + FRAME.ad_id.astype(str))[["x", "os_ad"]]


def said(folder: Path, text: str) -> FeatureFile:
    (folder / "f.yaml").write_text(text, encoding="utf-8")
    return read_feature_file(folder / "f.yaml")


def lightgbm_crossed(path: Path) -> Any:
    frame = CROSSED.assign(os_ad=CROSSED.os_ad.astype("category"))
    model = lightgbm.LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1).fit(frame, LABEL)
    model.booster_.save_model(path)
    return model.predict_proba(frame)[:, 1]


def xgboost_codes(path: Path) -> Any:
    """Given codes, so that only the features file knows the categories."""
    import xgboost

    frame = CROSSED.assign(os_ad=CROSSED.os_ad.astype("category").cat.codes)
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(frame, LABEL)
    model.save_model(path)
    return model.predict_proba(frame)[:, 1]


def catboost_crossed(path: Path) -> Any:
    import catboost

    model = catboost.CatBoostClassifier(
        iterations=8, depth=3, verbose=0, cat_features=["os_ad"], allow_writing_files=False, thread_count=1
    ).fit(CROSSED, LABEL)
    model.save_model(str(path))
    return model.predict_proba(CROSSED)[:, 1]


@pytest.mark.parametrize(
    ("file", "train", "more"),
    [
        ("m.txt", lightgbm_crossed, ""),
        ("m.json", xgboost_codes, f", categories: {json.dumps(sorted(CROSSED.os_ad.unique()))}"),
        ("m.cbm", catboost_crossed, ""),
    ],
)
def test_a_cross_is_the_joined_text_of_its_parts(tmp_path: Path, file: str, train: Any, more: str) -> None:
    own = train(tmp_path / file)
    features = said(tmp_path, f"features: {{os_ad: {{cross: [os, ad]{more}}}, ad: {{column: ad_id}}}}")
    pack_models({"ctr": tmp_path / file}, features, out=tmp_path / "m.bin").write(tmp_path / "m.bin")
    scorer = open_bundle(tmp_path / "m.bin").scorer()
    assert set(scorer.features) == {"x", "os", "ad_id"}
    np.testing.assert_allclose(scorer.score(BATCH)["ctr"], own, rtol=2e-6)


def test_a_cross_with_a_missing_part_is_missing(tmp_path: Path) -> None:
    lightgbm_crossed(tmp_path / "m.txt")
    features = said(tmp_path, "features: {os_ad: {cross: [os, ad_id]}}")
    scorer = pack_models({"ctr": tmp_path / "m.txt"}, features, out=tmp_path / "m.bin").scorer()
    batch = pa.RecordBatch.from_pydict({"x": [0.5] * 3, "os": [None, "ios", "beos"], "ad_id": [100, None, 100]})
    scores = scorer.score(batch)["ctr"]
    booster = lightgbm.Booster(model_file=tmp_path / "m.txt")
    np.testing.assert_allclose(scores, booster.predict(np.array([[0.5, np.nan]] * 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features: {os_ad: {cross: [os, x]}}", r'"os_ad" crosses "x", which is numeric; .* x_value: \{type: categ'),
        ("features: {os_ad: {cross: [os, b]}, b: {cross: [os, c]}}", r"crosses b, which is no categorical feature of"),
        ("features: {os_ad: {separator: '-'}}", r"has a separator but is no cross"),
        ("features: {os_ad: {cross: [os, ad_id], column: z}}", r"is a cross: it is categorical and has no column"),
        ("features: {os_ad: {cross: [os]}}", r"features\.os_ad"),
        (
            "features: {os_ad: list}",
            r'"os_ad" is a list, but a LightGBM model takes one value: give it a column for each',
        ),
    ],
)
def test_what_is_no_cross_or_no_single_value_is_refused(tmp_path: Path, text: str, message: str) -> None:
    lightgbm_crossed(tmp_path / "m.txt")
    with pytest.raises(ModelError, match=rf"f\.yaml.*{message}"):
        pack_models({"ctr": tmp_path / "m.txt"}, said(tmp_path, text), out=tmp_path / "m.bin",
                    features_name=str(tmp_path / "f.yaml"))  # fmt: skip


def test_a_list_in_the_log_is_refused_by_name_and_both_types(tmp_path: Path) -> None:
    lightgbm_crossed(tmp_path / "m.txt")
    features = said(tmp_path, "features: {os_ad: {column: tags}}")
    scorer = pack_models({"ctr": tmp_path / "m.txt"}, features, out=tmp_path / "m.bin").scorer()
    batch = pa.RecordBatch.from_pydict({"x": [0.5], "tags": [[1, 2]]})
    with pytest.raises(ModelError, match=r'"os_ad" is categorical in the model, but column "tags" is list<.*int64'):
        scorer.score(batch)


def test_hour_and_weekday_are_those_of_the_scenarios_zone(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet")
    rows = pq.read_table(log)
    local = pd.DatetimeIndex(rows["ts"].to_pandas()).tz_convert("Asia/Tokyo")
    # hour as a number, weekday (Monday is 1) as a category.
    frame = pd.DataFrame({"hour": local.hour, "weekday": pd.Categorical(local.day_of_week + 1)})
    assert frame.weekday.nunique() > 1
    click = np.asarray(rows["click"]) | ((local.hour > 15) & (np.arange(len(local)) % 3 == 0))
    model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=5, min_data_per_group=5, verbose=-1, n_jobs=1)
    own = model.fit(frame, click).predict_proba(frame)[:, 1]
    assert len(np.unique(own)) > 5
    model.booster_.save_model(tmp_path / "ctr.txt")
    with_column = write_log(
        tmp_path / "with.parquet", rows.drop_columns("pctr_v2").append_column("pctr_v2", pa.array(own))
    )
    zone = {"timezone": "Asia/Tokyo"}
    plain = write_scenario(tmp_path / "plain.yaml", zone, without=("candidates",))
    written = write_scenario(tmp_path / "s.yaml", zone)
    found = []
    for scenario, path, more in ((plain, log, ["--model", tmp_path / "ctr.txt"]), (written, with_column, [])):
        out = bidsim("replay", "--scenario", scenario, "--table", f"ad={path}", *more, "--json", "--quiet",
                     "--out", tmp_path / f"run-{path.stem}")  # fmt: skip
        assert out.status == 0, out.err
        metrics = json.loads(out.out)["metrics"]
        overall = [m for m in metrics if not m["segment"] and m["policy"] in ("ctr", "v2")]
        found.append({(m["metric"], m["head"]): m["value"] for m in overall})
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert len(found[0]) > 10
