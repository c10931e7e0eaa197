"""``python -m bidsim`` and the ``bidsim`` command: runs a command and turns what it raises into an exit status.

0 done (the gate passed, warned or there is none); 1 the gate failed; 2 bad input; 130 interrupted; 70 a bug of ours.
"""

from __future__ import annotations

import os
import sys

EXIT_BAD_INPUT = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit. A traceback is always a bug."""
    sys.exit(_run())


def _run() -> int:
    from bidsim.errors import BidsimError

    try:
        from bidsim.cli import run

        return run()
    except BidsimError as error:
        _say(f"error: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; let the interpreter's own flush at exit not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except MemoryError:
        _say("error: not enough memory; lower --memory or --threads, or free some memory")
        return EXIT_BAD_INPUT
    except Exception:
        return _bug()


def _bug() -> int:
    import platform
    import traceback

    from bidsim import __version__

    _say(
        "bidsim failed in a way that it should not. Please report this with the lines below and, if you can, the "
        "scenario, at the issue tracker of your bidsim distribution."
    )
    _say(f"bidsim {__version__}, Python {platform.python_version()}, {platform.platform()}")
    _say(traceback.format_exc())
    return EXIT_BUG


def _say(text: str) -> None:
    print(f"bidsim: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
