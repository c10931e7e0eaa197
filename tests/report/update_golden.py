"""Write the golden files anew, after a wanted change of the summary or of JUnit; read the diff before committing."""

from __future__ import annotations

from pathlib import Path

from fixtures import make_result

from bidsim.report import render_junit, render_summary

if __name__ == "__main__":
    golden = Path(__file__).parent / "golden"
    golden.mkdir(exist_ok=True)
    golden.joinpath("summary.md").write_text(render_summary(make_result()), "utf-8", newline="\n")
    golden.joinpath("junit.xml").write_text(render_junit(make_result()), "utf-8", newline="\n")
