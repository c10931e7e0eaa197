"""A search is the same for a seed, whatever the number of workers and however often it was killed; what it found is
judged on rows that it never saw."""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from command import bidsim, process
from small_market import START, write_market

from bidsim.errors import BidsimError
from bidsim.scenario.loading import load_scenario
from bidsim.store.scan import scan
from bidsim.training import tune as module
from bidsim.training.examples import open_extraction
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.space import load_space
from bidsim.training.trial import Objective, Outcome, make_objective
from bidsim.training.tune import Tuned, Tuning, _thresholds, tune

SPACE = """
train_hours: 96
rounds: 3
max_miscalibration: 4
learning_rate: {low: 0.01, high: 2, log: true}
bits: {low: 6, high: 14}
"""
DAY = date(2026, 12, 1)


def write_space(folder: Path, text: str = SPACE) -> Path:
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return folder / "space.yaml"


def tuning(scenario: Path, work: str, trials: int = 6, **options: Any) -> Tuning:
    space = load_space(write_space(scenario.parent), Hyperparameters({}))
    return Tuning(load_scenario(scenario), space, scenario.parent / work, DAY, trials=trials, seed=3, **options)


def told(found: Tuned) -> list[tuple[Any, ...]]:
    return [(o.number, o.values, o.state, o.value, o.curve) for o in found.outcomes]


def test_a_seed_gives_the_same_search_with_any_number_of_workers(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    alone = tune(tuning(scenario, "a"))
    together = tune(tuning(scenario, "b"), jobs=2)
    assert told(alone) == told(together)
    assert alone.best == together.best
    assert len({json.dumps(o.values) for o in alone.outcomes}) == 6
    # The hyperparameters as they come are the first trial.
    assert alone.outcomes[0].values == {"learning_rate": 0.1, "bits": 14} or alone.outcomes[0].number == 0
    best = min((o for o in alone.outcomes if o.value is not None), key=lambda o: o.value or 0)
    assert alone.best == best
    assert json.loads((alone.directory / "best.json").read_bytes())["bits"] == best.values["bits"]
    # Each trial is a run, and more trials go on from these.
    runs = scan([alone.directory / "runs"]).runs
    assert {run.name for run in runs} == {f"trial-000{n}" for n in range(6)}
    assert len({run.record.comparison for run in runs}) == 1
    said = bidsim("leaderboard", alone.directory / "runs", "--by", "normalized_entropy", "--head", "ctr", "--json")
    (board,) = json.loads(said.out)["boards"]
    assert board["entries"][0]["policy"] == f"trial-000{best.number}"
    # Of a trial that somebody wants to see, the page is made when it is asked for.
    looked_at = alone.directory / "runs" / f"trial-000{best.number}"
    assert not (looked_at / "report.html").exists()
    assert bidsim("report", looked_at, "--out", tmp_path / "page.html").status == 0
    kept: list[bool] = []
    more = tune(tuning(scenario, "a", 7), on_trial=lambda outcome, there: kept.append(there))
    assert kept == [True] * 6 + [False]
    assert told(more)[:6] == told(alone)


def test_trials_train_before_the_window_they_are_measured_on_and_neither_sees_the_judged_rows(tmp_path: Path) -> None:
    maturity = {"conversion_window_hours": 5, "observed_until": "2026-11-20T00:00:00"}
    found = tune(tuning(write_market(tmp_path, maturity=maturity), "w", 1, tune_hours=24))
    manifest = open_extraction(found.directory / "examples").manifest
    assert manifest.train.window is not None
    assert manifest.evaluation.window is not None
    judged = START + timedelta(days=4)
    start, end = (datetime.fromisoformat(t) for t in (manifest.evaluation.window.start, manifest.evaluation.window.end))
    assert (start, end) == (judged - timedelta(hours=29), judged - timedelta(hours=5))
    assert datetime.fromisoformat(manifest.train.window.end) == start - timedelta(hours=5)
    assert datetime.fromisoformat(manifest.train.window.start) == judged - timedelta(hours=5 + 96)
    (run,) = scan([found.directory / "runs"]).runs
    window = json.loads((run.directory / "result.json").read_bytes())["data"]["window"]
    assert datetime.fromisoformat(window["end"]) == end


@pytest.mark.parametrize("metric", ["cpa_at_matched_spend", "calibration"])
def test_the_objective_is_any_metric_of_the_replay(metric: str, tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    found = tune(tuning(scenario, "w", 2, metric=metric))
    values = [o.value for o in found.outcomes]
    for outcome in found.outcomes:
        result = json.loads((found.directory / "runs" / f"trial-000{outcome.number}" / "result.json").read_bytes())
        expected = [
            m["value"]
            for m in result["metrics"]
            if m["metric"] == metric and not m["segment"] and m["policy"] != "baseline"
        ]
        assert outcome.value == expected[0]
    distance: Callable[[Any], float] = (lambda v: abs(v - 1)) if metric == "calibration" else float
    assert found.best.value == min(values, key=distance)


def test_killed_and_run_again_it_ends_the_same_and_repeats_no_finished_trial(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, gate=[])
    space = write_space(tmp_path)
    options = (
        "tune",
        "--scenario",
        scenario,
        "--space",
        space,
        "--trials",
        "5",
        "--seed",
        "3",
        "--as-of",
        "2026-12-01",
    )
    whole = bidsim(*options, "--work", tmp_path / "whole")
    assert whole.status == 0, whole.err
    work = tmp_path / "work"
    victim = process(*options, "--jobs", "2", "--work", work, cwd=tmp_path)
    deadline = time.monotonic() + 90
    while victim.poll() is None and time.monotonic() < deadline:
        if list(work.glob("tune-*/trials/*.json")):
            victim.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in work.glob("tune-*/trials/*.json")}
    assert 1 <= len(before) < 5
    again = bidsim(*options, "--work", work)
    assert again.status == 0, again.err
    assert again.err.count("(kept)") >= 1
    for path, facts in before.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == facts
    # What the killed processes were writing aside has been cleared away.
    assert list(work.rglob(".*")) == []
    for pattern in ("tune-*/best.json", "tune-*/trials/*.json", "tune-*/runs/*/result.json", "runs/*/result.json"):
        ours = {p.relative_to(work): p.read_bytes() for p in work.glob(pattern)}
        theirs = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").glob(pattern)}
        assert ours == theirs
        assert ours
    assert "on rows that tuning never saw (2026-11-05T00:00:00+00:00 to 2026-11-06T00:00:00+00:00)" in whole.out
    assert "the best of 5 trials" in whole.out


def test_trials_are_given_up_by_the_median_of_those_finished_before_their_batch(tmp_path: Path) -> None:
    with patch.object(module, "LEAST_CURVES", 2):
        found = tune(tuning(write_market(tmp_path), "w", 12))
    pruned = [o for o in found.outcomes if o.state == "pruned"]
    assert pruned
    for outcome in pruned:
        earlier = found.outcomes[: outcome.number // module.BATCH * module.BATCH]
        number = outcome.curve[-1][0]
        complete = [dict(o.curve) for o in earlier if o.state == "complete"]
        best = [min(v for n, v in curve.items() if n <= number) for curve in complete if max(curve) >= number]
        assert min(loss for _, loss in outcome.curve) > statistics.median(best)
        assert not (found.directory / "runs" / f"trial-{outcome.number:04d}").exists()


def test_a_median_needs_enough_finished_curves() -> None:
    def curve(number: int, losses: list[float], state: Any = "complete") -> Outcome:
        return Outcome(number=number, values={}, state=state, curve=tuple(enumerate(losses, 1)))

    found = [curve(n, [1.0, 0.9 + n / 100, 0.5]) for n in range(4)]
    assert _thresholds(found) == {}
    found += [curve(4, [1.0, 0.0], "pruned"), curve(5, [0.2, 0.95])]
    assert _thresholds(found) == {2: pytest.approx(0.91)}


def test_a_trial_that_is_refused_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    text = SPACE.replace("max_miscalibration: 4", "max_miscalibration: 1.000001").replace("rounds: 3", "rounds: 1")
    space = load_space(write_space(tmp_path, text + "validation_share: 0.5\nkeep_negatives: 1\n"), Hyperparameters({}))
    made = Tuning(load_scenario(scenario), space, tmp_path / "w", DAY, trials=2)
    with patch("bidsim.training.train.CONFIDENCE", 0.001), pytest.raises(BidsimError, match="no trial of 2 succeeded"):
        tune(made)
    assert "predicts" in json.loads(next((tmp_path / "w").glob("tune-*/trials/0000.json")).read_bytes())["reason"]


def test_a_trial_that_diverges_is_refused_as_one_of_the_search(tmp_path: Path) -> None:
    text = "train_hours: 96\nrounds: 1\nlearning_rate: {choices: [1.0e+300]}\n"
    space = load_space(write_space(tmp_path, text), Hyperparameters({}))
    with pytest.raises(BidsimError, match="no trial of 2 succeeded: head cvr: training diverged"):
        tune(Tuning(load_scenario(write_market(tmp_path)), space, tmp_path / "w", DAY, trials=2))
    assert len(list((tmp_path / "w").glob("tune-*/trials/*.json"))) == 2


def test_a_choice_of_features_that_the_log_lacks_is_told_before_any_trial(tmp_path: Path) -> None:
    text = "train_hours: 96\ncrosses: {choices: [[], [[ad, spto]]]}\n"
    space = load_space(write_space(tmp_path, text), Hyperparameters({}))
    with pytest.raises(BidsimError, match=r'space.yaml: crosses: .* no feature "spto" \(did you mean "spot"'):
        tune(Tuning(load_scenario(write_market(tmp_path)), space, tmp_path / "w", DAY, trials=1))
    assert not list((tmp_path / "w").glob("tune-*/trials"))


@pytest.mark.parametrize(
    ("metric", "head", "message"),
    [
        ("normalised_entropy", None, 'did you mean "normalized_entropy"?'),
        ("spend", None, "of which more or less is better"),
        ("auc", "ctcvr", "write one of ctr, cvr"),
        ("cpa", "ctr", "cpa has no heads"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(metric: str, head: str | None, message: str) -> None:
    with pytest.raises(BidsimError) as raised:
        make_objective(metric, head, ("ctr", "cvr"))
    assert message in str(raised.value)


def test_more_or_less_is_better_as_the_metric_has_it() -> None:
    assert make_objective("auc", None, ("ctr", "cvr")) == Objective("auc", "ctr")
    assert Objective("auc", "ctr").loss(0.7) < Objective("auc", "ctr").loss(0.6)
    assert Objective("cpa", None).loss(2.0) < Objective("cpa", None).loss(3.0)
    assert Objective("calibration", "ctr").loss(1.1) < Objective("calibration", "ctr").loss(0.8)


def test_too_short_a_training_window_is_told(tmp_path: Path) -> None:
    with pytest.raises(BidsimError, match="none are left to train trials on"):
        tune(tuning(write_market(tmp_path), "w", 1, tune_hours=96))
