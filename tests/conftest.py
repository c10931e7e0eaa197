"""Shared by all tests: the tests' own modules (the oracle) are importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
