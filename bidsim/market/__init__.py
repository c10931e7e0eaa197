"""The synthetic market, the demo made from it, and worlds whose truth is known."""

from __future__ import annotations

from bidsim.market.demo import DemoFiles, DemoSize, write_demo
from bidsim.market.worlds import Knobs, Size, World

__all__ = ["DemoFiles", "DemoSize", "Knobs", "Size", "World", "write_demo"]
