"""A report shows how models were trained where their bundles say so, and is unchanged where none does."""

from __future__ import annotations

from fixtures import make_result

from bidsim.models.manifest import CurvePoint, CurveRound, LearningCurve
from bidsim.report import render_report
from bidsim.report.lookup import Lookup
from bidsim.report.training import of_training, training_table

CURVE = LearningCurve(
    model="hashed_logistic",
    training_rows=12_000,
    validation_rows=2000,
    validation_positives=140,
    progressive=tuple(CurvePoint(rows=100 * n, logloss=0.3 + 0.1 / n) for n in range(1, 30)),
    rounds=tuple(
        CurveRound(round=n, rows=12_000 * n, logloss=0.31 - 0.01 * n + 0.002 * n * n, auc=0.7, calibration=1.07)
        for n in range(1, 5)
    ),
    chosen=3,
    stopped=True,
)


def trained() -> Lookup:
    result = make_result()
    curve = CURVE.model_dump(mode="json", exclude_none=True)
    given = {result.policies[0].name: {"ctr": curve}, result.policies[1].name: {"ctr": curve, "cvr": curve}}
    return Lookup(result.model_copy(update={"diagnostics": {**result.diagnostics, "training": given}}))


def test_the_page_has_the_curves_and_the_kept_round() -> None:
    lookup = trained()
    page = render_report(lookup.result)
    assert "How the models were trained" in page
    assert [d.name for d in of_training(lookup)] == [
        "learning-ctr",
        "progressive-ctr",
        "learning-cvr",
        "progressive-cvr",
    ]
    for name in ("learning-ctr", "progressive-cvr"):
        figure = page[page.index(f'data-chart="{name}"') :]
        assert "<svg" in figure[: figure.index("</figure>")]
    table = training_table(lookup)
    assert table is not None
    assert [row[1] for row in table.rows] == ["ctr", "ctr", "cvr"]
    assert table.rows[0][2:] == [
        *("hashed logistic", "12,000", "2,000", "140", "4, stopped early", "3", "0.2980", "–", "0.7000", "1.0700")
    ]


def test_without_curves_the_section_is_absent() -> None:
    assert "How the models were trained" not in render_report(make_result())
    assert training_table(Lookup(make_result())) is None


def test_what_is_no_curve_is_passed_over() -> None:
    result = make_result()
    names = [p.name for p in result.policies]
    broken = {names[0]: {"ctr": {"rounds": 3}, "<b>": {}}, names[1]: 4, "other": {}}
    changed = result.model_copy(update={"diagnostics": {"training": broken}})
    assert of_training(Lookup(changed)) == []
    assert "How the models were trained" not in render_report(changed)
