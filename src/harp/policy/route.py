"""One route, as an ExApp declares it. Records contain it in this form, also in messages between members."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Level(IntEnum):
    """Who may use a route, and the level of a visitor."""

    PUBLIC = 0
    USER = 1
    ADMIN = 2


class Route(Struct, frozen=True):
    """One declared route. `url` is a regular expression as AppAPI stores it."""

    url: str
    access_level: Level
    bruteforce_protection: frozenset[int] = frozenset()  # response statuses that count as a strike
