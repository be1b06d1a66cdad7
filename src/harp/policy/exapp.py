"""An ExApp's record and its routes, as values (A 5.1)."""

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


class ExApp(Struct, frozen=True):
    """What Nextcloud says of one ExApp. `app_id` is lower-cased."""

    app_id: str
    token: str
    version: str
    host: str
    port: int
    routes: tuple[Route, ...] = ()

    def __repr__(self) -> str:
        return f"ExApp({self.app_id!r}, {self.version!r}, {self.host}:{self.port}, {len(self.routes)} routes)"


class Visitor(Struct, frozen=True):
    """Who is calling, as Nextcloud sees it. user_id "" = nobody."""

    user_id: str
    level: Level


ANONYMOUS = Visitor("", Level.PUBLIC)


class UnknownApp(Struct, frozen=True):
    """Nextcloud knows no such ExApp."""


class Trouble(Struct, frozen=True):
    """Nextcloud could not be asked; `reason` is for people and holds no secret."""

    reason: str


RecordFact = ExApp | UnknownApp | Trouble
VisitorFact = Visitor | Trouble
