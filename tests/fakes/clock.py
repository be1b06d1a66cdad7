"""A clock that moves when it is told to."""

from __future__ import annotations


class Clock:
    """Seconds, starting at 1000."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds
