"""What counts towards a ban (A 2.4, as changed by our list of differences)."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Offence(IntEnum):
    """How a refused request is looked at."""

    NONE = 0  # never counted
    REFUSAL = 1  # an ordinary 403 or 404: counted only when everything is (HP_BLACKLIST_STRIKES=all)
    ATTACK = 2  # failed authentication, or a path that only an attacker sends: always counted


class Denial(Struct, frozen=True):
    """A reason not to serve, found before it is known whether it counts for this client."""

    status: int
    reason: str
    offence: Offence = Offence.NONE
    retry_after: int | None = None  # seconds


def lowest_counted(strikes: str) -> Offence:
    """The mildest offence that counts in a mode of HP_BLACKLIST_STRIKES: "auth" or "all"."""
    return Offence.REFUSAL if strikes == "all" else Offence.ATTACK
