"""Every error that HaRP raises on purpose. Each is raised in one place and answered in one place."""

from __future__ import annotations

import os
import sys

LONGEST_WORDS = 80  # characters of an error's own text


class HarpError(Exception):
    """The root: catch this to distinguish our own refusals from bugs."""


class SettingsError(HarpError):
    """The configuration cannot be used. `problems` holds every one of them, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PeerError(HarpError):
    """A peer broke its protocol; the connection cannot be used any longer."""


class Flooded(PeerError):
    """A peer sends data whose only effect is to keep us busy."""


class ProtocolError(HarpError):
    """We were about to break a protocol ourselves: a bug."""


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


class TunnelHeld(Unreachable):
    """The tunnel of a port belongs to another ExApp."""


def words_of(error: OSError) -> str:
    """Return the system's description of a failure in one short line, without the address, path or number it adds."""
    ssl = sys.modules.get("ssl")  # not imported here: it costs 20 ms that `harp health` need not take
    if ssl is not None and isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {getattr(error, 'verify_message', error)}"
    if ssl is not None and isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or "no reason given"  # only OpenSSL's own errors have one
        return f"TLS failed: {reason.replace('_', ' ').lower()}"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own strerror has the address in it
    if error.strerror:
        return error.strerror  # of look-ups, whose numbers are negative
    if isinstance(error, TimeoutError):
        return "timed out"
    return next(iter(str(error).splitlines()), "")[:LONGEST_WORDS] or type(error).__name__
