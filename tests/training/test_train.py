"""A training ends in a bundle that predicts well, is calibrated, says how it was made, and is the same every time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import bidsim, process
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from small_market import hyperparameters, market, write_market

from bidsim.errors import BidsimError
from bidsim.models import hash_matrix, open_bundle
from bidsim.models.bundle import bundle_from_bytes
from bidsim.models.manifest import HashedHead
from bidsim.scenario.loading import load_scenario
from bidsim.training.checkpoint import Checkpoint
from bidsim.training.curve import Measures
from bidsim.training.examples import Extraction
from bidsim.training.extract import Selection, extract
from bidsim.training.hyperparameters import Hyperparameters
from bidsim.training.problem import make_problem
from bidsim.training.train import Miscalibrated, Stopped, check_calibration, train
from bidsim.training.trees import Trees, category_tables

LOOSE = {"max_miscalibration": 3.0}
KINDS: dict[str, dict[str, Any]] = {
    "hashed_logistic": {"model": "hashed_logistic", "bits": 12, "rounds": 4, "patience": 9},
    "factorization_machine": {"model": "factorization_machine", "bits": 10, "rounds": 4, "patience": 9},
    "lightgbm": {
        "model": "lightgbm",
        "rounds": 4,
        "trees_per_round": 4,
        "min_rows_leaf": 10,
        "row_share": 0.8,
        "feature_share": 0.8,
        "patience": 9,
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Extraction:
    folder = tmp_path_factory.mktemp("market")
    return extract(load_scenario(write_market(folder)), folder / "data", Selection(96))


def scored(path: Path, data: Extraction, head: Any, name: Any = "evaluation") -> tuple[Any, Any, Any]:
    scorer = open_bundle(path).scorer()
    batches = list(data.examples(head, name).batches())
    p = np.concatenate([scorer.score(batch)[head] for batch in batches])
    y, w = (np.concatenate([np.asarray(b.column(c)) for b in batches]) for c in ("label", "weight"))
    return p, y, w


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_predicts_later_rows_better_than_their_rate(kind: str, data: Extraction, tmp_path: Path) -> None:
    trained = train(data, Hyperparameters({**KINDS[kind], **LOOSE}), tmp_path / "m.bin")
    manifest = open_bundle(tmp_path / "m.bin").manifest
    assert manifest.order == ("ctr", "cvr")
    assert manifest.training_window is not None
    assert manifest.training_window.end == "2026-11-05T00:00:00+00:00"
    p, y, w = scored(tmp_path / "m.bin", data, "ctr")
    rate = float(w @ y / w.sum())
    assert log_loss(y, p, sample_weight=w) < 0.985 * log_loss(y, np.full(len(y), rate), sample_weight=w)
    assert 0.85 < float(w @ p) / float(w @ y) < 1.15
    curve = manifest.learning_curve["ctr"]
    assert (curve.model, curve.stopped, len(curve.rounds)) == (kind, False, 4)
    best = min(curve.rounds, key=lambda r: r.logloss)
    assert curve.chosen == best.round
    assert trained.validation["ctr"].logloss == pytest.approx(best.logloss, rel=1e-5)
    assert trained.validation["ctr"].auc == pytest.approx(best.auc, abs=1e-3)


def test_the_logistic_regression_is_about_as_good_as_one_solved_in_memory(data: Extraction, tmp_path: Path) -> None:
    hyper = Hyperparameters({"bits": 16, "crosses": [["ad", "spot"]], "rounds": 20, "validation_share": 0.01, **LOOSE})
    train(data, hyper, tmp_path / "m.bin")
    p, y, w = scored(tmp_path / "m.bin", data, "ctr")
    problem = make_problem(data, "ctr", hyper)
    entry = open_bundle(tmp_path / "m.bin").manifest.heads["ctr"]
    assert isinstance(entry, HashedHead)
    sets = []
    for name in ("train", "evaluation"):
        table = pa.Table.from_batches(list(data.examples("ctr", name).batches()))  # type: ignore[arg-type]
        sets.append(
            (hash_matrix(table, entry.spec, problem.features), table["label"].to_numpy(), table["weight"].to_numpy())
        )
    solved = LogisticRegression(C=1.0, max_iter=1000).fit(sets[0][0], sets[0][1], sample_weight=sets[0][2])
    reference = log_loss(y, solved.predict_proba(sets[1][0])[:, 1], sample_weight=w)
    assert log_loss(y, p, sample_weight=w) < 1.005 * reference


def test_progressive_loss_is_of_rows_before_they_were_learned_from(data: Extraction, tmp_path: Path) -> None:
    said: list[tuple[str, float, int]] = []
    hyper = Hyperparameters({"bits": 12, "rounds": 2, "batch_rows": 16, **LOOSE})
    train(data, hyper, tmp_path / "m.bin", on_metric=lambda *told: said.append(told))
    curve = open_bundle(tmp_path / "m.bin").manifest.learning_curve["ctr"]
    assert 50 <= len(curve.progressive) <= 100
    rows = [p.rows for p in curve.progressive]
    assert rows == sorted(rows)
    assert rows[-1] == curve.training_rows
    first = next(value for name, value, step in said if name == "ctr_training_logloss" and step == 1)
    assert first == pytest.approx(curve.rounds[0].training_logloss)
    # It falls while the model learns, which losses after learning would not show so.
    losses = [p.logloss for p in curve.progressive]
    assert np.mean(losses[len(losses) // 2 :]) < np.mean(losses[: len(losses) // 4])
    assert ("ctr_logloss", curve.rounds[1].logloss, 2) in said


def test_nothing_is_learned_from_validation_rows_or_judged_rows(tmp_path: Path) -> None:
    """Other labels there give the same weights, as long as the same round is chosen."""
    found = []
    for name, of in (("a", None), ("b", "validation"), ("c", "evaluation")):
        rows = market().to_pylist()
        bound = {"validation": 3.7, "evaluation": 4.0}.get(of or "", 9.0)
        for row in rows:
            day = (row["ts"].timestamp() - rows[0]["ts"].timestamp()) / 86400
            if day >= bound and (of != "validation" or day < 3.95):
                row["click"], row["conversion"] = 1 - row["click"], 0
        scenario = write_market(tmp_path / name)
        pq.write_table(pa.Table.from_pylist(rows, schema=market().schema), tmp_path / name / "log.parquet")
        data = extract(load_scenario(scenario), tmp_path / name / "data", Selection(96))
        hyper = Hyperparameters({"bits": 10, "rounds": 1, "max_miscalibration": 1e9, "validation_share": 0.09})
        found.append(open_bundle(train(data, hyper, tmp_path / name / "m.bin").bundle.path))
    a, b, c = (bundle.payload("ctr/weights.f32") for bundle in found)
    assert a == b == c
    assert found[0].sha256 == found[2].sha256
    assert found[0].sha256 != found[1].sha256


def test_a_bundle_without_a_curve_does_not_mention_one(data: Extraction, tmp_path: Path) -> None:
    bundle = train(data, Hyperparameters({"bits": 6, "rounds": 1, **LOOSE}), tmp_path / "m.bin").bundle
    assert b'"learning_curve"' in bundle.manifest.to_json()
    bare = bundle.with_manifest(learning_curve={})
    assert b"learning_curve" not in bare.manifest.to_json()
    assert bundle_from_bytes("bare.bin", bare.data).manifest.learning_curve == {}


def test_negatives_left_out_do_not_change_the_level(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    data = extract(load_scenario(scenario), tmp_path / "data", Selection(96, keep_negatives=0.3))
    trained = train(data, Hyperparameters({"bits": 12, **LOOSE}), tmp_path / "m.bin")
    p, y, w = scored(tmp_path / "m.bin", data, "ctr")
    assert 0.85 < float(w @ p) / float(w @ y) < 1.15
    assert trained.bundle.manifest.recalibration == {}


class Killed(Exception):
    pass


def dies_at(head: str, number: int) -> Callable[[str, float, int], None]:
    def say(name: str, value: float, step: int) -> None:
        if name == f"{head}_logloss" and step == number:
            raise Killed

    return say


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_rerun_gives_the_bytes_of_an_undisturbed_run(kind: str, data: Extraction, tmp_path: Path) -> None:
    hyper = Hyperparameters({**KINDS[kind], **LOOSE, "seed": 3})
    whole = train(data, hyper, tmp_path / "whole.bin").bundle.data
    assert train(data, hyper, tmp_path / "again.bin").bundle.data == whole
    with pytest.raises(Killed):
        train(data, hyper, tmp_path / "m.bin", checkpoint=tmp_path / "c", on_metric=dies_at("cvr", 2))
    with pytest.raises(Killed):
        train(data, hyper, tmp_path / "m.bin", checkpoint=tmp_path / "c", on_metric=dies_at("ctr", 3))
    assert not (tmp_path / "m.bin").exists()
    learned: list[int] = []
    found = train(
        data,
        hyper,
        tmp_path / "m.bin",
        checkpoint=tmp_path / "c",
        stop=lambda: bool(learned.append(1)),  # asked at every step of learning, and only then
    )
    assert found.bundle.data == whole
    # A third time nothing is left to learn.
    steps = len(learned)
    again = train(data, hyper, tmp_path / "n.bin", checkpoint=tmp_path / "c", stop=lambda: bool(learned.append(1)))
    assert again.bundle.data == whole
    assert len(learned) == steps > 0


@pytest.mark.parametrize("kind", ["hashed_logistic", "factorization_machine"])
def test_stopped_within_rounds_it_goes_on_from_that_row(kind: str, data: Extraction, tmp_path: Path) -> None:
    """Again and again, the first round among them: no step is learned twice, and the bytes are those of one go."""
    hyper = Hyperparameters({**KINDS[kind], "max_miscalibration": 1e9, "batch_rows": 50})
    asked: list[int] = []
    whole = train(data, hyper, tmp_path / "whole.bin", stop=lambda: bool(asked.append(1))).bundle.data
    steps = 0
    for _ in range(100):
        count = iter(range(10**9))
        stop = partial(lambda count: next(count) >= 61, count)
        try:
            found = train(data, hyper, tmp_path / "m.bin", checkpoint=tmp_path / "c", stop=stop)
        except Stopped:  # before anything was learned of the first head
            continue
        if not found.stopped:
            steps += next(count)
            break
        assert found.bundle.manifest.learning_curve["cvr"].rounds
        steps += 61
    assert not found.stopped
    assert found.bundle.data == whole
    assert steps <= len(asked) + 1


def test_the_number_of_threads_changes_no_byte_of_trees(data: Extraction, tmp_path: Path) -> None:
    h = hyperparameters(tmp_path, **KINDS["lightgbm"], **LOOSE)
    scenario = data.directory.parent / "scenario.yaml"
    options = ("--scenario", scenario, "--data", data.directory, "--hyperparameters", h, "-q")
    # A process of its own: OpenMP reads its number of threads once, and more than there are cores only from there.
    many = process("train", *options, "-o", tmp_path / "3.bin", cwd=tmp_path, env={"OMP_NUM_THREADS": "3"})
    assert many.wait(60) == 0
    assert bidsim("train", *options, "-o", tmp_path / "1.bin", "--threads", "1").status == 0
    assert (tmp_path / "1.bin").read_bytes() == (tmp_path / "3.bin").read_bytes()


def test_trees_grow_on_as_many_threads_as_are_given(data: Extraction, tmp_path: Path) -> None:
    from lightgbm.basic import _LIB

    def cap() -> int:
        found = ctypes.c_int()
        assert _LIB.LGBM_GetMaxThreads(ctypes.byref(found)) == 0
        return found.value

    problem = make_problem(data, "ctr", Hyperparameters({**KINDS["lightgbm"], **LOOSE}))
    for threads, wanted in ((1, 1), (None, -1)):
        Trees(problem, category_tables([problem]), seed=1, threads=threads)
        assert cap() == wanted


def test_another_seed_is_another_machine(data: Extraction, tmp_path: Path) -> None:
    kind = {**KINDS["factorization_machine"], **LOOSE}
    a = train(data, Hyperparameters({**kind, "seed": 1}), tmp_path / "a.bin").bundle
    b = train(data, Hyperparameters({**kind, "seed": 2}), tmp_path / "b.bin").bundle
    assert a.payload("ctr/factors.f32") != b.payload("ctr/factors.f32")


def test_a_checkpoint_of_another_training_is_refused(data: Extraction, tmp_path: Path) -> None:
    train(data, Hyperparameters({"bits": 8, **LOOSE}), tmp_path / "m.bin", checkpoint=tmp_path / "c")
    with pytest.raises(BidsimError, match="is of another training"):
        train(data, Hyperparameters({"bits": 9, **LOOSE}), tmp_path / "n.bin", checkpoint=tmp_path / "c")
    for content in (b"", b"PK\x03\x04", (tmp_path / "c" / "checkpoint-ctr.npz").read_bytes()[:-30]):
        (tmp_path / "c" / "checkpoint-ctr.npz").write_bytes(content)
        with pytest.raises(BidsimError, match=r"checkpoint-ctr\.npz: is no checkpoint, or damaged"):
            Checkpoint(tmp_path / "c", "x").load("ctr")


@pytest.mark.parametrize("kind", KINDS)
def test_asked_to_stop_it_saves_what_it_has_and_says_so(kind: str, data: Extraction, tmp_path: Path) -> None:
    asked = iter(range(10**9))
    trees = kind == "lightgbm"
    hyper = Hyperparameters({**KINDS[kind], "max_miscalibration": 9.0, **({} if trees else {"batch_rows": 50})})
    limit = 28 if trees else 90
    trained = train(data, hyper, tmp_path / "m.bin", stop=lambda: next(asked) >= limit)
    assert trained.stopped
    manifest = open_bundle(tmp_path / "m.bin").manifest
    assert manifest.learning_curve["ctr"].stopped
    assert "stopped before it was done" in str(manifest.note)
    with pytest.raises(BidsimError, match="before anything was learned"):
        train(data, hyper, tmp_path / "n.bin", stop=lambda: True)
    assert not (tmp_path / "n.bin").exists()


def test_a_model_that_is_off_is_not_written(tmp_path: Path) -> None:
    rows = market().to_pylist()
    for i, row in enumerate(rows):  # validation rows click four times as often
        if row["ts"].day == 4 and i % 3:
            row["click"] = 1
    scenario = write_market(tmp_path, sample_type="imp-click")
    pq.write_table(pa.Table.from_pylist(rows, schema=market().schema), tmp_path / "log.parquet")
    h = hyperparameters(tmp_path, train_hours=96, validation_share=0.2)
    said = bidsim("train", "--scenario", scenario, "--hyperparameters", h, "-o", tmp_path / "m.bin", "--quiet")
    assert said.status == 2
    assert "head ctr predicts 0." in said.err
    assert "beyond the factor 1.25 of max_miscalibration" in said.err
    assert not (tmp_path / "m.bin").exists()


@pytest.mark.parametrize(
    ("ratio", "positives", "refused"),
    [
        (1.2, 100_000, False),
        (1.3, 100_000, True),
        (0.7, 100_000, True),
        (1.3, 50, False),  # a handful of clicks decide it
        (2.0, 50, True),
        (0.009, 12, True),
        (3.0, 1, False),
    ],
)
def test_refused_is_what_chance_does_not_explain(ratio: float, positives: int, refused: bool) -> None:
    found = Measures(10**6, positives, 0.0, 0.1, 1.0, 0.5, ratio)
    if refused:
        with pytest.raises(Miscalibrated):
            check_calibration("ctr", found, 1.25)
    else:
        check_calibration("ctr", found, 1.25)


def test_without_a_positive_only_a_promise_of_many_is_refused() -> None:
    check_calibration("ctr", Measures(100, 0, 3.0, 0.1, None, None, None), 1.25)
    with pytest.raises(Miscalibrated, match="which has none"):
        check_calibration("ctr", Measures(100, 0, 9.0, 0.1, None, None, None), 1.25)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"numeric": ["aeg"]}, 'numeric: the examples have no feature "aeg" (did you mean "age"?)'),
        ({"crosses": [["ad", "age"]]}, 'crosses: "age" is numeric, and only categories cross'),
        ({"numeric": ["spot"]}, 'feature "spot" is'),
        ({"numeric": ["ad"], "categorical": ["ad"]}, '"ad" stands in two of'),
        ({"model": "lightgbm", "lists": ["spot"]}, "LightGBM can't read the list"),
        ({"cvr.numeric": ["ad"]}, 'h.json: "ad" is categorical for head ctr and numeric for head cvr'),
        ({"model": "lightgbm", "cvr.numeric": ["ad"]}, 'h.json: "ad" is categorical for head ctr and numeric for'),
        ({"model": "lightgbm", "features": []}, "h.json: features: a model of trees needs one at least"),
        ({"learning_rate": 1e300}, "head cvr: training diverged"),
        ({"learning_rate": 1e-320}, "head cvr: training diverged"),
        ({"model": "factorization_machine", "factor_rate": 1e300}, "head cvr: training diverged"),
    ],
)
def test_hyperparameters_that_do_not_fit_the_examples_are_told(
    values: dict[str, Any], message: str, data: Extraction, tmp_path: Path
) -> None:
    with pytest.raises(BidsimError) as raised:
        train(data, Hyperparameters(values, "h.json"), tmp_path / "m.bin")
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_without_examples_given_they_are_extracted(tmp_path: Path) -> None:
    scenario = write_market(tmp_path)
    h = hyperparameters(tmp_path, bits=10, max_miscalibration=3)
    said = bidsim(
        "train", "--scenario", scenario, "--hyperparameters", h, "--train-hours", "96", "-o", tmp_path / "a.bin"
    )
    assert said.status == 0, said.err
    assert "ctr_logloss" in said.err
    bidsim("extract", "--scenario", scenario, "--train-hours", "96", "--out", tmp_path / "data", "-q")
    options = ("--hyperparameters", h, "--data", tmp_path / "data", "-o", tmp_path / "b.bin", "-q")
    assert bidsim("train", "--scenario", scenario, *options).status == 0
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert said.out.strip() == open_bundle(tmp_path / "b.bin").sha256
    said = bidsim("train", "--scenario", scenario, "--hyperparameters", h, "-o", tmp_path / "c.bin", "-q")
    assert (said.status, "--train-hours" in said.err) == (2, True)


def test_rows_without_a_time_stand_last_and_on_one_side(tmp_path: Path) -> None:
    scenario = write_market(tmp_path, logs_tables={"log": {"path": "judged.parquet"}}, sample_type="imp-click")
    log = market()
    pq.write_table(log, tmp_path / "judged.parquet")
    times = pa.array([None if i % 4 == 0 else t for i, t in enumerate(log["ts"].to_pylist())], log["ts"].type)
    pq.write_table(log.set_column(0, "ts", times), tmp_path / "earlier.parquet")
    earlier = {"log": str(tmp_path / "earlier.parquet")}
    data = extract(load_scenario(scenario), tmp_path / "data", Selection(), train_tables=earlier)
    assert make_problem(data, "ctr", Hyperparameters({})).learned == 4500


def test_which_rows_is_not_asked_again_of_examples_that_are_there(tmp_path: Path) -> None:
    options = ("--data", tmp_path, "--train-hours", "24", "-o", tmp_path / "m.bin")
    said = bidsim("train", "--scenario", write_market(tmp_path), *options)
    assert said.status == 2
    assert "--train-hours says which rows to extract, and --data has its rows already" in said.err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_hours": 48}, "h.json: train_hours is 48, and the examples in "),
        ({"gap_hours": 5.0}, "were extracted with 0; extract again, or leave it out"),
        ({"keep_negatives": 0.5}, "keep_negatives is 0.5, "),
        ({"train_hours": 96, "gap_hours": 0, "keep_negatives": 1}, ""),
    ],
)
def test_hyperparameters_of_other_rows_than_the_examples_are_told(
    values: dict[str, Any], message: str, data: Extraction, tmp_path: Path
) -> None:
    h = hyperparameters(tmp_path, **LOOSE, rounds=1, **values)
    options = ("--data", data.directory, "--hyperparameters", h, "-o", tmp_path / "m.bin", "-q")
    said = bidsim("train", "--scenario", data.directory.parent / "scenario.yaml", *options)
    assert (said.status, message in said.err) == (2 if message else 0, True), said.err


def test_a_file_that_is_no_bundle_is_not_replaced(data: Extraction, tmp_path: Path) -> None:
    scenario = data.directory.parent / "scenario.yaml"
    before = scenario.read_bytes()
    said = bidsim("train", "--scenario", scenario, "--data", data.directory, "-o", scenario, "-q")
    assert said.status == 2
    assert "scenario.yaml: can't be written: a file of another kind is there" in said.err
    assert scenario.read_bytes() == before
    (tmp_path / "m.bin").write_bytes(b"PK\x03\x04 an older bundle")
    h = hyperparameters(tmp_path, **LOOSE, rounds=1)
    options = ("--data", data.directory, "--hyperparameters", h, "-o", tmp_path / "m.bin", "-q")
    assert bidsim("train", "--scenario", scenario, *options).status == 0


def changed_log(folder: Path, **columns: Any) -> Extraction:
    """Examples of clicks where some columns of the market are others."""
    scenario = write_market(folder, sample_type="imp-click")
    table = market()
    for name, values in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), name, values if isinstance(values, pa.Array) else pa.array(values)
        )
    pq.write_table(table, folder / "log.parquet")
    return extract(load_scenario(scenario), folder / "data", Selection(96))


def test_weights_count_by_their_ratios(tmp_path: Path) -> None:
    """A log that keeps one row in a thousand has a thousand times the weight and not a row more to learn from."""
    for kind, values in KINDS.items():
        made = []
        for unit in (1.0, 1024.0):
            folder = tmp_path / f"{kind}-{unit:g}"
            weights = np.asarray(market().column("w")) * unit
            data = changed_log(folder, w=weights)
            bundle = train(data, Hyperparameters({**values, **LOOSE}), folder / "m.bin").bundle
            made.append([bundle.payload(name) for name in bundle.manifest.heads["ctr"].payloads])
        assert made[0] == made[1], kind


def test_rows_without_weight_teach_nothing_and_judge_nothing(tmp_path: Path) -> None:
    clicks = np.asarray(market().column("click"))
    data = changed_log(tmp_path / "clicks", w=np.where(clicks > 0, 0.0, 1.0))
    with pytest.raises(BidsimError, match="no positive one with a weight"):
        train(data, Hyperparameters({}), tmp_path / "m.bin")
    late = np.array([t.day == 4 for t in market().column("ts").to_pylist()])
    data = changed_log(tmp_path / "late", w=np.where(late, 0.0, 1.0))
    with pytest.raises(BidsimError, match="rows for validation, the last in time, all have weight 0"):
        train(data, Hyperparameters({}), tmp_path / "m.bin")
    assert not (tmp_path / "m.bin").exists()


@pytest.mark.parametrize(("value", "scale"), [(1234.567, 1.0), (1e9, 0.29)])
def test_a_number_that_hardly_varies_is_scaled_by_what_it_varies(value: float, scale: float, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    age = np.full(6000, value) if scale == 1 else value + draw.random(6000)
    data = changed_log(tmp_path, age=age)
    found = make_problem(data, "ctr", Hyperparameters({})).scaling["age"]
    assert found.mean == pytest.approx(value, abs=1)
    assert found.scale == pytest.approx(scale, rel=0.02)


def test_numbers_too_large_to_scale_are_refused_where_a_model_scales(tmp_path: Path) -> None:
    data = changed_log(tmp_path, age=np.where(np.arange(6000) % 2 == 0, 1e200, -1e200))
    with pytest.raises(BidsimError, match='feature "age" has values too large'):
        train(data, Hyperparameters({}), tmp_path / "m.bin")
    train(data, Hyperparameters({**KINDS["lightgbm"], **LOOSE}), tmp_path / "m.bin")


def test_without_smoothing_and_penalty_a_weight_begins_at_zero(data: Extraction, tmp_path: Path) -> None:
    train(data, Hyperparameters({"beta": 0, "l2": 0, **LOOSE}), tmp_path / "m.bin")
    assert all(np.isfinite(scored(tmp_path / "m.bin", data, head)[0]).all() for head in ("ctr", "cvr"))


@pytest.mark.parametrize("last", [4, 2])  # the boundary by rows lies in the last of the days, or in the first
def test_days_without_hours_split_where_a_day_begins(last: int, tmp_path: Path) -> None:
    times = market().column("ts").to_pylist()
    days = [t.replace(day=t.day if t.day in (last, 5) else 1, hour=0, minute=0, second=0, microsecond=0) for t in times]
    data = changed_log(tmp_path, ts=pa.array(days, pa.timestamp("us", "UTC")))
    later = sum(t.day == last for t in times)
    problem = make_problem(data, "ctr", Hyperparameters({"validation_share": 0.2 if last == 4 else 0.5}))
    assert problem.rows - problem.learned == later


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_64_bits_without_a_sign_train_and_load(kind: str, tmp_path: Path) -> None:
    ids = np.asarray(market().column("ad")).astype(np.uint64) + np.uint64(2**64 - 10)
    data = changed_log(tmp_path, ad=ids)
    train(data, Hyperparameters({**KINDS[kind], **LOOSE}), tmp_path / "m.bin")
    assert np.isfinite(scored(tmp_path / "m.bin", data, "ctr")[0]).all()
