"""The environment of processes that tests start."""

from __future__ import annotations

import os


def bare(**variables: str) -> dict[str, str]:
    """Return an environment with nothing but where programs are, and how scripts/coverage counts what they run."""
    kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE_")}
    return kept | variables
