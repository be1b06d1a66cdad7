"""Requests per second of several processes, from counts that become known now and then."""

from __future__ import annotations

SHORTEST = 0.9  # seconds between two counts that make a rate


class Rates:
    """Remembers, of each process, the last count and what it came to per second."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}  # by process: when, and how many requests there were
        self._rates: dict[str, float] = {}

    def take(self, name: str, requests: int, now: float) -> None:
        """Take a count. One that is smaller than before is that of a new process."""
        when, before = self._counts.get(name, (now, requests))
        if now - when >= SHORTEST:
            self._rates[name] = max(requests - before, 0) / (now - when)
        elif name in self._counts:
            return
        self._counts[name] = (now, requests)

    def of(self, name: str) -> float:
        """Return how many there were per second between the last two counts; 0 before."""
        return self._rates.get(name, 0.0)

    def forget(self, name: str) -> None:
        """This process is no more."""
        self._counts.pop(name, None)
        self._rates.pop(name, None)
