"""docs/troubleshooting.md has a heading for each error text of the program that administrators see, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import harp
from tests.error_texts import error_texts

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.+)`$", PAGE.read_text("utf-8"), re.MULTILINE)
OF_THE_SYSTEM = {"Permission denied"}


def bare(text: str) -> str:
    """Return a text without what varies at its ends, which a heading need not show."""
    return text.strip("… ;:,")


def test_every_error_text_has_its_heading() -> None:
    """Where one has none, write what to do about it; here is the module that has it."""
    headings = {bare(heading) for heading in HEADINGS}
    assert {text: module for text, module in error_texts().items() if bare(text) not in headings} == {}


def test_there_are_as_many_texts_as_there_seem() -> None:
    """Should the collector once find nothing, all else here would pass."""
    assert len(error_texts()) > 120
    for text in ("no Host header", "tunnel lost", "the path arrives unchanged", "… header lines, limit …"):
        assert text in error_texts()


def test_no_heading_is_there_twice() -> None:
    assert sorted(set(HEADINGS)) == sorted(HEADINGS)


def test_the_headings_are_texts_that_the_program_has() -> None:
    sources = "".join(path.read_text("utf-8") for path in Path(harp.__file__).parent.rglob("*.py"))
    known = {bare(text) for text in error_texts()}
    for heading in HEADINGS:
        parts = [part.strip() for part in heading.split("…")]
        assert bare(heading) in known | OF_THE_SYSTEM or all(part in sources for part in parts), heading


def test_every_heading_is_followed_by_what_to_do() -> None:
    """Headings without a text share that of the next one."""
    text = re.sub(r"^### `.+`\n\n(?=### )", "", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert re.findall(r"^### `.+`\n\n(?=#)", text, re.MULTILINE) == []
