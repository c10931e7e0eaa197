"""Metrics as lines of a log, one a line, and the regular expressions that a training service finds them by.

    metric validation:ctr_logloss=0.0921532; round 3
    metric test:ctr_normalized_entropy=0.958371

`train:` and `validation:` come after each round and make the learning curves; `test:` is what the replay of the judged
rows says of the trained model. A number that is undefined is left out: `nan` would be a value to nobody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from bidsim.result import Result
from bidsim.scenario.schema import HEADS, Head

NUMBER = r"([0-9.eE+-]+)"
MOST_DEFINITIONS = 40  # of a training job
CURVE = ("train:{}_logloss", *(f"validation:{{}}_{m}" for m in ("logloss", "normalized_entropy", "auc", "calibration")))
JUDGED = tuple(f"test:{{}}_{m}" for m in ("logloss", "normalized_entropy", "auc", "calibration"))
MONEY = tuple(
    f"test:{m}"
    for m in (
        *("wins", "spend", "clicks", "conversions", "cpc", "cpa"),
        *("cpc_at_matched_spend", "cpa_at_matched_spend", "clicks_at_matched_spend", "conversions_at_matched_spend"),
    )
)


def metric_line(name: str, value: float | None, number: int | None = None) -> str | None:
    """The line of a metric, None where there is no number. number: of the round."""
    if value is None or not math.isfinite(value):
        return None
    return f"metric {name}={value:.9g}" + ("" if number is None else f"; round {number}")


def curve_name(told: str) -> str:
    """The metric's name in lines of what training tells, such as ctr_training_logloss."""
    head, _, rest = told.partition("_")
    return f"train:{head}_logloss" if rest == "training_logloss" else f"validation:{told}"


def judged_name(metric: str, head: str | None) -> str:
    """The name of a replay's metric."""
    return f"test:{head}_{metric}" if head else f"test:{metric}"


def judged_lines(result: Result, policy: str) -> Iterator[str]:
    """All overall numbers of a policy; of several betas the first."""
    seen: set[str] = set()
    for m in result.metrics:
        name = judged_name(m.metric, m.head)
        if m.policy != policy or m.segment or name in seen:
            continue
        seen.add(name)
        line = metric_line(name, m.value)
        if line is not None:
            yield line


def regex_of(name: str) -> str:
    """What finds a metric's number in a line; no line matches the expression of another metric."""
    return f"metric {re.escape(name)}={NUMBER}"


def definitions(objective: str | None = None, heads: Sequence[Head] = HEADS) -> list[dict[str, str]]:
    """Name and Regex of each metric for a training job: learning curves, and the replay's main numbers."""
    names = [pattern.format(head) for head in heads for pattern in (*CURVE, *JUDGED)]
    names += [*MONEY, *([objective] if objective else [])]
    return [{"Name": name, "Regex": regex_of(name)} for name in dict.fromkeys(names)]
