"""A Spark session for one replay: opened as the scenario and the command line say, or the one that runs already.

A scenario may be a stranger's: it may choose among settings that change speed and nothing else. Whatever loads code or
reads other places (jars, packages, Java options, Python executables, catalogs) comes from the command line or from
Spark's own files (SPARK_CONF_DIR), which belong to whoever runs bidsim.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bidsim.errors import BidsimError
from bidsim.interrupts import held
from bidsim.scratch import PREFIX, lock

# What a scenario may set, by beginning.
HARMLESS = (
    "spark.sql.shuffle.partitions",
    "spark.sql.adaptive.",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.files.openCostInBytes",
    "spark.sql.autoBroadcastJoinThreshold",
    "spark.sql.broadcastTimeout",
    "spark.sql.execution.arrow.maxRecordsPerBatch",
    "spark.executor.memory",
    "spark.executor.memoryOverhead",
    "spark.executor.cores",
    "spark.executor.instances",
    "spark.driver.memory",
    "spark.driver.maxResultSize",
    "spark.dynamicAllocation.",
    "spark.memory.",
    "spark.default.parallelism",
    "spark.cores.max",
    "spark.task.",
    "spark.speculation",
    "spark.ui.enabled",
)

# What the answers depend on; nobody may change it.
FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.parser.escapedStringLiterals": "false",
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    # Each step is a view over the one before: a condition pushed through them all would be written out with every
    # expression below it, thousands of times, and take minutes to compile.
    "spark.sql.optimizer.excludedRules": ",".join(
        f"org.apache.spark.sql.catalyst.optimizer.{rule}"
        for rule in ("PushDownPredicates", "InferFiltersFromConstraints")
    ),
}
DEFAULTS = {
    "spark.app.name": "bidsim",
    "spark.ui.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


def refused_settings(config: Mapping[str, str]) -> list[str]:
    """Settings that a scenario may not make."""
    return [name for name in config if not any(name == h or (h.endswith(".") and name.startswith(h)) for h in HARMLESS)]


def open_session(
    *, remote: str | None, master: str | None, config: Mapping[str, str], threads: int, memory_bytes: int
) -> tuple[Any, bool]:
    """(session, whether it was opened here). Raises BidsimError where pyspark or Java is missing, or nobody answers."""
    try:
        import pyspark  # noqa: F401
        from pyspark.sql import SparkSession
    except ImportError:
        raise BidsimError("engine spark needs PySpark 4; install it with: pip install 'bidsim[spark]'") from None
    fixed = [name for name in config if name in FIXED]
    if fixed:
        raise BidsimError(f"{fixed[0]} is {FIXED[fixed[0]]} for bidsim, since results depend on it; leave it out")
    running = SparkSession.getActiveSession()
    if running is None and remote is None:
        _need_java(master)
    builder = SparkSession.builder
    if running is None:
        # Python workers must be this interpreter, which has bidsim's libraries; on a cluster its own is meant.
        local = master is None or master.startswith("local")
        if local and remote is None:
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
            builder = builder.config("spark.driver.memory", f"{max(1024, memory_bytes // 2**20)}m")
            builder = builder.config("spark.executorEnv.PYTHONPATH", str(_root()))
            builder = builder.config("spark.sql.shuffle.partitions", str(max(4, 2 * threads)))
        for name, value in {**DEFAULTS, **config}.items():
            builder = builder.config(name, value)
        builder = builder.remote(remote) if remote else builder.master(master or f"local[{threads}]")
    try:
        session = running or builder.getOrCreate()
        for name, value in FIXED.items():
            session.conf.set(name, value)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise BidsimError(f"no Spark session at {remote or master or 'this machine'}: {said}") from error
    return session, running is None


def _need_java(master: str | None) -> None:
    home = os.environ.get("JAVA_HOME")
    if (home and os.access(Path(home) / "bin" / "java", os.X_OK)) or shutil.which("java"):
        return
    raise BidsimError(
        "engine spark needs Java 17 or later on this machine (Debian: apt-get install openjdk-17-jre-headless), or "
        "spark.remote, the address of a Spark Connect server"
    )


def _root() -> Path:
    """Where the package lies."""
    return Path(__file__).resolve().parents[3]


def ship_package(session: Any) -> None:
    """Give bidsim itself to the session's Python workers: pure Python, as an archive named by its content."""
    if session.conf.get("spark.executorEnv.PYTHONPATH", "") == str(_root()):
        return  # workers on this machine, which import it from where it lies
    root = _root() / "bidsim"
    files = sorted(root.rglob("*.py"))
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    ship_file(session, f"bidsim-{content}.zip", lambda target: _archive(root, files, target), python=True)


def _archive(root: Path, files: list[Path], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for file in files:
            out.write(file, file.relative_to(root.parent).as_posix())


# By session, what it has already; the copies lie in a folder that is gone when this process ends.
_shipped: dict[int, set[str]] = {}
_folder: list[Path] = []


def ship_file(session: Any, name: str, write: Callable[[Path], object], *, python: bool = False) -> None:
    """Give a file to the session's workers under a name that says its content, once."""
    known = _shipped.setdefault(id(session), set())
    if name in known:
        return
    if not _folder:
        with held():
            _folder.append(Path(tempfile.mkdtemp(prefix=f"{PREFIX}spark-")))
            lock(_folder[0])
            atexit.register(shutil.rmtree, _folder[0], ignore_errors=True)
    target = _folder[0] / name
    if not target.exists():
        write(target)
    session.addArtifacts(str(target), pyfile=python, file=not python)
    known.add(name)
