"""What each metric is called, how its numbers are written and what it means (spec section 4, in a reader's words)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bidsim.gate.bounds import HIGHER_IS_BETTER, LOWER_IS_BETTER
from bidsim.report import format as f

Write = Callable[[float | None], str]


@dataclass(frozen=True)
class Word:
    """kind: how values are written: money, price, count, share, rate, or a number of decimals ("4") or digits ("s4").

    by: how a difference is said: "relative", "absolute" or "none".
    """

    label: str
    kind: str
    definition: str
    by: str = "relative"


WORDS: dict[str, Word] = {
    "spend": Word("Spend", "money", "what the counted wins cost"),
    "clicks": Word("Clicks", "count", "observed clicks on the counted wins"),
    "conversions": Word("Conversions", "count", "observed conversions on the counted wins"),
    "cpa": Word("CPA", "price", "spend / conversions"),
    "cpc": Word("CPC", "price", "spend / clicks"),
    "cpm": Word("CPM", "price", "1000 x spend / wins"),
    "ctr": Word("CTR", "rate", "clicks / wins"),
    "cvr": Word("CVR", "rate", "conversions / clicks"),
    "bids": Word("Bids", "count", "auctions entered"),
    "wins": Word(
        "Wins",
        "count",
        "counted wins: decided by the log, with an observed outcome (outcomes: predicted adds what is expected of others)",
    ),
    "win_rate": Word("Win rate", "share", "wins / bids"),
    "value": Word("Value", "money", "target x result: target CPC x clicks, or target CPA x conversions"),
    "surplus": Word("Surplus", "money", "value - spend"),
    "roi": Word("ROI", "share", "surplus / spend", "absolute"),
    "target_attainment": Word(
        "Target attainment", "3", "CPA / target CPA (or CPC / target CPC) of the campaigns, spend-weighted", "absolute"
    ),
    "cpa_at_matched_spend": Word(
        "CPA at matched spend", "price", "with one multiplier on all bids, chosen so that spend equals the baseline's"
    ),
    "cpc_at_matched_spend": Word("CPC at matched spend", "price", "the same for the cost of a click"),
    "conversions_at_matched_spend": Word(
        "Conversions at matched spend", "count", "conversions at that multiplier: what the same money would buy"
    ),
    "clicks_at_matched_spend": Word("Clicks at matched spend", "count", "clicks at that multiplier"),
    "multiplier_at_matched_spend": Word("Multiplier at matched spend", "s4", "that multiplier", "absolute"),
    "expected_utility": Word(
        "Expected utility", "money", "value less cost expected under a noisy competitor (Chapelle 2015), by its beta"
    ),
    "predicted_clicks": Word("Predicted clicks", "count", "what the policy predicted for its own wins; never a value"),
    "predicted_conversions": Word(
        "Predicted conversions", "count", "what the policy predicted for its own wins; never a value"
    ),
    "normalized_entropy": Word(
        "Normalized entropy", "5", "logloss / entropy of the base rate: below 1 it tells more than the mean rate"
    ),
    "logloss": Word("Logloss", "s5", "mean of -(y ln p + (1-y) ln(1-p)) over labelled rows"),
    "auc": Word("AUC", "5", "chance that a positive row is ranked above a negative one", "absolute"),
    "gauc": Word("AUC within campaigns", "5", "AUC of each campaign, weighted by rows", "absolute"),
    "calibration": Word(
        "Calibration", "4", "sum of predictions / sum of labels: above 1 predicts too much", "absolute"
    ),
    "calibration_error": Word(
        "Calibration error", "s3", "debiased root of the squared error over 20 equal-mass bins", "absolute"
    ),
    "ece": Word(
        "ECE", "s3", "mean abs(predicted - observed) over the same bins; noise alone makes it positive", "absolute"
    ),
    "ece_if_calibrated": Word(
        "ECE if calibrated", "s3", "what a perfectly calibrated model would show on this many labels", "none"
    ),
    "brier": Word("Brier score", "s5", "mean of (p - y) squared"),
    "miscalibration": Word(
        "Miscalibration", "s4", "part of the Brier score that isotonic recalibration removes (CORP)"
    ),
    "discrimination": Word("Discrimination", "s4", "what the recalibrated predictions gain over the mean rate (CORP)"),
    "uncertainty": Word("Uncertainty", "s4", "Brier score of the mean rate (CORP)"),
    "calibration_on_wins": Word("Calibration on wins", "4", "the same over the policy's own wins", "absolute"),
    "churn": Word("Churn", "share", "mean abs(candidate - baseline prediction) / mean baseline prediction", "absolute"),
    "coverage": Word(
        "Coverage", "share", "spend with an observed outcome / spend on all decided wins of the policy", "absolute"
    ),
    "disagreement": Word(
        "Disagreement", "share", "rows that one policy alone wins / rows that either wins", "absolute"
    ),
    "wins_gained": Word("Wins gained", "count", "rows that only the candidate wins"),
    "spend_gained": Word("Spend gained", "money", "what those cost"),
    "clicks_gained": Word("Clicks gained", "count", "clicks on those"),
    "conversions_gained": Word("Conversions gained", "count", "conversions of those"),
    "wins_lost": Word("Wins lost", "count", "rows that only the baseline wins"),
    "spend_lost": Word("Spend lost", "money", "what those cost"),
    "clicks_lost": Word("Clicks lost", "count", "clicks on those"),
    "conversions_lost": Word("Conversions lost", "count", "conversions of those"),
    "unknown_wins": Word(
        "Unknown wins",
        "count",
        "auctions the log lost at an unknown price where the policy bids more: in no sum, unless outcomes: predicted",
    ),
    "unknown_outcomes": Word(
        "Unknown outcomes", "count", "wins whose impression the log never showed: no click or conversion to count"
    ),
    "rows": Word("Rows", "count", "rows of the log in the window for which all conditions hold"),
    "undecidable": Word("Undecidable rows", "count", "neither a price nor a logged result: left out for every policy"),
    "formula_drift": Word(
        "Formula drift", "share", "rows whose recomputed baseline bid is more than 1% off the logged one", "absolute"
    ),
    "invalid_predictions": Word("Invalid predictions", "count", "missing, NaN or outside 0 to 1"),
    "clipped_predictions": Word("Clipped predictions", "count", "0 or 1 exactly: clipped before the logarithm"),
}

HEAD_WORDS = {
    "ctr": "CTR: click given impression",
    "cvr": "CVR: conversion given click",
    "ctcvr": "CTCVR: conversion given impression",
}


def label(metric: str) -> str:
    return WORDS[metric].label if metric in WORDS else f.clean_name(metric.replace("_", " "))


def better(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is: who bids more wins more, for better or worse."""
    if metric == "win_rate":
        return 0
    return (metric in HIGHER_IS_BETTER) - (metric in LOWER_IS_BETTER)


def writer(metric: str, money: f.Money) -> Write:
    """The function that writes values of this metric."""
    kind = WORDS[metric].kind if metric in WORDS else "s4"
    if kind.startswith("s") and kind[1:].isdigit():
        return partial(f.significant, digits=int(kind[1:]))
    if kind.isdigit():
        return partial(f.fixed, decimals=int(kind))
    return {"money": money.amount, "price": money.price, "count": f.count, "share": f.share, "rate": f.rate}[kind]


def difference_writer(metric: str) -> tuple[str, Write]:
    """("relative" or "absolute", the function that writes the difference with its sign)."""
    word = WORDS.get(metric)
    if word is None or word.by == "relative":
        return "relative", f.change
    if word.by == "none":
        return "absolute", lambda value: ""
    if word.kind == "share":
        return (
            "absolute",
            lambda value: f.delta(None if value is None else 100 * value, 2) + " pt" * (value is not None),
        )
    if word.kind.isdigit():
        return "absolute", partial(f.delta, decimals=int(word.kind))
    return "absolute", f.signed
