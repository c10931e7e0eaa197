"""The page in a browser: nothing refused, nothing run, nothing fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fixtures import make_result

from bidsim.report import render_report

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--hide-scrollbars"),
]


def browse(tmp_path: Path, *more: str, interactive: bool = False) -> subprocess.CompletedProcess[str]:
    page = tmp_path / "report.html"
    result = make_result(campaigns=12, intervals=interactive)
    page.write_text(render_report(result, interactive=interactive), "utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_the_page_opens_without_a_message_on_the_console(tmp_path: Path) -> None:
    done = browse(tmp_path, "--dump-dom")
    assert not re.findall(r".*CONSOLE.*", done.stderr)
    assert "Content Security Policy" not in done.stderr
    assert "<script" not in done.stdout
    # The style sheet was let through: its hash is right.
    assert done.stdout.count("<svg") > 7


@pytest.mark.parametrize("scheme", ["0", "1"], ids=["dark", "light"])
def test_both_schemes_draw(tmp_path: Path, scheme: str) -> None:
    picture = tmp_path / "page.png"
    done = browse(
        tmp_path, f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,800", f"--screenshot={picture}"
    )
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 20_000


def test_it_prints(tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes().startswith(b"%PDF")


def test_the_interactive_page_draws_every_chart_and_shows_names_as_text(tmp_path: Path) -> None:
    """Its policy lets two scripts run, by their hashes; nothing else runs, and nothing is fetched or refused."""
    done = browse(tmp_path, "--dump-dom", "--virtual-time-budget=30000", interactive=True)
    assert not re.findall(r".*CONSOLE.*", done.stderr)
    figures = re.findall(r'<figure data-chart="([^"]+)"( class="is-live")?', done.stdout)
    assert len(figures) == 7
    assert all(live for _, live in figures)
    live = done.stdout[done.stdout.index('data-chart="campaigns"') :]
    labels = live[: live.index("</figure>")]
    # The label of a hostile name is its text, in the chart as in the picture before it.
    assert "&lt;script&gt;alert(" in labels
    assert "春のセール" in labels
    assert not re.search(r">[pr]\d+<", labels)
    assert 'role="img"' in labels
