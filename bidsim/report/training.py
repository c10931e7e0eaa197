"""How the models were trained, as far as their bundles say: learning curves, and the round that was kept.

The result carries them in its diagnostics; a result without any has no such section.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from bidsim.models.manifest import LearningCurve
from bidsim.report import format as f
from bidsim.report import plots
from bidsim.report.drawing import Drawing
from bidsim.report.knowledge import Plain
from bidsim.report.lookup import Lookup
from bidsim.report.words import HEAD_WORDS

COLUMNS = [
    *("Policy", "Head", "Model", "Rows", "Validation rows", "Positive", "Rounds", "Kept", "Log loss"),
    *("Normalized entropy", "AUC", "Predicted / observed"),
]


@dataclass(frozen=True)
class Curves:
    """The learning curves of one head: (place of the policy in the result, its name, the curve)."""

    head: str
    curves: list[tuple[int, str, LearningCurve]]


def curves(lookup: Lookup) -> list[Curves]:
    """By head, in the order of the policies; what is no learning curve is passed over."""
    given = lookup.result.diagnostics.get("training")
    if not isinstance(given, dict):
        return []
    found: dict[str, list[tuple[int, str, LearningCurve]]] = {}
    for at, policy in enumerate(lookup.result.policies):
        heads = given.get(policy.name)
        for head, document in heads.items() if isinstance(heads, dict) else ():
            if head not in HEAD_WORDS:
                continue
            try:
                curve = LearningCurve.model_validate_json(json.dumps(document))
            except (ValidationError, ValueError):
                continue
            found.setdefault(head, []).append((at, policy.name, curve))
    return [Curves(head, found[head]) for head in HEAD_WORDS if head in found]


def of_training(lookup: Lookup) -> list[Drawing]:
    """For each head: validation log loss by round, and progressive log loss by rows."""
    drawings = []
    tips = (("at", "at", ",.0f"), ("logloss", "log loss", ".6~g"))
    for found in curves(lookup):
        words = HEAD_WORDS[found.head]
        drawn = [c for c in found.curves if c[0] <= plots.CANDIDATES]
        for name, title, x_title, rows in (
            ("learning", f"{words}: validation log loss by round", "round", list(_rounds(drawn))),
            ("progressive", f"{words}: log loss of rows before they were learned from", "rows", list(_points(drawn))),
        ):
            plot = plots.learning(rows, x_title)
            if plot is not None:
                described = f"{title}, one line a policy. Lower is better. The kept round is in the table."
                drawings.append(Drawing(f"{name}-{found.head}", title, described, plot, tips=tips))
    return drawings


def _rounds(found: list[tuple[int, str, LearningCurve]]) -> Iterator[dict[str, object]]:
    for at, _, curve in found:
        for r in curve.rounds:
            yield {"series": f"p{at}", "at": r.round, "logloss": r.logloss, "kept": r.round == curve.chosen}


def _points(found: list[tuple[int, str, LearningCurve]]) -> Iterator[dict[str, object]]:
    for at, _, curve in found:
        for p in curve.progressive:
            yield {"series": f"p{at}", "at": p.rows, "logloss": p.logloss, "kept": False}


def training_table(lookup: Lookup) -> Plain | None:
    """A row for each policy and head: what the kept round showed on validation rows."""
    rows = []
    for found in curves(lookup):
        for _, policy, curve in found.curves:
            kept = next((r for r in curve.rounds if r.round == curve.chosen), None)
            numbers = (
                [None] * 4 if kept is None else [kept.logloss, kept.normalized_entropy, kept.auc, kept.calibration]
            )
            rounds = max((r.round for r in curve.rounds), default=0)
            rows.append(
                [
                    policy,
                    found.head,
                    curve.model.replace("_", " "),
                    f.count(curve.training_rows),
                    f.count(curve.validation_rows),
                    f.count(curve.validation_positives),
                    f"{rounds}{', stopped early' if curve.stopped else ''}",
                    str(curve.chosen),
                    *(f.fixed(number, 4) for number in numbers),
                ]
            )
    return Plain(COLUMNS, rows) if rows else None
