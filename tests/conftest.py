"""Shared by all tests: the tests' own modules (the oracle) are importable, and an interrupt reaches what they start."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs pytest in the background, or nohup, has it ignore these, and commands of the tests would inherit that.
for number, plain in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, plain)
