"""A clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from harp.net.deadlines import Deadlines

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Clock:
    """Seconds; `move` lets time pass and expires what is due. `transports` are aborted when the test is over."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.transports: list[asyncio.Transport] = []
        self.deadlines = Deadlines(clock=lambda: self.now)

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.tick()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The server's sockets and TLS are tried on both loops; the rest does not touch them."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.parent.name == "server":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    yield clock
    clock.deadlines.close()
    for transport in clock.transports:
        transport.abort()
    await asyncio.sleep(0)
