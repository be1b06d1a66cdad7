"""The figures in the documentation: a table between two marks of docs/performance.md, the picture, and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.picture import draw
from benchmarks.report import Result, markdown, write

DOCS = Path(__file__).parents[1] / "docs"
MARKED = re.compile(r"(<!-- figures: made by `make publish-bench` -->\n).*(<!-- end of figures -->)", re.DOTALL)


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


def _section(results: Sequence[Result], content: dict[str, object]) -> str:
    peers = content["peers"]
    assert isinstance(peers, dict)
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    where = f"{content['measured']}, {content['rounds']} rounds of {content['seconds']} s; {versions}."
    return f"Measured {where}\n\n{markdown(results)}"
