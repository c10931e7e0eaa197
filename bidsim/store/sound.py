"""Whether a result that fits the schema can be read: what the schema leaves open, and the gate and the report rely on.

Results are files that anybody may have edited. Nothing here tells a forged number; it tells what no replay writes.
"""

from __future__ import annotations

from datetime import date, datetime

from bidsim.result import Result


def fault_of(result: Result) -> str:
    """What is wrong with it, "" for nothing."""
    names = [p.name for p in result.policies]
    if [p.role for p in result.policies].count("baseline") != 1:
        return "policies: needs one baseline"
    if len(set(names)) < len(names):
        return "policies: two have one name"
    try:
        date.fromisoformat(result.as_of)
    except ValueError:
        return "as_of: is no day"
    if result.data.window is not None:
        start, end = result.data.window.start, result.data.window.end
        try:
            _ = datetime.fromisoformat(end) - datetime.fromisoformat(start)
        except (ValueError, TypeError):
            return "data.window: has no times"
    intervals = result.scenario.get("intervals") or {}
    confidence = intervals.get("confidence", 0.95) if isinstance(intervals, dict) else None
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        return "scenario.intervals: has no confidence between 0 and 1"
    return ""
