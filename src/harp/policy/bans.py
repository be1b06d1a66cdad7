"""What counts towards a ban (A 2.4, as changed by our list of differences)."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Offence(IntEnum):
    """How a refused request counts."""

    NONE = 0  # never counted
    REFUSAL = 1  # an ordinary 403 or 404: counted only when everything is (HP_BLACKLIST_STRIKES=all)
    PROBE = 2  # a path that no honest client asks for; but any web page can make its visitors ask for it
    ATTACK = 3  # failed authentication: always counted


class Denial(Struct, frozen=True):
    """A reason not to serve, before it is decided whether it counts for this client."""

    status: int
    reason: str
    offence: Offence = Offence.NONE
    retry_after: int | None = None  # seconds


PROXY_FACTOR = 10  # strikes that ban a peer who may be a reverse proxy, for each that bans a client


def app_key(ban_key: str, app_id: str) -> str:
    """Return the key under which a client's strikes with one ExApp are counted."""
    return f"{ban_key} ({app_id})"


def lowest_counted(strikes: str) -> Offence:
    """Return the mildest offence that counts in a mode of HP_BLACKLIST_STRIKES: "auth" or "all"."""
    return Offence.REFUSAL if strikes == "all" else Offence.ATTACK
