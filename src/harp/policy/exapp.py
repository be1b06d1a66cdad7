"""An ExApp's record and its visitors, as values (A 5.1, A 5.2)."""

from __future__ import annotations

from binascii import b2a_base64
from functools import cached_property, lru_cache

from msgspec import Struct
from msgspec.structs import replace

from harp.policy.route import Level, Route
from harp.policy.routes import RouteTable

__all__ = ["ANONYMOUS", "ExApp", "Level", "RecordFact", "Route", "Trouble", "UnknownApp", "Visitor", "VisitorFact"]

AUTHORIZATIONS = 4096  # of users with ExApps, remembered


class ExApp(Struct, frozen=True, dict=True):
    """What Nextcloud says about one ExApp. `app_id` is lower-cased."""

    app_id: str
    token: str
    version: str
    host: str
    port: int
    routes: tuple[Route, ...] = ()

    def __repr__(self) -> str:
        return f"ExApp({self.app_id!r}, {self.version!r}, {self.host}:{self.port}, {len(self.routes)} routes)"

    @cached_property
    def table(self) -> RouteTable:
        """The routes, compiled once for this record."""
        return RouteTable(self.routes)

    def at(self, host: str, port: int) -> ExApp:
        """Return the same ExApp at another address, its routes compiled as they are."""
        if (host, port) == (self.host, self.port):
            return self
        moved = replace(self, host=host, port=port)
        if "table" in self.__dict__:
            moved.__dict__["table"] = self.table
        return moved

    def authorization(self, user: str) -> bytes:
        """Return the value of AUTHORIZATION-APP-API that tells the ExApp who calls; "" is nobody."""
        return _authorization(user, self.token)


@lru_cache(maxsize=AUTHORIZATIONS)
def _authorization(user: str, token: str) -> bytes:
    return b2a_base64(f"{user}:{token}".encode("utf-8", "surrogatepass"), newline=False)


class Visitor(Struct, frozen=True):
    """Who is calling, as Nextcloud sees it. user_id "" = nobody."""

    user_id: str
    level: Level
    refused: bool = False  # an Authorization came along that Nextcloud does not accept; never set for a cookie


ANONYMOUS = Visitor("", Level.PUBLIC)


class UnknownApp(Struct, frozen=True):
    """Nextcloud knows no such ExApp; `reason` is for people."""

    reason: str = "Nextcloud knows no such ExApp"
    no_appapi: bool = False  # and no AppAPI either


class Trouble(Struct, frozen=True):
    """Nextcloud is unavailable; `reason` is for people and contains no secret."""

    reason: str
    retry_after: int = 5  # seconds


RecordFact = ExApp | UnknownApp | Trouble
VisitorFact = Visitor | Trouble
