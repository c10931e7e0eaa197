"""Results to render: a plausible one with hostile names, made by arithmetic, and its extremes."""

from __future__ import annotations

import math
import random
from typing import Any

from bidsim.result import (
    CalibrationBin,
    CalibrationCurve,
    DataInfo,
    Difference,
    Estimate,
    Fidelity,
    Finding,
    FrontierPoint,
    Gate,
    Metric,
    PolicyInfo,
    Range,
    Result,
    RuleOutcome,
    Window,
)

SEED = 20261109

# What a campaign table, a model file or a log may hold. Each has to come out as text and as nothing else.
HOSTILE = [
    "春のセール <b>2026</b>",
    '<script>alert("1")</script>',
    "</td></tr></table><img src=x onerror=alert(2)>",
    'quote" onmouseover="alert(3)',
    "Retail ' – brand A & sons",
    "abc\u202edetrever\u202c \u2066isolated\u2069",
    "]]><!-- comment --> <![CDATA[",
    "very long " * 60,
    "nul\x00 bell\x07 tab\tline\nfeed end",
    "[link](https://evil.example/x) ![p](http://evil.example/y) `code` | pipe | **bold** @user #1 www.evil.example",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "アプリ CPI",
]
MODEL = "v42 <svg onload=alert(4)>"
HEADS = ("ctr", "cvr")
# fmt: off
ECONOMIC = [
    "bids", "wins", "win_rate", "spend", "clicks", "conversions", "ctr", "cvr", "cpm", "cpc", "cpa", "value",
    "surplus", "roi", "target_attainment", "predicted_clicks", "predicted_conversions", "coverage", "unknown_wins",
    "unknown_outcomes", "invalid_predictions", "undecidable", "multiplier_at_matched_spend",
    "clicks_at_matched_spend", "cpc_at_matched_spend", "conversions_at_matched_spend", "cpa_at_matched_spend",
]
# fmt: on


def make_result(
    campaigns: int = 12, candidates: int = 2, *, intervals: bool = False, verdict: str = "fail", currency: str = "JPY"
) -> Result:
    """A result like a real one: overall, by campaign and by hour."""
    draw = random.Random(SEED)
    names = {str(100 + n): HOSTILE[n] if n < len(HOSTILE) else f"Campaign {n}" for n in range(campaigns)}
    policies = ["prod", *[MODEL, "v43", "v44", "v45", "v46", "v47"][:candidates]]
    segments: list[dict[str, str]] = [{}, *({"campaign": c} for c in names), *({"hour": str(h)} for h in range(24))]
    metrics: list[Metric] = []
    differences: list[Difference] = []
    for segment in segments:
        size = 1.0 if not segment else draw.uniform(0.002, 0.2)
        table = [_economics(draw, size, lift=0.05 * at) | _predictions(draw, at) for at in range(len(policies))]
        for at, policy in enumerate(policies):
            for (metric, head), value in table[at].items():
                exact = Range(low=value, high=value) if metric == "spend" and at == 0 else None
                wide = Range(low=value * 0.9, high=value * 1.2) if metric == "clicks" and at > 0 else exact
                metrics.append(
                    Metric(policy=policy, metric=metric, head=head, segment=segment, value=value, identified=wide)
                )
                if at > 0 and (metric, head) in table[0]:
                    differences.append(_difference(policy, metric, head, segment, table[0], value, intervals))
    return Result(
        name="weekly-gate <i>2026-W46</i>",
        as_of="2026-11-20",
        scenario=_scenario(currency),
        policies=[_policy(p, at) for at, p in enumerate(policies)],
        data=DataInfo(
            rows=900_000,
            labelled={"ctr": 450_123, "cvr": 8_912},
            window=Window(start="2026-11-09T00:00:00+09:00", end="2026-11-16T00:00:00+09:00"),
            fingerprint="3f" * 32,
            campaigns=campaigns,
            units=120_345,
            clicks=8_912.0,
            conversions=812.5,
            campaign_names=names,
        ),
        metrics=metrics,
        differences=differences,
        calibration=[_curve(draw, p, h, s, intervals) for p in policies for h in HEADS for s in segments[:3]],
        frontier=[_point(p, at, 2 ** (step / 2)) for at, p in enumerate(policies) for step in range(-8, 9)],
        diagnostics=_diagnostics(policies),
        findings=_findings(),
        fidelity=Fidelity(
            checked=True,
            passed=verdict != "fail",
            log={"wins": 450_123.0, "spend": 41_200_000.25, "clicks": 8_912.0, "conversions": None},
            replayed={"wins": 450_120.0, "spend": 41_199_990.25, "clicks": 8_912.0, "conversions": None},
            mismatched_rows=3,
            formula_drift=0.0312,
        ),
        gate=_gate(policies, names, verdict),
    )


def empty_result() -> Result:
    """Nothing in it that may be missing: no metrics, no rules, no window."""
    return Result(
        name="x",
        as_of="2026-11-20",
        scenario={},
        policies=[_policy("prod", 0)],
        data=DataInfo(rows=0, labelled={}, window=None, fingerprint=""),
        metrics=[],
        differences=[],
        calibration=[],
        frontier=[],
        diagnostics={},
        findings=[],
        fidelity=Fidelity(checked=False, passed=None),
        gate=Gate(verdict="no_gate"),
    )


def null_result() -> Result:
    """Every metric there and undefined, curves without a bin."""
    full = make_result(campaigns=3)
    return full.model_copy(
        update={
            "metrics": [m.model_copy(update={"value": None, "identified": None}) for m in full.metrics],
            "differences": [
                d.model_copy(
                    update={
                        "baseline": None,
                        "candidate": None,
                        "absolute": Estimate(value=None),
                        "relative": Estimate(value=None),
                    }
                )
                for d in full.differences
            ],
            "calibration": [c.model_copy(update={"bins": []}) for c in full.calibration],
            "frontier": [
                p.model_copy(update={"spend": 0.0, "clicks": None, "conversions": None}) for p in full.frontier
            ],
        }
    )


def _economics(draw: random.Random, size: float, lift: float) -> dict[tuple[str, str | None], float]:
    noise = draw.gauss(0, 0.02 / math.sqrt(size))
    bids = round(800_000 * size)
    wins = round(bids * (0.5 + lift / 4))
    spend = 41_200_000.25 * size * (1 + lift + noise)
    clicks, conversions = float(round(8_912 * size * (1 + lift))), float(round(812 * size * (1 + 2 * lift + noise)))
    cpa, cpc, value = spend / max(conversions, 1), spend / max(clicks, 1), 60_000 * conversions
    values = [bids, wins, wins / bids, spend, clicks, conversions, clicks / wins, conversions / max(clicks, 1)]
    values += [1000 * spend / wins, cpc, cpa, value, value - spend, value / spend - 1, cpa / 60_000]
    values += [clicks * 1.08, conversions * 1.21, 0.98 - lift / 10, 87_542.0 * size, 12.0, 3.0, 0.0]
    values += [1 - lift, clicks * 1.01, cpc / 1.01, conversions * 1.01, cpa / 1.01]
    return {(name, None): float(v) for name, v in zip(ECONOMIC, values, strict=True)}


def _predictions(draw: random.Random, at: int) -> dict[tuple[str, str | None], float]:
    out: dict[tuple[str, str | None], float] = {}
    for head, base in (("ctr", 0.0907), ("cvr", 0.3261)):
        values = {
            "logloss": base * (1 - 0.004 * at) + draw.gauss(0, 1e-4),
            "normalized_entropy": 0.9412 - 0.0043 * at,
            "auc": 0.7012 + 0.0051 * at,
            "gauc": 0.6812 + 0.0031 * at,
            "calibration": 0.9421 + 0.0331 * at,
            "ece": 0.0017,
            "ece_if_calibrated": 0.0009,
            "calibration_error": -0.000031 if at else 0.00084,
            "clipped_predictions": float(at),
        }
        if at:
            values["churn"] = 0.1234 * at
        out |= {(name, head): value for name, value in values.items()}
    return out


def _difference(
    policy: str,
    metric: str,
    head: str | None,
    segment: dict[str, str],
    base: dict[tuple[str, str | None], float],
    value: float,
    intervals: bool,
) -> Difference:
    before = base[(metric, head)]
    absolute, relative = value - before, (value - before) / abs(before) if before else None
    width = 0.03 if not segment else 0.15
    return Difference(
        policy=policy,
        metric=metric,
        head=head,
        segment=segment,
        baseline=before,
        candidate=value,
        absolute=_estimate(absolute, width * abs(before), intervals),
        relative=_estimate(relative, width, intervals),
    )


def _estimate(value: float | None, width: float, intervals: bool) -> Estimate:
    if value is None or not intervals:
        return Estimate(value=value)
    return Estimate(value=value, low=value - width, high=value + width)


def _scenario(currency: str) -> dict[str, Any]:
    return {
        "name": "weekly-gate <i>2026-W46</i>",
        "sample_type": ["imp-click", "click-conversion"],
        "logs_tables": {
            "ad": {"path": "logs/dt=*/*.parquet", "last_hour": "2026-11-15T23:00:00", "duration_hour": 168}
        },
        "conditions": ["billing_type <> 1 and note <> '</pre><script>alert(5)</script>\u202e'"],
        "columns": {"campaign": "ad_id", "time": "ts"},
        "currency": currency,
        "timezone": "Asia/Tokyo",
        "performance_indicator_type": "cpa",
        "segments": ["campaign", "hour"],
    }


def _policy(name: str, at: int) -> PolicyInfo:
    return PolicyInfo(
        name=name,
        role="candidate" if at else "baseline",
        model=f"{name}.bin" if at else None,
        sha256=f"{at}a" * 32 if at else None,
        columns={} if at else {"pctr": 'pctr_"prod"', "pcvr": "pcvr<prod>"},
        formula="1000 * target_cpa * pctr * pcvr",
        multiplier=1.0 if at < 2 else 0.9,
        borrowed_heads=["cvr"] if at == 2 else [],
    )


def _curve(draw: random.Random, policy: str, head: str, segment: dict[str, str], intervals: bool) -> CalibrationCurve:
    bins = []
    for step in range(20):
        predicted = (0.0004 if head == "ctr" else 0.03) * 10 ** (step / (9 if head == "ctr" else 18))
        observed = 0.0 if step == 0 and head == "cvr" else min(1.0, predicted * draw.uniform(0.8, 1.2))
        low, high = (observed * 0.8, observed * 1.25) if intervals else (None, None)
        bins.append(CalibrationBin(predicted=predicted, observed=observed, low=low, high=high, weight=22_506.15))
    return CalibrationCurve(policy=policy, head=head, segment=segment, bins=bins)


def _point(policy: str, at: int, multiplier: float) -> FrontierPoint:
    spend = 41_200_000 * multiplier / (0.6 + 0.4 * multiplier)
    conversions = round(812 * (1 + 0.05 * at) * (spend / 41_200_000) ** 0.7)
    return FrontierPoint(
        policy=policy, multiplier=multiplier, spend=spend, clicks=conversions * 11, conversions=conversions
    )


def _diagnostics(policies: list[str]) -> dict[str, Any]:
    rows = {"unknown_wins": 87_542.0, "unknown_outcomes": 12.0, "invalid_predictions": 3.0, "clipped_predictions": 1.0}
    return {
        "invalid_weights": 0,
        "invalid_prices": 2,
        "invalid_labels": 0,
        "undecidable": 41.0,
        "formula_drift": 0.0312,
        "policies": {p: {"coverage": 0.98, **rows} for p in policies},
    }


def _findings() -> list[Finding]:
    return [
        Finding(
            code="unknown_wins", severity="info", message=f'"{MODEL}" bids above the logged bid on 87542 lost auctions.'
        ),
        Finding(code="coverage", severity="warning", message="Only 91.0% of the spend is on observed impressions."),
        Finding(code="broken", severity="error", message="An error with <script>alert(6)</script> in it."),
        *(Finding(code=f"more_{n}", severity="info", message=f"Finding number {n}.") for n in range(6)),
    ]


def _gate(policies: list[str], names: dict[str, str], verdict: str) -> Gate:
    if verdict == "no_gate":
        return Gate(verdict="no_gate", reason="The scenario has no gate rules, so nothing was judged.")
    rules = [
        *(_outcome(p, "spend does not jump", "spend", None, {}, "pass", "pass", 43_260_000.0) for p in policies[1:]),
        _outcome(policies[1], "CPA <b>& more</b>", "cpa_at_matched_spend", None, {}, "inconclusive", "warn", 51_234.5),
        _outcome(policies[1], "ignored", "auc", "ctr", {}, "fail", "ignore", 0.71),
        _outcome(policies[1], "waived", "cpc", None, {}, "fail", "fail", 4_321.0).model_copy(update={"waived": True}),
        _outcome(policies[1], "nothing", "no_such_metric", None, {}, "not_found", "fail", None),
        _outcome(policies[1], "same name", "cpa", None, {}, "pass", "pass", 50_000.0),
        _outcome(policies[1], "same name", "cpa", None, {}, "pass", "pass", 50_001.0),
    ]
    for at, campaign in enumerate(names):
        status = "fail" if at == 3 else "insufficient_data" if at == 5 else "pass"
        action = {"fail": "fail", "insufficient_data": "warn"}.get(status, "pass")
        value = 1.02 + at / 1000
        rules.append(
            _outcome(
                policies[1], "predictions add up", "calibration", "ctr", {"campaign": campaign}, status, action, value
            )
        )
    if verdict != "fail":
        rules = [r for r in rules if r.action in (("pass", "warn") if verdict == "warn" else ("pass",))]
    reason = (
        f"CPA of {MODEL} rises by 3.1% (50739.2 to 52312.1); the rule allows an increase of at most 1%. 2 more fail."
    )
    return Gate(verdict=verdict, reason=reason if verdict == "fail" else "Told apart.", rules=rules)  # type: ignore[arg-type]


def _outcome(
    policy: str,
    rule: str,
    metric: str,
    head: str | None,
    segment: dict[str, str],
    status: str,
    action: str,
    value: float | None,
) -> RuleOutcome:
    return RuleOutcome(
        rule=rule,
        policy=policy,
        metric=metric,
        head=head,
        segment=segment,
        status=status,  # type: ignore[arg-type]
        action=action,  # type: ignore[arg-type]
        evidence="point",
        value=value,
        baseline=None if value is None else value * 0.95,
        bound="an increase of at most 1%",
        sentence=f"{metric} of {policy} <says> this | and & that ]]> on {segment.get('campaign', 'all')}.",
    )
