"""The policies of one replay: the baseline first, then the candidates, each with its model and its bid settings.

A candidate may come from the scenario or from ``--model`` (called by its file's stem). Its bid is the scenario's
with its own changes on top, so a candidate that changes only the multiplier keeps the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bidsim.errors import ScenarioError
from bidsim.models import Scorer, open_scorer
from bidsim.models.bundle import Bundle
from bidsim.scenario.loading import LoadedScenario
from bidsim.scenario.schema import Bid, Head, Policy, PolicyColumns

BASELINE = "baseline"


@dataclass
class PolicyPlan:
    """One policy. index 0 is the baseline. What depends on the log is filled in by `binding.make_plan`."""

    index: int
    name: str
    role: Literal["baseline", "candidate"]
    path: tuple[str | int, ...]
    scorer: Scorer | None
    model_file: str | None
    model_path: str | None
    sha256: str | None
    columns: PolicyColumns | None
    formula: str | None
    formula_path: tuple[str | int, ...]
    multiplier: float
    min: float
    max: float | None
    round_down: bool
    training_window: tuple[str, str] | None = None
    bundle: Bundle | None = None
    own_heads: tuple[Head, ...] = ()
    borrowed_heads: tuple[Head, ...] = ()
    formula_text: str = ""
    formula_sql: str = ""
    column_names: dict[str, str] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        """What travels to other processes is all but the model, which each opens for itself (see `scoring`)."""
        return {**self.__dict__, "scorer": None, "bundle": None}


@dataclass(frozen=True)
class Bidder:
    """A policy at one multiplier of all its bids: what the auction sees. key names its columns in the SQL.

    raw, min, limited are SQL; factor, least, round_down and max say the same in numbers. each: SQL of a further factor
    of each row, where there is one.
    """

    key: str
    policy: int
    raw: str
    min: str
    limited: str
    round_down: bool
    max: float | None
    factor: float = 1.0
    least: float = 0.0
    each: str | None = None


def bidder(policy: PolicyPlan, key: str, scale: float = 1.0, each: str | None = None) -> Bidder:
    """The policy with every bid multiplied by `scale`, and by the SQL expression `each` (before min, max, rounding)."""
    factor = policy.multiplier * scale
    raw = f"raw_{policy.index}" if factor == 1.0 else f"(raw_{policy.index} * {factor!r}::double)"
    if each is not None:
        raw = f"({raw} * ({each}))"
    limited = raw if policy.max is None else f"least({raw}, {policy.max!r}::double)"
    if policy.round_down:
        limited = f"floor({limited})"
    least = f"{policy.min!r}::double"
    return Bidder(key, policy.index, raw, least, limited, policy.round_down, policy.max, factor, policy.min, each)


def resolve(
    loaded: LoadedScenario, models: Sequence[Path], baseline: Path | None, threads: int | None = None
) -> list[PolicyPlan]:
    """All policies, baseline first. Opens and checks every model file; raises ModelError, ScenarioError.

    threads: of the models' libraries; default: as many as there are cores.
    """
    scenario = loaded.scenario
    entries: list[tuple[str, Policy, tuple[str | int, ...], Path | None]] = []
    base = scenario.baseline or Policy()
    entries.append((BASELINE, base, ("baseline",), baseline or (loaded.resolve(base.model) if base.model else None)))
    for name, policy in scenario.candidates.items():
        if policy.model is None and policy.columns is None and policy.bid is None:
            raise loaded.error(f"candidates.{name}: give a model, columns or bid", "candidates", name)
        model = loaded.resolve(policy.model) if policy.model else None
        entries.append((name, policy, ("candidates", name), model))
    for file in models:
        entries.append((file.stem, Policy(), ("candidates",), file))
    names: set[str] = set()
    for name, _, path, _ in entries:
        if not name.isprintable():
            raise loaded.error(f"the policy name {name!a} is not plain text; rename the file or the candidate", *path)
        if name in names:
            raise loaded.error(
                f'two policies are called "{name}"'
                + ("; the name is the baseline's" if name == BASELINE else "; rename the file or the candidate"),
                *path,
            )
        names.add(name)
    if len(entries) == 1:
        raise ScenarioError("no candidate: give --model FILE, or candidates in the scenario", file=loaded.file)
    return [_policy(loaded, i, *entry, threads) for i, entry in enumerate(entries)]


def _policy(
    loaded: LoadedScenario,
    index: int,
    name: str,
    policy: Policy,
    path: tuple[str | int, ...],
    model: Path | None,
    threads: int | None,
) -> PolicyPlan:
    general, own = loaded.scenario.bid, policy.bid or Bid()

    def setting(key: str, default: object) -> object:
        for block in (own, general):
            value = getattr(block, key)
            if value is not None:
                return value
        return default

    opened = open_scorer(model, threads=threads) if model is not None else None
    formula = own.formula or general.formula
    maximum = setting("max", None)
    return PolicyPlan(
        index=index,
        name=name,
        role="baseline" if index == 0 else "candidate",
        path=path,
        scorer=opened.scorer if opened else None,
        model_file=model.name if model else None,
        model_path=str(model) if model else None,
        sha256=opened.sha256 if opened else None,
        columns=None if model is not None else policy.columns,
        formula=formula,
        formula_path=(*path, "bid", "formula") if own.formula else ("bid", "formula"),
        multiplier=float(setting("multiplier", 1.0)) * (loaded.shift.candidates if index else 1.0),  # type: ignore[arg-type]
        min=float(setting("min", 0.0)),  # type: ignore[arg-type]
        max=None if maximum is None else float(maximum),  # type: ignore[arg-type]
        round_down=setting("round", "none") == "down",
        training_window=opened.training_window if opened else None,
        bundle=opened.bundle if opened else None,
    )
