"""How much a property is tried."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

Test = TypeVar("Test", bound=Callable[..., Any])

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "ci"  # as in .ci/run: minutes instead of seconds
EXAMPLES = 10_000 if THOROUGH else 100
PATIENCE = 1200 if THOROUGH else 60  # seconds, on a machine that does other things as well


def core(test: Test) -> Test:
    """Mark a property of a core, which CI tries with 10,000 examples."""
    thorough = settings(max_examples=EXAMPLES, deadline=None)(test)
    marked: Test = pytest.mark.core(pytest.mark.timeout(PATIENCE)(thorough))
    return marked
