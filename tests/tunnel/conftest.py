"""A clock that tests move, and the loops that they run on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.clock import Clock
from tests.fakes.waiting import LOOPS, HastyLoop, LoopFactory, settled


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The server's sockets and TLS are tried on both loops; the rest does not touch them."""
    names = LOOPS if item.path.parent.name == "server" else ("asyncio",)
    hasty = {"asyncio": HastyLoop} if item.get_closest_marker("hasty") else {}
    return {name: LOOPS[name] for name in names} | hasty


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    assert clock.deadlines.now == clock.now  # made here, where a loop runs
    yield clock
    clock.stop()
    await settled()
