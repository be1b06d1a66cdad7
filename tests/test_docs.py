"""The documentation names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import harp
from harp.net.targets import Tcp
from harp.net.tls import MOVES as TLS
from harp.policy.claims import MOVES as CLAIM
from harp.settings import OBSOLETE, examine
from harp.snippets import PROXIES, ProxySite, filled
from harp.tunnel.client import frpc_config
from harp.tunnel.client.frpc_toml import written
from harp.tunnel.stream import USES
from harp.wire.frp_login import CONNECTION, FIRST_MESSAGE
from harp.wire.member import MOVES as LINK_STREAM
from harp.wire.mux import SESSION, STREAM
from harp.wire.requester import MOVES as REQUESTER
from harp.wire.server_connection import MOVES as SERVER
from tests.drawings import state_diagram

TABLES = [SERVER, CONNECTION, FIRST_MESSAGE, CLAIM, REQUESTER, TLS, SESSION, STREAM, USES, LINK_STREAM]
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "exapp").rglob("*.md")])


def test_every_variable_is_documented_and_no_other() -> None:
    text = (DOCS / "configuration.md").read_text()
    documented = set(re.findall(r"\b(?:HP_|NC_|OTEL_)[A-Z0-9_]+\b(?!\*)", text)) - set(OBSOLETE)
    documented = {name for name in documented if not name.endswith("_")}
    assert documented == {value.name for value in examine({}).values}


def test_every_default_is_documented_as_it_is() -> None:
    """Those that are values: what is in words there, such as "the shared key", the page may say in others."""
    rows = re.findall(r"^\| (`[A-Z0-9_`, ]+`) \| ([^|]+) \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    for value in examine({}).values:
        if value.text not in ("", "none") and " " not in value.text:
            assert value.text in re.split(r", |[` ]", documented[value.name]), value.name


def test_the_pages_that_are_made_from_the_code_are_what_it_says() -> None:
    run = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    assert subprocess.run(run, capture_output=True, text=True, timeout=60, check=False).stdout == ""


def test_the_site_has_every_page_in_its_navigation() -> None:
    """That no link of it leads nowhere is checked by `make docs`, in `make check`."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.MULTILINE | re.DOTALL)
    entries = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    listed = {page.resolve() for entry in entries for page in DOCS.glob(f"{entry}.md")}
    assert listed == {page.resolve() for page in PAGES if page.parent != ROOT / "exapp" / "sample"} - {
        DOCS / "index.md"
    }


@pytest.mark.parametrize("kind", PROXIES)
def test_the_reverse_proxies_snippets_are_those_of_harp_setup(kind: str) -> None:
    text = (DOCS / "reverse-proxies.md").read_text()
    for file in PROXIES[kind].files:
        assert f"\n{filled(file, ProxySite())}```\n" in text, file


def test_every_part_of_the_program_has_its_line_in_the_architecture() -> None:
    text = (DOCS / "architecture.md").read_text()
    for part in Path(harp.__file__).parent.glob("[!_]*"):
        if part.is_dir():
            assert f"| `{part.name}/` |" in text
        elif part.suffix == ".py":
            assert f"`{part.name}`" in text


def words_of_headings(page: Path) -> set[str]:
    """Return the anchors that hosting platforms make of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in words_of_headings(target), f"{path}#{anchor}"


@pytest.mark.parametrize(
    "page", [ROOT / "CONTRIBUTING.md", *(DOCS / "decisions").glob("*.md")], ids=lambda page: page.name
)
def test_what_contributors_are_sent_to_is_there(page: Path) -> None:
    """Files and folders from the root of the repository, or from that of the program."""
    named = set(re.findall(r"`((?!\.cache/)\.?[a-z_]+/[\w./-]*|\w+\.py)`", page.read_text()))  # what is built, is not
    missing = {path for path in named if not any((start / path).exists() for start in (ROOT, ROOT / "src/harp"))}
    assert missing == set()


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\((\d{4}-[\w-]+\.md)\)", (DOCS / "decisions" / "README.md").read_text()))
    assert listed == {page.name for page in (DOCS / "decisions").glob("0*.md")}


def test_every_page_can_be_reached_from_the_first() -> None:
    linked = set(re.findall(r"\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    for page in list(linked):
        linked |= set(re.findall(r"\(([\w-]+\.md)[#)]", (DOCS / page).read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked  # that one is the site's own first page


@pytest.mark.parametrize("table", TABLES)
def test_life_cycles_are_drawn_as_their_tables_are(table: Mapping[Any, Mapping[Any, Any]]) -> None:
    assert f"```mermaid\n{state_diagram(table)}\n```" in (DOCS / "architecture.md").read_text()


def test_every_promise_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "promises.md").read_text()))
    assert len(named) > 50
    for file, test in named:
        text = (ROOT / file).read_text()
        assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_the_frpc_toml_for_authors_is_what_our_own_client_would_write() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", (DOCS / "exapps.md").read_text(), re.MULTILINE | re.DOTALL)
    config = frpc_config.parse(text, {})
    assert written(config) == text
    (proxy,) = config.proxies
    assert (proxy.name, proxy.remote_port, proxy.target) == ("myapp", 23042, Tcp("127.0.0.1", 9000))
