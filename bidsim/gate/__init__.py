"""The release gate: rules judged on a result, and the verdict they add up to (spec section 5)."""

from bidsim.gate.verdict import judge

__all__ = ["judge"]
