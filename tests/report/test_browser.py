"""The page in a browser: nothing refused, nothing run, nothing fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from fixtures import make_result

from bidsim.report import render_report
from bidsim.report.lookup import Lookup
from bidsim.report.segments import segment_tables

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
    assert done.stdout.count('<div class="browse">') == 4


def test_tables_by_segment_are_sorted_filtered_and_shown_in_pages(tmp_path: Path) -> None:
    result = make_result(campaigns=120, candidates=1)
    steps = """<script>{
      const table = document.querySelector("table[data-rows='0-0']");
      const bar = document.querySelector(".browse");
      const [back, on] = bar.querySelectorAll("button");
      const least = bar.querySelector("input");
      const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join("\\n");
      const note = (what) => {
        const said = document.createElement("pre");
        said.textContent = ["@@" + what, table.tBodies[0].rows.length, bar.querySelector("span").textContent, names()].join("@@");
        document.body.append(said);
      };
      note("first");
      on.click(), on.click(); note("last");
      const change = table.tHead.rows[1].cells[2];
      change.querySelector("button").click(); note(change.getAttribute("aria-sort"));
      change.querySelector("button").click(); note(change.getAttribute("aria-sort"));
      least.value = "LEAST"; least.dispatchEvent(new Event("input")); note("least");
      window.dispatchEvent(new Event("beforeprint")); note("paper");
    }</script>"""
    lookup = Lookup(result)
    (table,) = segment_tables(lookup, browsed=True)["campaign"]
    results = sorted(row.results for row in table.rows)
    page = render_report(result, interactive=True)
    # The page's own policy lets no other script run.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    page += steps.replace("LEAST", str(results[-10]))
    file = tmp_path / "report.html"
    file.write_text(page, "utf-8")
    flags = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [*flags, "--virtual-time-budget=30000", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    notes = {
        what: (int(rows), said, names.split("\n"))
        for what, rows, said, names in re.findall(r"<pre>@@(\w+)@@(\d+)@@(.*?)@@(.*?)</pre>", done.stdout, re.S)
    }
    shown = [f"{row.name}{row.ident}" for row in table.rows]
    assert [len(shown), notes["first"][:2], notes["last"][:2]] == [
        120,
        (50, "1 to 50 of 120"),
        (20, "101 to 120 of 120"),
    ]
    tail = [unescape(name) for name in notes["last"][2]]
    assert tail == shown[100:]
    changes = {f"{row.name}{row.ident}": row.numbers[2] for row in table.rows}
    for way, sign in (("descending", -1), ("ascending", 1)):
        rows, said, names = notes[way]
        found = [sign * (changes[unescape(name)] or 0) for name in names]
        assert (rows, found) == (50, sorted(found))
        assert found[0] == min(sign * (n or 0) for n in changes.values())
        assert said == "1 to 50 of 120. The largest changes are mostly the noisiest."
    assert notes["least"][0] == 10
    assert notes["least"][1].startswith("1 to 10 of 10, 110 left out.")
    assert notes["paper"][0] == 120
