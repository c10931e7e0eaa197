"""Shared by all tests: the tests' own modules (the oracle) are importable, and an interrupt reaches what they start."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs pytest in the background has it ignore interrupts, and commands of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
