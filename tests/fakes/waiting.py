"""Waiting in tests: for a condition, or until nothing more happens by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LONGEST_CHAIN = 20  # turns of the loop; no chain of callbacks and tasks of ours, each waking the next, takes more


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Let the loop work until `condition` holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Let all that is ready run, and all that it makes ready. For what must *not* happen; `until` is for the rest."""
    for _ in range(LONGEST_CHAIN):
        await asyncio.sleep(0)
