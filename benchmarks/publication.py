"""The figures in the documentation: a table between two marks of docs/performance.md, the picture, and JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.picture import draw
from benchmarks.report import Result, markdown, write

DOCS = Path(__file__).parents[1] / "docs"
MEMORY = {"KiB", "MB"}  # units of rows that have a table of their own
MARKED = re.compile(
    r"(<!-- figures: written by `make bench ARGS=--publish` -->\n).*(<!-- end of figures -->)", re.DOTALL
)


def publish(results: Sequence[Result], content: dict[str, object]) -> None:
    """Replace what docs/ tells about an earlier run."""
    page = DOCS / "performance.md"
    page.write_text(replaced(page.read_text(), _section(results, content)))
    (DOCS / "performance.svg").write_text(draw(results))
    write(DOCS / "performance.json", content)


def replaced(page: str, section: str) -> str:
    """The page with another section between its marks. Raises ValueError when there are none."""
    text, count = MARKED.subn(lambda marks: f"{marks[1]}\n{section}\n\n{marks[2]}", page)
    if count != 1:
        raise ValueError("docs/performance.md has lost the marks around its figures")
    return text


def _section(results: Sequence[Result], content: Mapping[str, object]) -> str:
    peers = content["peers"]
    assert isinstance(peers, dict)
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    memory = [result for result in results if result.row.unit in MEMORY]
    others = [result for result in results if result.row.unit not in MEMORY]
    return f"""Measured {content["measured"]}; turns: {content["rounds"]} of {content["seconds"]} s; {versions}.

![Goals, and what was reached](performance.svg)

{markdown(others)}

Memory (resident; KiB are 1,024 bytes, MB are 1,000,000):

{markdown(memory)}"""
