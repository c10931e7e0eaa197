"""A space of hyperparameters says what is wrong with it by file, line and key, and draws what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bidsim.errors import BidsimError
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.space import Space, load_space

GOOD = """
train_hours: 48                      # one value for all trials
learning_rate: {low: 0.01, high: 1, log: true}
bits: {low: 10, high: 20, step: 2}
cvr.l2: {low: 1, high: 100}
crosses: {choices: [[], [[ad, spot]]]}
"""


def load(folder: Path, text: str) -> Space:
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(folder / "space.yaml", Hyperparameters({"l2": 3}, "h.json"))


def test_single_values_are_shared_and_the_rest_is_drawn(tmp_path: Path) -> None:
    space = load(tmp_path, GOOD)
    assert space.base.shared.train_hours == 48
    assert sorted(space.axes) == ["bits", "crosses", "cvr.l2", "learning_rate"]
    kinds = {key: type(d).__name__ for key, d in space.distributions().items()}
    assert kinds == {
        "learning_rate": "FloatDistribution",
        "bits": "IntDistribution",
        "cvr.l2": "FloatDistribution",
        "crosses": "CategoricalDistribution",
    }
    drawn = space.hyperparameters({"learning_rate": 0.5, "bits": 12, "cvr.l2": 7.0, "crosses": '[["ad", "spot"]]'})
    ctr, cvr = drawn.head("ctr").model_dump(), drawn.head("cvr").model_dump()
    assert (ctr["learning_rate"], ctr["bits"], ctr["l2"], ctr["crosses"]) == (0.5, 12, 3, [["ad", "spot"]])
    assert cvr["l2"] == 7


def test_the_shared_values_are_the_first_trial_where_they_lie_in_the_space(tmp_path: Path) -> None:
    start = load(tmp_path, GOOD).start()
    assert start == {"learning_rate": 0.1, "bits": 18, "cvr.l2": 3, "crosses": "[]"}
    assert load(tmp_path, "bits: {low: 10, high: 12}").start() is None
    assert load(tmp_path, "bits: {low: 17, high: 21, step: 2}").start() is None
    assert load(tmp_path, "bits: {choices: [10, 12]}").start() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "space.yaml: is empty"),
        ("bits: 10", "nothing to tune"),
        (
            "\nlearning_rat: {low: 1, high: 2}",
            'space.yaml:2: unknown key "learning_rat" (did you mean "learning_rate"?)',
        ),
        (
            "learning_rate:\n  low: 1\n  hihg: 2",
            'space.yaml:3: learning_rate: unknown key "hihg" (did you mean "high"?)',
        ),
        ("learning_rate: {low: 2, high: 1}", "space.yaml:1: learning_rate: low must be less than high"),
        ("learning_rate: {low: 0, high: 1, log: true}", "begins above 0"),
        ("learning_rate: {low: 1}", "both low and high"),
        ("learning_rate: {low: 1, high: 2, choices: [1]}", "give low and high, or choices"),
        ("learning_rate: {low: -1, high: 2}", "space.yaml:1: learning_rate: must be greater than 0"),
        ("l2: 1\nbits: {low: 10, high: 40}", "space.yaml:2: bits: must be at most 28"),
        ("bits: {low: 1.5, high: 4}", "space.yaml:1: bits is a whole number"),
        ("bits: {choices: [4, many]}", "space.yaml:1: bits: must be a whole number"),
        ("bits: {choices: [4, 4]}", "a choice stands twice"),
        ("leaves: {low: 4, high: 9}", '"leaves" is a hyperparameter of lightgbm'),
        ("seed: {low: 4, high: 9}", "seed can't be tuned"),
        ("bits: {low: 4, high: 9}\nl2: fast", "space.yaml:2: l2: must be a number"),
        ("bits: {low: 4, high: 9}\nbits: 3", 'the key "bits" stands twice'),
        ("bits: {low: &a 4, high: *a}", "anchors"),
        ("bits: {low: 10, high: 12, step: 5}", "space.yaml:1: bits: the step 5 leads beyond high, 12"),
        ("- bits", "space.yaml:1: a space is a mapping of keys, such as learning_rate: {low: "),
    ],
)
def test_what_cannot_be_tuned_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BidsimError) as raised:
        load(tmp_path, text)
    assert message in str(raised.value)


def test_a_range_ends_with_its_last_whole_step(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    found = load(tmp_path, "bits: {low: 10, high: 15, step: 2}\nl2: {low: 0.1, high: 0.75, step: 0.2}").distributions()
    assert (found["bits"].high, found["l2"].high) == (14, pytest.approx(0.7))
    even = load(tmp_path, "l2: {low: 0, high: 0.3, step: 0.1}").distributions()["l2"]
    assert even.high == pytest.approx(0.3)
    assert not [w for w in recwarn if "step" in str(w.message)]
