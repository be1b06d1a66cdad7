"""Every code block that administrators, authors and operators may copy is run by some test, or says why it is not."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import yaml

from tests.blocks import PAGES, ROOT, CodeBlock, all_blocks

BLOCKS = all_blocks()
RUN = {"sh", "python", "php", "toml", "yaml"}  # what tests/live/test_docs_blocks.py can run
EXCUSED = 1  # a block that nothing runs, with its reason


def test_every_page_for_those_readers_is_looked_at() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (ROOT / "docs/index.md").read_text(), re.MULTILINE | re.DOTALL)
    readers = [tree for tree in trees if re.search(r":caption: For (administrators|authors|operators)", tree)]
    entries = [line for tree in readers for line in tree.splitlines() if line and not line.startswith(":")]
    pages = {(ROOT / "docs" / f"{entry}.md").resolve().relative_to(ROOT).as_posix() for entry in entries}
    with_blocks = {page for page in pages if re.search(r"^ *```\w(?!ext$)", (ROOT / page).read_text(), re.MULTILINE)}
    assert with_blocks <= set(PAGES)


def test_every_block_has_a_language() -> None:
    assert [str(block) for block in BLOCKS if not block.language] == []


def test_every_block_is_run_or_says_why_it_is_not() -> None:
    assert [str(block) for block in BLOCKS if not (block.runner or block.excuse) and block.language not in RUN] == []


def test_few_blocks_are_excused() -> None:
    assert len([str(block) for block in BLOCKS if block.excuse]) <= EXCUSED


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.runner], ids=str)
def test_a_test_that_runs_a_block_exists(block: CodeBlock) -> None:
    file, _, test = block.runner.partition("::")
    text = (ROOT / file).read_text("utf-8")
    assert not test or f"def {test}(" in text


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("json", "toml", "yaml")], ids=str)
def test_data_can_be_parsed(block: CodeBlock) -> None:
    if block.language == "yaml":
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(block.text))
    else:
        {"json": json.loads, "toml": tomllib.loads}[block.language](block.text)
