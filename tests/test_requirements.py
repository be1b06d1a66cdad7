"""The versions that `make setup` installs are there for every Python that the project supports, the oldest included."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


def test_locked_versions_are_for_the_oldest_python() -> None:
    """Debian 12 has 3.11.2: there, pip finds nothing that asks for 3.11.5, and `make setup` ends."""
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    required = {found.name: found.metadata["Requires-Python"] or "" for found in distributions()}
    assert len(locked & required.keys()) > 50
    too_new = {
        name: versions for name, versions in required.items() if name in locked and oldest not in SpecifierSet(versions)
    }
    assert not too_new, "pin older ones in requirements.lock"
