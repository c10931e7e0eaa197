"""The report's tests use their own modules: results to render, and a reader of pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
