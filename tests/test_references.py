"""Whoever reads `A 4.6` in a comment finds that section in docs/protocol, and there the test that checks the rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOCOL = ROOT / "docs" / "protocol"
PAGES = {"A": "appapi.md", "F": "frp.md", "K": "kubernetes.md"}
READ = (".py", ".pyi", ".rs", ".sh", ".md", ".toml", ".yaml", ".yml")  # in which references stand

NUMBER = r"\d{1,2}(?:\.\d{1,2})*"
# "A 6.1", "A 6.3-6.8", "A 4.1 to 4.4", "F 2 and F 6", "A 2.2 step 13", "F 1.4, rule 6", "A 9.1 no. 8"
REFERENCE = re.compile(
    rf"\b([AFK]) ({NUMBER})((?:(?:, |-| to | and ){NUMBER})*)(?:,? (step|rule|no\.) (\d+))?(?![\w.]\w)(?!\w)"
)
DIFFERENCE = re.compile(r"\b[Dd]ifferences? (\d+)\b")
HEADING = re.compile(rf"^(#{{2,4}}) ([AFK]) ({NUMBER}) \S.*$", re.MULTILINE)
ROW = re.compile(rf"^\| ({NUMBER}) \|", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def _sections(letter: str) -> dict[str, str]:
    """Return the text of each section of a page by its number, without that of its sub-sections."""
    text = (PROTOCOL / PAGES[letter]).read_text("utf-8")
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {heading[3]: text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}


SECTIONS = {letter: _sections(letter) for letter in PAGES}
ROWS = {  # "| 10.6 |" in F 10 stands for a section
    letter: {row for number, text in sections.items() for row in ROW.findall(text) if row.startswith(f"{number}.")}
    for letter, sections in SECTIONS.items()
}


def _files() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ("src", "tests", "docs", "core", "exapp", "scripts", "deploy", "benchmarks"):
        yield from (
            path
            for path in (ROOT / folder).rglob("*")
            if path.suffix in READ and path != Path(__file__) and "target" not in path.parts
        )


def _whole(text: str) -> str:
    """Return `text` with references that a line end divides put together."""
    return re.sub(r"\n\s*(?:# |// |\* )?", " ", text)


def test_every_reference_leads_to_a_section_of_the_protocol() -> None:
    lost, found = [], 0
    for path in _files():
        for letter, number, more, kind, row in REFERENCE.findall(_whole(path.read_text("utf-8"))):
            for wanted in (number, *re.findall(NUMBER, more)):
                found += 1
                if wanted not in SECTIONS[letter] and wanted not in ROWS[letter]:
                    lost.append(f"{path.relative_to(ROOT)}: {letter} {wanted}")
            if kind and row not in ROW.findall(SECTIONS[letter].get(number, "")):
                lost.append(f"{path.relative_to(ROOT)}: {letter} {number} {kind} {row}")
    assert not lost
    assert found > 200


def test_every_difference_that_is_referred_to_has_its_row() -> None:
    rows = ROW.findall((ROOT / "docs" / "differences.md").read_text("utf-8"))
    assert rows == [str(number) for number in range(1, len(rows) + 1)]
    for path in _files():
        for number in DIFFERENCE.findall(_whole(path.read_text("utf-8"))):
            assert number in rows, f"{path.relative_to(ROOT)}: difference {number}"


@pytest.mark.parametrize("letter", PAGES)
def test_sections_are_numbered_in_order_and_once_under_their_letter(letter: str) -> None:
    headings = HEADING.findall((PROTOCOL / PAGES[letter]).read_text("utf-8"))
    numbers = [tuple(map(int, number.split("."))) for _, _, number in headings]
    assert {found for _, found, _ in headings} == {letter}
    assert numbers == sorted(set(numbers))
    assert all(len(hashes) == len(number) + 1 for (hashes, _, _), number in zip(headings, numbers, strict=True))
    assert all(line.split()[1] == letter for line in _headings(letter)), "a heading without a number"


def _headings(letter: str) -> list[str]:
    return re.findall(r"^##+ .*$", (PROTOCOL / PAGES[letter]).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("letter", PAGES)
def test_every_rule_names_tests_that_exist(letter: str) -> None:
    named = set(TEST.findall((PROTOCOL / PAGES[letter]).read_text("utf-8")))
    assert len(named) > 50
    for file, test in named:
        text = (ROOT / file).read_text("utf-8")
        assert not test or f"def {test}(" in text, f"{file}::{test}"


@pytest.mark.parametrize("letter", PAGES)
def test_every_row_of_a_table_of_rules_names_a_test(letter: str) -> None:
    for number, text in SECTIONS[letter].items():
        for table in re.findall(r"^\|.*tested by.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE):
            for row in table.splitlines():
                assert TEST.search(row), f"{letter} {number}: {row}"


@pytest.mark.parametrize("letter", PAGES)
def test_every_section_names_a_test_unless_its_sub_sections_do(letter: str) -> None:
    sections = SECTIONS[letter]
    for number, text in sections.items():
        inner = any(other.startswith(f"{number}.") for other in sections)
        assert inner or TEST.search(text), f"{letter} {number}"


def test_the_architecture_leads_to_every_page_of_the_protocol() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert {page.name for page in PROTOCOL.glob("*.md")} == set(PAGES.values())
    for page in PAGES.values():
        assert f"(protocol/{page})" in text
