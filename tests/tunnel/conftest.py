"""A clock that tests move, and the loops that they run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.clock import Clock
from tests.fakes.waiting import settled

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The server's sockets and TLS are tried on both loops; the rest does not touch them."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.parent.name == "server":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    assert clock.deadlines.now == clock.now  # made here, where a loop runs
    yield clock
    clock.stop()
    await settled()
