"""Libraries of the status page that are copies: unchanged, and none without its origin."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import harp

STATIC = Path(harp.__file__).parent / "status/web/static"
OUR_OWN = {"harp.css", "harp.js", "icon.svg"}


def test_copies_of_libraries_are_as_they_were_published() -> None:
    lines = re.findall(
        r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (STATIC / "VENDORED.md").read_text("utf-8"), re.MULTILINE
    )
    listed = dict(lines)
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in STATIC.iterdir() if path.suffix != ".md"}
    assert {name: digest for name, digest in found.items() if name not in OUR_OWN} == listed
