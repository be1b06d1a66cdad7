"""One route, as an ExApp declares it. Records contain it in this shape, also where one member tells another of them."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Level(IntEnum):
    """Who may see a route, and what a visitor is."""

    PUBLIC = 0
    USER = 1
    ADMIN = 2


class Route(Struct, frozen=True):
    """One declared route. `url` is a regular expression as AppAPI stores it."""

    url: str
    access_level: Level
    bruteforce_protection: frozenset[int] = frozenset()  # response statuses that count as a strike
