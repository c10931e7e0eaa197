"""Compiles kernels.c when bidsim is installed; an installation without a compiler is complete, only slower.

A build hook of hatchling. `python -m bidsim.kernels.build` does the same in a checkout. The library needs no Python
headers, so one file serves every Python version of a platform.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAME = "_kernels.so"
# No contraction to fused multiply-add: results must not depend on the processor. No path of the build in the file.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-Wl,--build-id=none")


def build(folder: Path = HERE) -> str | None:
    """Compile into `folder`; None where it is done, else why it was not."""
    if sys.platform == "win32":
        return "bidsim's compiled loops are not built on Windows"
    given = shlex.split(os.environ.get("CC", ""))
    compiler = given or next(([c] for c in ("cc", "gcc", "clang") if shutil.which(c)), [])
    if not compiler:
        return "no C compiler was found (CC, cc, gcc, clang)"
    flags = [f for f in FLAGS if sys.platform != "darwin" or not f.startswith("-Wl")]
    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / NAME
        command = [*compiler, *flags, "-o", str(made), "kernels.c", "-lm"]
        try:
            done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{compiler[0]} could not be started: {error}"
        if done.returncode:
            return f"{compiler[0]} failed: {done.stderr.strip()[:500]}"
        replace_file(made, folder / NAME)
    return None


def replace_file(source: Path, target: Path) -> None:
    """A library that runs at this moment keeps its own file."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def platform_tag() -> str:
    """The wheel's platform, as pip names it."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass
else:

    class KernelsHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
        """Adds the library to the wheel, which is then for this platform only."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            self._made = Path(tempfile.mkdtemp())
            why = build(self._made)
            if why is not None:
                self.app.display_warning(f"bidsim is installed without its compiled loops: {why}")
                return
            made = self._made / NAME
            # Beside its source too, for the tests of a checkout; one that can't be written is installed all the same.
            with suppress(OSError):
                replace_file(made, HERE / NAME)
            if version == "editable":
                return
            build_data["force_include"][str(made)] = f"bidsim/kernels/{NAME}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            shutil.rmtree(self._made, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(build())
