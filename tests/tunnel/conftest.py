"""A clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harp.net.deadlines import Deadlines


class Clock:
    """Seconds; `move` lets time pass and expires what is due."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.deadlines = Deadlines(clock=lambda: self.now)

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.tick()


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    yield clock
    clock.deadlines.close()
