"""The same overall numbers as bidsim's, as one would write them with pandas, scikit-learn and scipy.

    python tests/benchmarks/natural.py /tmp/log5 > natural.json
    python tests/benchmarks/natural.py /tmp/log5 --compare runs/…/result.json

The measure of the benchmarks: vectorised, reads only the columns it needs, walks no row in Python, computes no
interval and no number by segment (but what is a mean over campaigns). Of the overall numbers it leaves out those by
exchange and the bins of the reliability curve. `--compare` says how far each number is from
bidsim's and ends with status 1 where one is further than its tolerance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import gammainc
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

Floats = npt.NDArray[np.float64]
Numbers = dict[str, float]

RELATIVE_BETAS = (10.0, 100.0, 1000.0)
BINS = 20
MULTIPLIERS = 2.0 ** np.linspace(-2, 2, 17)
COLUMNS = ["ad_id", "price", "bid_price", "is_win", "is_click", "cv", "target_cpa"]

# Relative distance from bidsim's number, by the beginning of the name; what is not listed: 1e-9.
TOLERANCES = {
    # Bins cut between whole rows here, through ties and (on large logs) cells of 0.8% there.
    "ece_if_calibrated": 1e-3,
    # A small difference of large numbers: the parts of the Brier score.
    "miscalibration": 1e-6,
    "discrimination": 1e-6,
    # scipy's P(a + 1, x), the recurrence from P(a, x), and bidsim's table for large logs.
    "expected_utility": 1e-6,
    # Any multiplier between the last affordable row's and the next one's is right.
    "multiplier_at_matched_spend": 1e-4,
}
# The other bins move these by a share of what noise alone would show: of ece_if_calibrated, or of its square.
NOISE_SHARE = {"ece": 0.1, "calibration_error": 0.25}


def predictions(y: Floats, p: Floats, campaign: npt.NDArray[Any]) -> Numbers:
    """Metrics of one head over its labelled rows."""
    rate = y.mean()
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    loss, brier = log_loss(y, p), brier_score_loss(y, p)
    recalibrated = IsotonicRegression(y_min=0, y_max=1).fit_transform(p, y)
    brier_recalibrated = brier_score_loss(y, recalibrated)
    by_campaign = [
        (len(rows), roc_auc_score(rows["y"], rows["p"]))
        for _, rows in pd.DataFrame({"campaign": campaign, "y": y, "p": p}).groupby("campaign")
        if rows["y"].nunique() == 2
    ]
    order = np.argsort(p, kind="stable")
    sizes = np.array([len(rows) for rows in np.array_split(order, BINS)])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    predicted = np.add.reduceat(p[order], starts) / sizes
    observed = np.add.reduceat(y[order], starts) / sizes
    debiased = (predicted - observed) ** 2 - observed * (1 - observed) / (sizes - 1)
    squared = np.average(debiased, weights=sizes)
    noise = np.sqrt(2 / np.pi * predicted * (1 - predicted) / sizes)
    return {
        "logloss": loss,
        "normalized_entropy": loss / entropy,
        "auc": roc_auc_score(y, p),
        "gauc": float(np.average([auc for _, auc in by_campaign], weights=[rows for rows, _ in by_campaign])),
        "brier": brier,
        "miscalibration": brier - brier_recalibrated,
        "discrimination": rate * (1 - rate) - brier_recalibrated,
        "uncertainty": rate * (1 - rate),
        "calibration": p.sum() / y.sum(),
        "ece": float(np.average(np.abs(predicted - observed), weights=sizes)),
        "ece_if_calibrated": float(np.average(noise, weights=sizes)),
        "calibration_error": math.copysign(math.sqrt(abs(squared)), squared),
    }


def economics(log: pd.DataFrame, bid: Floats, pctr: Floats, pcvr: Floats) -> Numbers:
    """What one policy's bids would have come to, counting wins whose outcome the log observed."""
    wins = bid >= log["price"].to_numpy()
    shown = log["is_win"].to_numpy() == 1
    counted = log[wins & shown]
    spend = counted["price"].sum() / 1000
    clicks, conversions = counted["is_click"].sum(), counted["cv"].sum()
    value = (counted["target_cpa"] * counted["cv"]).sum()
    by_campaign = pd.DataFrame(
        {"ad_id": counted["ad_id"], "spend": counted["price"] / 1000, "value": counted["target_cpa"] * counted["cv"]}
    )
    by_campaign = by_campaign.groupby("ad_id").sum().query("value > 0")
    attained = by_campaign["spend"] / by_campaign["value"]
    predicted_clicks = pctr[wins & shown].sum()
    predicted_conversions = (pctr * pcvr)[wins & shown].sum()
    bids, won = int((bid > 0).sum()), len(counted)
    return {
        "bids": bids,
        "wins": won,
        "win_rate": won / bids,
        "spend": spend,
        "clicks": clicks,
        "conversions": conversions,
        "ctr": clicks / won,
        "cvr": conversions / clicks,
        "cpm": 1000 * spend / won,
        "cpc": spend / clicks,
        "cpa": spend / conversions,
        "value": value,
        "surplus": value - spend,
        "roi": (value - spend) / spend,
        "target_attainment": float(np.average(attained, weights=by_campaign["spend"])),
        "predicted_clicks": predicted_clicks,
        "predicted_conversions": predicted_conversions,
        "calibration_on_wins/ctr": predicted_clicks / clicks,
        "calibration_on_wins/ctcvr": predicted_conversions / conversions,
        "unknown_outcomes": int((wins & ~shown).sum()),
        "coverage": spend / (log["price"].to_numpy()[wins].sum() / 1000),
    }


def expected_utility(log: pd.DataFrame, bid: Floats, beta: float) -> float:
    """Chapelle (2015), second price, over the rows whose outcome was observed."""
    shown = log["is_win"].to_numpy() == 1
    price, own = log["price"].to_numpy()[shown] / 1000, bid[shown] / 1000
    value = (log["target_cpa"] * log["cv"]).to_numpy()[shown]
    shape = beta * price + 1
    paid = shape / beta * gammainc(shape + 1, beta * own)
    return float((value * gammainc(shape, beta * own) - paid).sum())


def matched_spend(log: pd.DataFrame, bid: Floats, goal: float) -> Numbers:
    """The policy with one multiplier on all bids, found by bisection, that spends what the baseline does."""
    shown = log[log["is_win"] == 1]
    price = shown["price"].to_numpy()
    starts = price / bid[log["is_win"].to_numpy() == 1]
    low, high = 1 / 64, 64.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        # Less than any price: sums of floats don't end exactly at the goal.
        if price[starts <= middle].sum() / 1000 <= goal + 1e-6:
            low = middle
        else:
            high = middle
    won = shown[starts <= low]
    spend, clicks, conversions = won["price"].sum() / 1000, won["is_click"].sum(), won["cv"].sum()
    return {
        "multiplier_at_matched_spend": low,
        "clicks_at_matched_spend": clicks,
        "cpc_at_matched_spend": spend / clicks,
        "conversions_at_matched_spend": conversions,
        "cpa_at_matched_spend": spend / conversions,
    }


def disagreement(log: pd.DataFrame, ours: Floats, theirs: Floats) -> Numbers:
    """What only the candidate, or only the baseline, wins; ours: the baseline's bids."""
    shown = log["is_win"].to_numpy() == 1
    before, after = ((bid >= log["price"].to_numpy()) & shown for bid in (ours, theirs))
    found = {"disagreement": (before != after).sum() / (before | after).sum()}
    for name, rows in (("gained", after & ~before), ("lost", before & ~after)):
        of = log[rows]
        found |= {
            f"wins_{name}": len(of),
            f"spend_{name}": of["price"].sum() / 1000,
            f"clicks_{name}": of["is_click"].sum(),
            f"conversions_{name}": of["cv"].sum(),
        }
    return found


def won_at(log: pd.DataFrame, bid: Floats) -> Numbers:
    """What the log shows of the auctions that bids win."""
    won = log[(bid >= log["price"].to_numpy()) & (log["is_win"].to_numpy() == 1)]
    return {"spend": won["price"].sum() / 1000, "clicks": won["is_click"].sum(), "conversions": won["cv"].sum()}


def frontier(log: pd.DataFrame, bid: Floats) -> Numbers:
    """The policy with its bids multiplied."""
    points = {f"{multiplier:.6g}": won_at(log, multiplier * bid) for multiplier in MULTIPLIERS}
    return {f"frontier {name}/{at}": value for at, point in points.items() for name, value in point.items()}


def split(log: pd.DataFrame, ours: Floats, theirs: Floats) -> Numbers:
    """How the change comes about: the baseline's bids moved to the candidate's mean, then campaign by campaign."""
    sums = pd.DataFrame({"campaign": log["ad_id"], "ours": ours, "theirs": theirs}).groupby("campaign").sum()
    by_campaign = (sums["theirs"] / sums["ours"]).reindex(log["ad_id"]).to_numpy()
    steps = [ours, ours * (theirs.sum() / ours.sum()), ours * by_campaign, theirs]
    totals = [won_at(log, bid) for bid in steps]
    for total in totals:
        total |= {"cpc": total["spend"] / total["clicks"], "cpa": total["spend"] / total["conversions"]}
    return {
        f"split {name}/{part}": after[name] - before[name]
        for part, before, after in zip(("level", "mix", "ranking"), totals, totals[1:], strict=False)
        for name in before
    }


def fidelity(log: pd.DataFrame, bid: Floats) -> Numbers:
    """The log's own bids replayed, and how often the baseline's differ from them by more than 1%."""
    logged = log["bid_price"].to_numpy()
    drift = (np.abs(bid - logged) > 0.01 * logged).mean()
    return {f"fidelity {name}": value for name, value in won_at(log, logged).items()} | {"formula_drift": drift}


def evaluate(directory: Path, models: list[str], *, utility: bool) -> dict[str, Numbers]:
    """Numbers by policy; the first model is the baseline. Keys are metric, or metric/head, or metric/beta."""
    scores = [f"{head}_{model}" for model in models for head in ("pctr", "pcvr")]
    log = pd.read_parquet(directory / "log", columns=COLUMNS + scores)
    shown = (log["is_win"] == 1).to_numpy()
    clicked = (log["is_click"] == 1).to_numpy()
    betas = [relative / (log["price"].mean() / 1000) for relative in RELATIVE_BETAS] if utility else []
    found: dict[str, Numbers] = {}
    production = np.zeros(len(log))
    for model in models:
        pctr = log[f"pctr_{model}"].to_numpy(dtype=np.float64)
        pcvr = log[f"pcvr_{model}"].to_numpy(dtype=np.float64)
        bid = 1000 * log["target_cpa"].to_numpy(dtype=np.float64) * pctr * pcvr
        own = found[model] = economics(log, bid, pctr, pcvr) | frontier(log, bid) | {"rows": len(log)}
        for head, p, label, rows in (("ctr", pctr, "is_click", shown), ("cvr", pcvr, "cv", clicked)):
            y, campaign = log[label].to_numpy(dtype=np.float64)[rows], log["ad_id"].to_numpy()[rows]
            own |= {f"{name}/{head}": value for name, value in predictions(y, p[rows], campaign).items()}
            if model != models[0]:
                before = log[f"p{head}_{models[0]}"].to_numpy(dtype=np.float64)[rows]
                own[f"churn/{head}"] = float(np.abs(p[rows] - before).mean() / before.mean())
        for relative, beta in zip(RELATIVE_BETAS, betas, strict=False):
            own[f"expected_utility/{relative:g}"] = expected_utility(log, bid, beta)
        if model == models[0]:
            production = bid
            own |= fidelity(log, bid)
        else:
            own |= matched_spend(log, bid, found[models[0]]["spend"])
            own |= disagreement(log, production, bid) | split(log, production, bid)
    return {model: {name: float(value) for name, value in own.items()} for model, own in found.items()}


def compare(found: dict[str, Numbers], result: dict[str, Any]) -> int:
    """Print each number that is further from bidsim's than its tolerance, and how many are not; returns the former."""
    names = {model: "baseline" if i == 0 else model for i, model in enumerate(found)}
    theirs: dict[tuple[str, str], float | None] = {}
    for point in result["frontier"]:
        for name in ("spend", "clicks", "conversions"):
            theirs[point["policy"], f"frontier {name}/{point['multiplier']:.6g}"] = point[name]
    for part in result["split"]:
        theirs[part["policy"], f"split {part['metric']}/{part['part']}"] = part["absolute"]["value"]
    for name in ("spend", "clicks", "conversions"):
        theirs["baseline", f"fidelity {name}"] = result["fidelity"]["replayed"][name]
    betas = sorted({m["beta"] for m in result["metrics"] if m["beta"] is not None})
    for m in result["metrics"]:
        if not m["segment"]:
            part = m["head"] or (f"{RELATIVE_BETAS[betas.index(m['beta'])]:g}" if m["beta"] is not None else "")
            theirs[m["policy"], f"{m['metric']}/{part}" if part else m["metric"]] = m["value"]
    wrong = checked = 0
    furthest = 0.0
    for model, numbers in found.items():
        for name, value in numbers.items():
            metric, _, head = name.partition("/")
            expected = theirs.get((names[model], name))
            tolerance = TOLERANCES.get(metric, NOISE_SHARE.get(metric, 1e-9))
            if expected is None:
                apart = math.inf
            elif metric == "ece":
                apart = abs(value - expected) / numbers[f"ece_if_calibrated/{head}"]
            elif metric == "calibration_error":
                apart = abs(value * abs(value) - expected * abs(expected)) / numbers[f"ece_if_calibrated/{head}"] ** 2
                # Where it stands far above the noise, the other bins move it by a share of itself.
                apart = apart if abs(value - expected) > 0.005 * abs(expected) else 0.0
            else:
                apart = abs(value - expected) / max(abs(expected), 1e-300)
            checked += 1
            if not (apart <= tolerance or value == expected):
                wrong += 1
                print(f"{model} {name}: {value!r} here, {expected!r} in the result, {apart:.1e} apart", file=sys.stderr)
            elif tolerance == 1e-9:
                furthest = max(furthest, apart if value != expected else 0.0)
    print(
        f"{checked - wrong} of {checked} numbers agree; of those held to 1e-9 the furthest is {furthest:.1e} apart",
        file=sys.stderr,
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="as make_log.py writes it")
    parser.add_argument("--models", nargs="+", default=["prod", "v42"], help="the baseline's first")
    parser.add_argument("--without-utility", action="store_true", help="leave out expected_utility, the slowest number")
    parser.add_argument("--compare", type=Path, metavar="RESULT", help="result.json of the same log")
    given = parser.parse_args()
    found = evaluate(given.directory, given.models, utility=not given.without_utility)
    if given.compare:
        return 1 if compare(found, json.loads(given.compare.read_text())) else 0
    json.dump(found, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
