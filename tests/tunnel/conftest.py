"""A clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from harp.net.deadlines import Deadlines


class Clock:
    """Seconds; `move` lets time pass and expires what is due. `transports` are aborted when the test is over."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.transports: list[asyncio.Transport] = []
        self.deadlines = Deadlines(clock=lambda: self.now)

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.tick()


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    yield clock
    clock.deadlines.close()
    for transport in clock.transports:
        transport.abort()
    await asyncio.sleep(0)
