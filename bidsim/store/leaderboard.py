"""The leaderboard: every candidate of every run, compared only within the same data and replay, beside its A/B outcome.

One DuckDB query over the runs' run.json picks each candidate's number and ranks it; what online tests showed comes
from the ledger. Runs whose intervals overlap the leader's are not told apart from it, and a candidate's rank says how
many were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.gate.bounds import HIGHER_IS_BETTER, LOWER_IS_BETTER
from bidsim.store.ledger import OnlineChange, glob_escaped, latest, read_outcomes
from bidsim.store.scan import Scan, StoredRun, scan
from bidsim.store.track import Track, track_record

DEFAULTS = ("cpa_at_matched_spend", "cpc_at_matched_spend", "cpa", "cpc", "normalized_entropy")
# The types are named, so that a run without candidates or with other keys beside these reads as it should.
COLUMNS = """{
    'started': 'VARCHAR',
    'record': 'STRUCT(
        name VARCHAR, fingerprint VARCHAR, comparison VARCHAR, verdict VARCHAR, currency VARCHAR,
        candidates STRUCT(name VARCHAR, identity VARCHAR, sha256 VARCHAR)[],
        forecasts STRUCT(
            policy VARCHAR, metric VARCHAR, head VARCHAR, beta DOUBLE, baseline DOUBLE, candidate DOUBLE,
            relative STRUCT("value" DOUBLE, low DOUBLE, high DOUBLE),
            absolute STRUCT("value" DOUBLE, low DOUBLE, high DOUBLE))[])'
}"""
QUERY = f"""
with
runs as (
    select filename, started, record
    from read_json($files, columns = {COLUMNS}, filename = true, maximum_object_size = 67108864)
),
candidates as (
    select filename, started, record.name as scenario, record.fingerprint, record.comparison, record.verdict,
        record.currency, c.name as policy, c.identity, c.sha256
    from runs, unnest(record.candidates) as each_candidate(c)
),
numbers as (
    select filename, f.policy, f.baseline, f.candidate, f.relative, f.absolute
    from runs, unnest(record.forecasts) as each_forecast(f)
    where f.metric = $metric and f.head is not distinct from $head
    qualify row_number() over (partition by filename, f.policy order by f.beta nulls first) = 1
),
tried as (
    select fingerprint, count(distinct identity) as tried, min(started) as first from candidates group by fingerprint
)
select c.filename, c.started, c.scenario, c.fingerprint, c.comparison, c.verdict, c.currency, c.policy, c.sha256,
    n.baseline, n.candidate, n.relative.value, n.relative.low, n.relative.high,
    n.absolute.value, n.absolute.low, n.absolute.high, t.tried,
    rank() over (
        partition by c.comparison
        order by case $way when 'down' then n.candidate when 'one' then abs(n.candidate - 1) else -n.candidate end
            nulls last
    ) as rank
from candidates c left join numbers n using (filename, policy) join tried t using (fingerprint)
order by t.first desc, c.fingerprint, c.comparison, rank, c.started, c.filename, c.policy
"""


@dataclass(frozen=True)
class Entry:
    """A candidate of a run. value, baseline: of the metric; relative, absolute: (change, low, high).

    level: whether its interval overlaps the leader's, so that the two are not told apart. online: what the A/B test
    showed of the metric, relative.
    """

    rank: int | None
    run: str
    directory: str
    started: str
    scenario: str
    policy: str
    sha256: str | None
    verdict: str
    currency: str | None
    baseline: float | None
    value: float | None
    relative: tuple[float | None, float | None, float | None]
    absolute: tuple[float | None, float | None, float | None]
    level: bool
    online: OnlineChange | None

    @property
    def held(self) -> bool | None:
        """Whether the forecast's interval held what the online test showed; None where one of them is missing."""
        _, low, high = self.relative
        if self.online is None or low is None or high is None:
            return None
        return low <= self.online.change <= high


@dataclass(frozen=True)
class Board:
    """Runs that may be compared, best first. tried: different candidates judged on this data."""

    fingerprint: str
    comparison: str
    tried: int
    entries: list[Entry]


@dataclass(frozen=True)
class Leaderboard:
    """passed_over: what was no run, in words. track: how forecasts have done against online tests, over all runs."""

    metric: str
    head: str | None
    better: str
    boards: list[Board]
    passed_over: str
    track: Track

    def to_data(self) -> dict[str, Any]:
        """Everything as plain data, for --json."""
        data: dict[str, Any] = {"schema": "bidsim.leaderboard/1", "metric": self.metric, "head": self.head}
        data |= {"better": self.better, "passed_over": self.passed_over, "boards": []}
        for board in self.boards:
            entries = []
            for entry in board.entries:
                row = {k: v for k, v in asdict(entry).items() if k not in ("relative", "absolute", "online")}
                for name, (value, low, high) in (("relative", entry.relative), ("absolute", entry.absolute)):
                    row[name] = {"value": value, "low": low, "high": high}
                row["online"] = entry.online.model_dump() if entry.online else None
                entries.append(row | {"held": entry.held})
            data["boards"].append(
                {"fingerprint": board.fingerprint, "comparison": board.comparison, "tried": board.tried}
                | {"entries": entries}
            )
        data["track"] = self.track.to_data()
        return data


def make_leaderboard(directories: Sequence[Path], by: str | None = None, head: str | None = None) -> Leaderboard:
    """All candidates of the runs below the folders, ranked by a metric.

    by: a metric, by default CPA at matched spend or what comes nearest; head: where the metric has one, by default the
    first. Raises BidsimError where no run has the metric.
    """
    found = scan(directories)
    metric, head = _metric(found, by, head)
    way = "up" if metric in HIGHER_IS_BETTER else "down" if metric in LOWER_IS_BETTER else "most"
    if metric == "calibration":
        way = "one"
    others: list[str] = []
    try:
        boards = _boards(found.runs, metric, head, way, others)
    except LookupError:
        readable = [run for run in found.runs if _readable(run, metric, head, way)]
        found = replace(found, runs=readable, foreign=found.foreign + len(found.runs) - len(readable))
        others = []
        boards = _boards(found.runs, metric, head, way, others)
    passed_over = [
        found.passed_over,
        f"{len(others)} recorded outcome{'s' * (len(others) != 1)} passed over: {others[0]}" if others else "",
    ]
    better = {
        "up": "higher is better",
        "down": "lower is better",
        "one": "closer to 1 is better",
        "most": "neither more nor less is better; the most comes first",
    }[way]
    return Leaderboard(metric, head, better, boards, "; ".join(filter(None, passed_over)), track_record(found.runs))


def _metric(found: Scan, by: str | None, head: str | None) -> tuple[str, str | None]:
    known: dict[str, list[str | None]] = {}
    for run in found.runs:
        for f in run.record.forecasts:
            given = known.setdefault(f.metric, [])
            if f.head not in given:
                given.append(f.head)
    if not known:
        return by or DEFAULTS[0], head
    if by is None:
        by = next((m for m in DEFAULTS if m in known), next(iter(known)))
    if by not in known:
        from bidsim.scenario.explaining import nearest

        hint = nearest(by, known) or f"; known are {', '.join(sorted(known))}"
        raise BidsimError(f'--by: no run has the metric "{by[:80]}"{hint}')
    if head is None and None not in known[by]:
        head = next((h for h in ("ctr", "cvr", "ctcvr") if h in known[by]), known[by][0])
    if head not in known[by]:
        heads = ", ".join(str(h) for h in known[by] if h)
        raise BidsimError(f"--head: {by} " + (f"is given for {heads}" if heads else "has no heads"))
    return by, head


def _boards(runs: Sequence[StoredRun], metric: str, head: str | None, way: str, others: list[str]) -> list[Board]:
    """others: is told of recordings that can't be read, see `read_outcomes`.

    Raises LookupError where a file is gone meanwhile, or holds a key twice, which the engine reads otherwise than `scan`.
    """
    import duckdb

    if not runs:
        return []
    by_file = {str(run.directory / "run.json"): run for run in runs}
    with duckdb.connect() as connection:
        files = [glob_escaped(file) for file in by_file]
        try:
            rows = connection.execute(QUERY, {"files": files, "metric": metric, "head": head, "way": way}).fetchall()
        except duckdb.Error as error:
            raise LookupError from error
    boards: dict[str, Board] = {}
    online = {file: latest(read_outcomes(run.directory, others)) for file, run in by_file.items()}
    for row in rows:
        (file, started, scenario, fingerprint, comparison, verdict, currency, policy, sha256) = row[:9]
        baseline, value, *changes = row[9:17]
        board = boards.setdefault(comparison, Board(fingerprint, comparison, row[17], []))
        relative, absolute = tuple(changes[:3]), tuple(changes[3:])
        leader = board.entries[0] if board.entries else None
        board.entries.append(
            Entry(
                rank=row[18] if value is not None else None,
                run=by_file[file].name,
                directory=str(by_file[file].directory),
                started=started,
                scenario=scenario,
                policy=policy,
                sha256=sha256,
                verdict=verdict,
                currency=currency,
                baseline=baseline,
                value=value,
                relative=relative,
                absolute=absolute,
                level=leader is not None and _overlap(leader.absolute, absolute),
                online=online[file].get((policy, metric, head)),
            )
        )
    return list(boards.values())


def _readable(run: StoredRun, metric: str, head: str | None, way: str) -> bool:
    """Whether the engine reads the run's file."""
    try:
        _boards([run], metric, head, way, [])
    except LookupError:
        return False
    return True


def _overlap(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    """Whether two (change, low, high) have intervals that overlap."""
    if a[1] is None or a[2] is None or b[1] is None or b[2] is None:
        return False
    return a[1] <= b[2] and b[1] <= a[2]
