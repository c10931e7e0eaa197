"""Hyperparameters are checked key by key, whether given as JSON values or as texts; messages name file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import bidsim

from bidsim.errors import BidsimError
from bidsim.training.hyperparameters import Hashed, Hyperparameters, load_hyperparameters


def load(folder: Path, content: str) -> Hyperparameters:
    (folder / "h.json").write_text(content, encoding="utf-8")
    return load_hyperparameters(folder / "h.json")


def test_values_given_as_texts_are_those_values(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "model": "factorization_machine",
        "learning_rate": 0.25,
        "bits": 12,
        "crosses": [["ad", "spot"]],
        "numeric": ["age"],
        "cvr.l2": 8,
        "train_hours": 48,
    }
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    assert load(tmp_path, json.dumps(values)).content() == load(tmp_path, json.dumps(texts)).content()
    # Tuning services write whole numbers with a fraction.
    assert Hyperparameters({**texts, "bits": "12.0"}).content() == Hyperparameters(values).content()


def test_a_key_with_a_head_counts_for_that_head() -> None:
    found = Hyperparameters({"l2": 2, "cvr.l2": 9, "cvr.bits": 10})
    ctr, cvr = found.head("ctr"), found.head("cvr")
    assert isinstance(ctr, Hashed)
    assert isinstance(cvr, Hashed)
    assert (ctr.bits, ctr.model_dump()["l2"]) == (18, 2)
    assert (cvr.bits, cvr.model_dump()["l2"]) == (10, 9)


def test_only_what_counts_for_training_is_content() -> None:
    assert Hyperparameters({"train_hours": 5}).content() == Hyperparameters({}).content()
    assert Hyperparameters({"l2": 5}).content() != Hyperparameters({}).content()
    assert Hyperparameters({"l2": 1.0}).content() == Hyperparameters({}).content()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"learning_rat": 1}', 'h.json: unknown key "learning_rat" (did you mean "learning_rate"?)'),
        ('{"algorithm": "lightgbm"}', 'h.json: unknown key "algorithm"; known here are model, train_hours, '),
        ('{"learning_rate": 0}', "h.json: learning_rate: must be greater than 0, got 0"),
        ('{"learning_rate": "fast"}', "h.json: learning_rate: must be a number, got 'fast'"),
        ('{"bits": 40}', "h.json: bits: must be at most 28, got 40"),
        ('{"bits": 1.5}', "h.json: bits: must be a whole number"),
        ('{"cvr.bits": 40}', "h.json: cvr.bits: must be at most 28, got 40"),
        ('{"cvr.seed": 4}', "cvr.seed: seed is the same for all heads"),
        ('{"model": "lightgbm", "cvr.max_categories": 9}', "max_categories is the same for all heads"),
        ('{"model": "hashed_logistics"}', '(did you mean "hashed_logistic"?)'),
        ('{"model": ["lightgbm"]}', "there is no model"),
        ('{"leaves": 4}', '"leaves" is a hyperparameter of lightgbm, not of hashed_logistic'),
        ('{"model": "lightgbm", "crosses": []}', "factorization_machine, not of lightgbm"),
        ('{"bits": 4, "bits": 5}', 'the key "bits" stands twice'),
        ('{"l2": NaN}', "NaN is no number"),
        ('{"l2": 1e999}', "out of range"),
        ('{"l2": "Infinity"}', "l2: must be a number"),
        ("{", "h.json:1:2: is not JSON"),
        ("[]", "no mapping of keys"),
        ("[" * 100_000, "is not JSON"),
        ('{"crosses": [["ad"]]}', "crosses.0: must have at least 2 entries"),
        ('{"max_miscalibration": 1}', "max_miscalibration: must be greater than 1"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_key(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BidsimError) as raised:
        load(tmp_path, content)
    assert message in str(raised.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BidsimError, match="no such file; check --hyperparameters"):
        load_hyperparameters(tmp_path / "none.json")


def test_a_library_that_lacks_is_told_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec section 1: the extra is named; the scenario that comes after is not even there."""
    monkeypatch.setattr("bidsim.training.hyperparameters.find_spec", lambda name: None)
    (tmp_path / "h.json").write_text('{"model": "lightgbm"}')
    said = bidsim("train", "--scenario", "s.yaml", "--hyperparameters", "h.json", "-o", "m.bin", cwd=tmp_path)
    assert (said.status, said.err) == (
        2,
        "bidsim: error: model lightgbm needs LightGBM: pip install 'bidsim[lightgbm]'\n",
    )
