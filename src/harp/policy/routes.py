"""Routes of an ExApp: which one a path hits, by AppAPI's own rules (A 6.10).

`url` is matched case-insensitively as `^(?:url)` on "/path" and, for old manifests, on the bare "path"; the first
route that fits decides. Patterns work on bytes, as PCRE does in AppAPI.

Patterns come from ExApps, so they are not trusted with time: RE2 matches in linear time, and what RE2 does not
understand (look-around, possessive repeats) runs in `regex` with a time limit.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from msgspec import Struct

from harp.policy.bans import Denial, Offence
from harp.policy.paths import CACHED_PATH, Spot

if TYPE_CHECKING:
    import regex

PATTERN_SIZE = 1024  # bytes
ROUTES = 1000  # per ExApp
MATCH_TIME = 0.02  # seconds a pattern may take where RE2 cannot run it
SLOW_MATCHES = 10  # so many time-outs, and the pattern is not tried again: each of them holds up everybody
CACHED_MATCHES = 1024  # per ExApp


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


class Hit(Struct, frozen=True):
    """The route that decides."""

    route: Route
    reason: str


class _Pattern(Protocol):
    def match(self, path: bytes) -> object | None: ...


class _Undecided(Exception):
    """A pattern cannot tell, so the request is refused."""


class RouteTable:
    """The compiled routes of one record, with a memory of recent answers."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes: list[tuple[Route, _Pattern]] = []
        self._answers: dict[bytes, Hit | Denial] = {}
        problems = []
        for route in routes[:ROUTES]:
            try:
                self._routes.append((route, _compile(route.url)))
            except ValueError as error:
                problems.append(f"route {_shown(route)} is skipped: {error}")
        if len(routes) > ROUTES:
            problems.append(f"{len(routes) - ROUTES} routes are left out, limit {ROUTES}")
        self.problems = tuple(problems)  # one line each, for the log

    def match(self, spot: Spot) -> Hit | Denial:
        """Find the route of a path, or say why none can be told.

        The normalised reading decides. If another reading hits a different route, the stricter of them wins; if the
        meaning of an encoded slash or a backslash makes the difference, the request is refused.
        """
        answer = self._answers.get(spot.target)
        if answer is None:
            answer = self._match(spot)
            if len(spot.target) <= CACHED_PATH:
                if len(self._answers) >= CACHED_MATCHES:
                    self._answers.clear()
                self._answers[spot.target] = answer
        return answer

    def _match(self, spot: Spot) -> Hit | Denial:
        try:
            route = self._first(spot.plain)
            if any(self._first(reading) is not route for reading in spot.doubtful):
                return Denial(400, "an encoded slash or a backslash changes which route the path hits", Offence.REFUSAL)
            if route is None:
                return Denial(404, "no route of the ExApp fits the path", Offence.REFUSAL)
            for other in map(self._first, spot.others):
                if other is not None and other.access_level > route.access_level:
                    route = other
        except _Undecided as error:
            return Denial(403, str(error))
        return Hit(route, f"route {_shown(route)} is for {route.access_level.name}")

    def _first(self, path: bytes) -> Route | None:
        bare = path[1:]
        for route, pattern in self._routes:
            if pattern.match(path) or pattern.match(bare):
                return route
        return None


def _shown(route: Route) -> str:
    """The pattern for a reason: one line, printable, short."""
    return ascii(route.url if len(route.url) <= 60 else route.url[:59] + "…")[1:-1]


def _compile(url: str) -> _Pattern:
    """Raises ValueError for what is no regular expression."""
    source = url.encode("utf-8", "surrogatepass")
    if len(source) > PATTERN_SIZE:
        return _Refusing(f"a route pattern of {len(source)} bytes is not run, limit {PATTERN_SIZE}")
    source = b"^(?:" + source + b")"
    re2 = _linear_engine()
    if re2 is not None:
        try:
            return cast(_Pattern, re2.compile(source, re2.IGNORECASE))
        except re2.error:
            pass  # RE2 does not know it; perhaps `regex` does
    return _guarded(source)


def _guarded(source: bytes) -> _Guarded:
    import regex  # noqa: PLC0415 - 1.5 MB that few routes need

    try:
        return _Guarded(regex.compile(source, regex.IGNORECASE))
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a usable regular expression ({error})") from None


@cache
def _linear_engine() -> ModuleType | None:
    """RE2, told to raise where it would fall back to `re` in silence; None where there is no wheel for it (musl)."""
    try:
        import re2  # noqa: PLC0415
    except ImportError:
        return None
    re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)
    return cast(ModuleType, re2)


class _Refusing:
    """Stands for a pattern that is not run: nothing behind it in the list may decide either."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def match(self, path: bytes) -> object | None:
        raise _Undecided(self._reason)


class _Guarded:
    """A backtracking pattern with a time limit."""

    def __init__(self, pattern: regex.Pattern[bytes]) -> None:
        self._pattern = pattern
        self._slow = 0

    def match(self, path: bytes) -> object | None:
        if self._slow >= SLOW_MATCHES:
            raise _Undecided("a route pattern was too slow too often and is not run any more")
        try:
            found: object | None = self._pattern.match(path, timeout=MATCH_TIME)
        except TimeoutError:
            self._slow += 1
            raise _Undecided(f"a route pattern took longer than {MATCH_TIME * 1000:.0f} ms") from None
        return found
