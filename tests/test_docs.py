"""The documentation names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from harp.settings import OBSOLETE, examine

DOCS = Path(__file__).parent.parent / "docs"


def test_every_variable_is_documented_and_no_other() -> None:
    text = (DOCS / "configuration.md").read_text()
    documented = set(re.findall(r"\b(?:HP_|NC_)[A-Z0-9_]+\b(?!\*)", text)) - set(OBSOLETE)
    documented = {name for name in documented if not name.endswith("_")}
    assert documented == {value.name for value in examine({}).values}


def test_the_reverse_proxy_snippets_stand_in_the_text_as_they_are_tested() -> None:
    text = (DOCS / "reverse-proxies.md").read_text()
    for snippet in (DOCS / "snippets").iterdir():
        assert snippet.read_text().strip() in text, snippet.name
