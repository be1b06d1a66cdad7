"""Tunnels that are lost, and those that come back: the outages of ExApps and engines in the log."""

from __future__ import annotations

from harp.logs import RareWarnings
from harp.net.deadlines import Deadlines


class TunnelNews:
    """Warns of tunnels that end while they hold a port, and of those that hold it again."""

    def __init__(self, warnings: RareWarnings, deadlines: Deadlines) -> None:
        self.lost_count = 0
        self.stopping = False  # HaRP ends its tunnels itself: that is no news
        self._warnings = warnings
        self._deadlines = deadlines
        self._lost: dict[int, float] = {}  # port -> when; there are some thousand ports

    def granted(self, name: str, port: int, address: str) -> None:
        """A tunnel has got a port."""
        since = self._lost.pop(port, None)
        if since is not None:
            away = round(self._deadlines.now - since, 1)
            self._warnings.warning("tunnel back", "connected again", name, port=port, address=address, away=away)

    def lost(self, name: str, port: int, address: str, reason: str) -> None:
        """A tunnel has ended with a port that it held."""
        if self.stopping:
            return
        self.lost_count += 1
        self._lost[port] = self._deadlines.now
        self._warnings.warning("tunnel lost", reason, name, port=port, address=address)
