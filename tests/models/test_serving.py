"""Libraries score in child processes: the same predictions, one message where a child dies, and no child left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bidsim.errors import ModelError
from bidsim.models import Bundle, sandbox, serving
from bidsim.models.feature_file import FeatureFile
from bidsim.models.libraries import lightgbm_models
from bidsim.models.packing import pack_models
from bidsim.models.sandbox import Limits
from bidsim.models.scorer import end
from bidsim.models.serving import ServedScorer
from tests.models.library_models import BATCH, FORMATS, FRAME, LABEL, lightgbm_text, opened

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="elsewhere libraries score in bidsim's own process")
pytestmark = posix


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a LightGBM model as ctr and another as cvr."""
    folder = tmp_path_factory.mktemp("serving")
    lightgbm_text(folder / "ctr.txt")
    lightgbm_text(folder / "cvr.txt")
    models: dict[Any, Path] = {"ctr": folder / "ctr.txt", "cvr": folder / "cvr.txt"}
    return pack_models(models, FeatureFile(), out=folder / "m.bin").write(folder / "m.bin")


def children(scorer: Any) -> list[int]:
    assert isinstance(scorer, ServedScorer)
    return [server._child._process.pid for server in scorer._children]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if sys.platform == "linux":
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    """Whether a process is gone within a while."""
    for _ in range(300):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", FORMATS)
def test_a_child_predicts_what_this_process_would(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PIECE_ROWS", 100)
    path = tmp_path / FORMATS[name][0]
    FORMATS[name][1](path)
    bundle = opened(name, path)
    scorer = bundle.scorer()
    own = bundle.load().score(BATCH)["ctr"]
    with ThreadPoolExecutor(3) as pool:
        for scores in pool.map(lambda _: scorer.score(BATCH), range(4)):
            np.testing.assert_array_equal(scores["ctr"], own)


def test_lightgbm_scores_many_trees_in_parts_the_same_from_several_threads(tmp_path: Path) -> None:
    import lightgbm

    for name, more in (("gbdt", {"sigmoid": 1.3}), ("rf", {"bagging_freq": 1, "bagging_fraction": 0.6})):
        data = lightgbm.Dataset(FRAME[["x", "ad_id"]], LABEL, free_raw_data=False)
        parameters = {"objective": "binary", "boosting": name, "num_threads": 1, "verbose": -1, **more}
        model = lightgbm.train(parameters, data, 60)
        text = model.model_to_string().encode()
        loaded = lightgbm_models.load(text, None)
        assert (len(loaded._parts) > 1) == (name == "gbdt")
        expected = model.predict(FRAME[["x", "ad_id"]])
        matrix = FRAME[["x", "ad_id"]].to_numpy(dtype=np.float64)
        given: Any = SimpleNamespace(rows=len(FRAME), matrix=lambda matrix=matrix: matrix)
        with ThreadPoolExecutor(4) as pool:
            for scores in pool.map(lambda _, loaded=loaded, given=given: loaded.predict(given), range(40)):
                np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_scikit_learn_scores_in_a_child(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from bidsim.models import pack_sklearn

    frame = FRAME.fillna({"x": 0.0})
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["os", "ad_id"]), remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(frame, LABEL)
    bundle = pack_sklearn(tmp_path / "m.bin", ctr=model, features=list(frame.columns), example=frame)
    batch = pa.RecordBatch.from_pandas(frame, preserve_index=False)
    scorer = bundle.scorer()
    assert children(scorer)
    np.testing.assert_array_equal(scorer.score(batch)["ctr"], bundle.load().score(batch)["ctr"])
    np.testing.assert_allclose(scorer.score(batch)["ctr"], model.predict_proba(frame)[:, 1])


def test_dictionaries_wide_rows_and_many_texts_find_room(two_heads: Bundle) -> None:
    rows = 3000
    texts = [f"{i}-" + "x" * 2000 for i in range(rows)]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(rows)), pa.array(texts).dictionary_encode(), pa.array(range(rows)), pa.array(texts)],
        ["x", "os", "ad_id", "not for the model"],
    )
    scorer, own = two_heads.scorer(), two_heads.load()
    for given in (batch, batch.slice(1000, 7), batch.slice(5, 0), BATCH):
        scores, expected = scorer.score(given), own.score(given)
        for head in ("ctr", "cvr"):
            np.testing.assert_array_equal(scores[head], expected[head])


def test_an_error_of_one_batch_is_told_and_the_next_is_scored(
    two_heads: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PIECE_ROWS", 10)
    scorer = two_heads.scorer()
    bad = pa.RecordBatch.from_pydict({"x": ["a"] * 50, "os": ["ios"] * 50, "ad_id": [1] * 50})
    for _ in range(2):
        with pytest.raises(ModelError, match=r'm\.bin: feature "x" is numeric in the model, but column "x" is string'):
            scorer.score(bad)
        with pytest.raises(ModelError, match=r'needs column "os", of which the log has no'):
            scorer.score(BATCH.select(["x", "ad_id"]))
        np.testing.assert_array_equal(scorer.score(BATCH)["cvr"], two_heads.load().score(BATCH)["cvr"])


def patched(monkeypatch: pytest.MonkeyPatch, action: str) -> Iterator[None]:
    """Children whose heads do something else where a row's x is 666."""
    code = f"""
    import ctypes, os, re, sys, time
    import numpy as np
    from bidsim.models import child
    from bidsim.models.libraries import LibraryModel
    own = LibraryModel.predict
    def predict(self, columns):
        if self._head == "cvr" and (columns.numeric("x") == 666).any():
            {action}
        return own(self, columns)
    LibraryModel.predict = predict
    child.main()
    """
    real = sandbox.subprocess.Popen
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.subprocess, "Popen", lambda _, **rest: real(command, **rest))
        yield


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("os.abort()", r"the model's library crashed \(SIGABRT\) on scoring rows of the log with cvr/model\.txt"),
        ("ctypes.string_at(0)", r"crashed \(SIG(SEGV|BUS)\) on scoring rows of the log with cvr/model\.txt"),
        ("time.sleep(60)", r"took more than 2 s on scoring rows of the log with cvr/model\.txt and was stopped"),
        ("re.match('(a+)+$', 'a' * 60 + 'b')", r"took more than 2 s on scoring .* and was stopped"),
        ("raise MemoryError", r"needs more memory for a batch"),
        ("raise KeyboardInterrupt", r"the model failed \(KeyboardInterrupt"),
    ],
)
def test_a_child_that_dies_or_hangs_on_certain_rows_ends_in_one_message(
    two_heads: Bundle, monkeypatch: pytest.MonkeyPatch, action: str, said: str
) -> None:
    """It names the model's file and the payload, and later batches hear the same at once."""
    for _ in patched(monkeypatch, action):
        scorer = two_heads.scorer(Limits(batch_seconds=2), threads=2)
        (pid,) = children(scorer)
        scorer.score(BATCH)
        batch = pa.RecordBatch.from_pydict({"x": [0.5, 666.0], "os": ["ios", "web"], "ad_id": [101, 102]})
        with pytest.raises(ModelError, match=r"m\.bin: .*" + said):
            scorer.score(batch)
        if "raise" in action:  # it lives on
            scorer.score(BATCH)
            continue
        with ThreadPoolExecutor(3) as pool:
            for future in [pool.submit(scorer.score, BATCH) for _ in range(5)]:
                with pytest.raises(ModelError, match=r"m\.bin"):
                    future.result(timeout=30)
        assert gone(pid)


def test_a_child_that_crashes_on_loading_is_told_with_its_payload(
    two_heads: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
    import os
    from bidsim.models import bundle, child
    own = bundle.Bundle._load_head
    bundle.Bundle._load_head = lambda self, head: os.abort() if head == "cvr" else own(self, head)
    child.main()
    """
    real = sandbox.subprocess.Popen
    command = [sys.executable, "-c", textwrap.dedent(code)]
    monkeypatch.setattr(sandbox.subprocess, "Popen", lambda _, **rest: real(command, **rest))
    with pytest.raises(ModelError, match=r"m\.bin: .*crashed \(SIGABRT\) on loading cvr/model\.txt; "):
        two_heads.scorer()


def test_a_scorer_that_is_no_longer_used_leaves_no_child(two_heads: Bundle) -> None:
    scorer = two_heads.scorer()
    (pid,) = children(scorer)
    assert alive(pid)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    del scorer
    gc.collect()
    assert not alive(pid)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) < before


def test_a_closed_scorer_ends_who_waits_for_it(two_heads: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupt does it: nobody waits for a library that hangs."""
    batch = pa.RecordBatch.from_pydict({"x": [666.0], "os": ["web"], "ad_id": [102]})
    for _ in patched(monkeypatch, "time.sleep(60)"):
        scorer = two_heads.scorer(threads=2)
        (pid,) = children(scorer)
        with ThreadPoolExecutor(6) as pool:  # more than there are channels
            waiting = [pool.submit(scorer.score, batch) for _ in range(6)]
            time.sleep(0.5)
            end(scorer)
            for future in waiting:
                with pytest.raises(ModelError):
                    future.result(timeout=30)
        assert gone(pid)
        with pytest.raises(ModelError, match=r"m\.bin: the model was closed"):
            scorer.score(BATCH)


PARENT = """
import os, sys, threading
from bidsim.models import open_bundle
import pyarrow as pa
{more}
scorer = open_bundle({path!r}).scorer()
print(*(s._child._process.pid for s in scorer._children), flush=True)
batch = pa.RecordBatch.from_pydict({{"x": [{x}], "os": ["ios"], "ad_id": [101]}})
while True:
    scorer.score(batch)
"""
HANGING = """
import subprocess
real = subprocess.Popen
code = \"\"\"
import re
from bidsim.models import child
from bidsim.models.libraries import LibraryModel
own = LibraryModel.predict
LibraryModel.predict = lambda self, columns: (
    re.match('(a+)+$', 'a' * 60 + 'b') if (columns.numeric("x") == 666).any() else own(self, columns)
)
child.main()
\"\"\"
subprocess.Popen = lambda command, **rest: real([sys.executable, "-c", code], **rest)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hanging", [False, True])
def test_children_do_not_outlive_their_parent(two_heads: Bundle, number: int, hanging: bool) -> None:
    """However it ends, even while a library hangs and never gives Python its lock back."""
    script = PARENT.format(path=str(two_heads.path), more=HANGING if hanging else "", x=666 if hanging else 1)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        assert parent.stdout is not None
        (pid,) = map(int, parent.stdout.readline().split())
        assert alive(pid)
        time.sleep(0.3)  # it is scoring, or hangs
        parent.send_signal(number)
        parent.wait(30)
        assert gone(pid)
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()


def test_libraries_that_hold_pythons_lock_get_more_children_while_batches_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(serving, "PIECE_ROWS", 50)
    path = tmp_path / "ctr.vw"
    own = FORMATS["Vowpal Wabbit"][1](path)
    scorer = ServedScorer(opened("Vowpal Wabbit", path), threads=3)
    assert len(children(scorer)) == 1
    deadline = time.monotonic() + 60
    while len(children(scorer)) < 3 and time.monotonic() < deadline:
        with ThreadPoolExecutor(6) as pool:
            for scores in pool.map(lambda _: scorer.score(BATCH), range(12)):
                np.testing.assert_allclose(scores["ctr"], own, rtol=2e-6)
    pids = children(scorer)
    assert len(pids) == 3
    scorer.close()
    assert all(map(gone, pids))


def test_the_child_finds_bidsim_where_its_parent_has_it(two_heads: Bundle, tmp_path: Path) -> None:
    """Also in a script that put it on the path itself, or a notebook in a checkout, and where another one is installed."""
    (tmp_path / "bidsim.py").write_text("raise SystemExit('another bidsim')")
    script = f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n" + PARENT.format(path=str(two_heads.path), more="", x=1)
    script = script.replace("while True:", "if True:")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
