"""Every error that HaRP raises on purpose. Born in one place each, answered in one place each."""

from __future__ import annotations


class HarpError(Exception):
    """The root: catch this to tell our own refusals from bugs."""


class SettingsError(HarpError):
    """The configuration cannot be used. `problems` holds every one of them, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PeerError(HarpError):
    """A peer broke its protocol; the connection is not usable any more."""


class BadRequest(PeerError):
    """A request that cannot be read safely (RFC 9112). Answer `status`, then close the connection."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Unreachable(HarpError):
    """A target (ExApp, engine, tunnel) could not be connected. The text says which and why."""


class TunnelAway(Unreachable):
    """The tunnel of a port is not connected now; it may come back soon."""
