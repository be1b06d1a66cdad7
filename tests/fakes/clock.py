"""A clock that moves when it is told to."""

from __future__ import annotations

import asyncio
from functools import cached_property

from harp.net.deadlines import Deadlines


class Clock:
    """Seconds, starting at 1000. What was made with its `deadlines` expires as time passes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.transports: list[asyncio.Transport] = []  # aborted by `stop`

    def __call__(self) -> float:
        return self.now

    @cached_property
    def deadlines(self) -> Deadlines:
        return Deadlines(clock=self)

    def move(self, seconds: float) -> None:
        """Let time pass, and let expire what is due."""
        self.now += seconds
        if "deadlines" in vars(self):
            self.deadlines.tick()

    def stop(self) -> None:
        """The test is over."""
        if "deadlines" in vars(self):
            self.deadlines.close()
        for transport in self.transports:
            transport.abort()
