"""The environment of processes that tests start."""

from __future__ import annotations

import os

KEPT = ("PATH", "PYTHONPATH")  # the second one decides about the compiled part: HARP_CORE in scripts/test


def bare(**variables: str) -> dict[str, str]:
    """Return an environment with nothing but where programs are, and how scripts/coverage counts what they run."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("COVERAGE_")}
    return kept | variables
