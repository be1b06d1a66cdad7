"""The code blocks of the documentation, and how each of them is run.

A block without a mark is run as it is by tests/live/test_docs_blocks.py. Before any other there is a comment:
`<!-- run by tests/live/test_x.py -->`, or `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
# What administrators, authors and operators read, in the order in which they would type it.
PAGES = (
    "README.md",
    "docs/install.md",
    "docs/engines.md",
    "docs/maintenance.md",
    "docs/reverse-proxies.md",
    "docs/kubernetes-install.md",
    "docs/kubernetes.md",
    "docs/operating.md",
    "docs/configuration.md",
    "docs/instances.md",
    "docs/scaling.md",
    "docs/differences.md",
    "docs/troubleshooting.md",
    "docs/first-exapp.md",
    "docs/exapps.md",
    "exapp/README.md",
)
MARK = re.compile(r"<!-- (run by|not run:) (.+?) -->\s*")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """One fenced block. `text` is what a reader would copy."""

    page: str
    line: int
    language: str
    text: str
    runner: str = ""  # the test that runs it; "" = tests/live/test_docs_blocks.py
    excuse: str = ""  # why nothing runs it

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[CodeBlock]:
    """Return the blocks of a page, in order. A picture or an output (`text`, `mermaid`) is not one."""
    found, mark = [], None
    for token in MarkdownIt().parse((ROOT / page).read_text("utf-8")):
        if token.type == "html_block":
            mark = MARK.fullmatch(token.content)
        elif token.type == "fence" and token.map is not None:
            if token.info not in ("text", "mermaid"):
                kind, words = (mark[1], mark[2]) if mark else ("", "")
                runner, excuse = (words, "") if kind == "run by" else ("", words)
                found.append(CodeBlock(page, token.map[0] + 1, token.info, token.content, runner, excuse))
            mark = None
    return found


def all_blocks() -> list[CodeBlock]:
    """Return the blocks of every page."""
    return [block for page in PAGES for block in blocks(page)]


def left(page: str, language: str = "sh") -> list[CodeBlock]:
    """Return those of a page that tests/live/test_docs_blocks.py has to run."""
    return [block for block in blocks(page) if block.language == language and not block.runner and not block.excuse]
