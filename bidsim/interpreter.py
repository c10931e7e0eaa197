"""New interpreters that run this very bidsim, wherever it lies."""

from __future__ import annotations

import sys
from pathlib import Path

# By that the child gets no other folder on its path.
_START = """
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
package, module = sys.argv[1:]
spec = spec_from_file_location("bidsim", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["bidsim"] = bidsim = module_from_spec(spec)
spec.loader.exec_module(bidsim)
import_module(module).main()
"""
_PACKAGE = str(Path(__file__).resolve().parent)


def command_of(module: str) -> list[str]:
    """The command of an interpreter that calls `main` of a module of bidsim.

    -P: a file in the working directory must not pass for a module.
    """
    return [sys.executable, "-P", "-c", _START, _PACKAGE, module]
