"""The synthetic market and the demo made from it."""

from __future__ import annotations

from bidsim.market.demo import DemoFiles, DemoSize, write_demo

__all__ = ["DemoFiles", "DemoSize", "write_demo"]
