"""Routes of an ExApp: which one a path hits, by AppAPI's own rules (A 6.10).

`url` is matched case-insensitively as `^(?:url)` on "/path" and, for old manifests, on the bare "path"; the first
matching route decides. Patterns work on bytes, as PCRE does in AppAPI.

Patterns come from ExApps, so their time is limited: RE2 matches in linear time, and what RE2 does not support
(look-around, possessive repeats) runs in `regex` with a time limit. Their number is not trusted either: a table is
compiled in small steps, and groups of routes share one pattern, so that a path is not tried on each route.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from msgspec import Struct

from harp.policy.bans import Denial, Offence
from harp.policy.paths import ExAppPath
from harp.policy.route import Level, Route

if TYPE_CHECKING:
    import regex

PATTERN_SIZE = 1024  # bytes
ROUTES = 1000  # per ExApp
MATCH_TIME = 0.02  # seconds a pattern may take where RE2 cannot run it
SLOW_MATCHES = 10  # time-outs after which a pattern is not tried again: each of them delays everyone
KEPT = 64  # routes; those of a larger table are compiled again when a path first comes to them
GROUP, LARGE_GROUP = 8, 32  # routes that have a pattern together; in larger ones they take less memory, but more time
GROUP_PATTERN = 4096  # bytes; a larger one would take milliseconds to compile


class RouteMatch(Struct, frozen=True, cache_hash=True):
    """The route that decides. There is one for each route, for all the requests that hit it."""

    route: Route
    reason: str


_NO_ROUTE = Denial(404, "no route of the ExApp fits the path", Offence.REFUSAL)
_NO_ROUTE_OTHERWISE = Denial(404, "no route of the ExApp fits another reading of the path", Offence.REFUSAL)
_DOUBTFUL = Denial(400, "an encoded slash or a backslash changes which route the path hits", Offence.REFUSAL)

# A pattern that every path fits which begins with these characters, in any case.
_LITERAL = re.compile(rb"\^?((?:[A-Za-z0-9/_-]|\\[/._-])*)(?:\.\*)?").fullmatch
# The start of a pattern that cannot fit a path without its first slash, if the pattern has no alternative.
_ROOTED = re.compile(rb"\^?\\?/(?![?*{])")


class _Pattern(Protocol):
    def match(self, path: bytes) -> object | None: ...


class _Undecided(Exception):
    """A pattern cannot be matched in time, so the request is refused."""


class RouteTable:
    """The routes of one record.

    They are compiled by `compiling`, in steps of one route each, or at once by the first `match`. `problems` lists
    faulty routes, one line each, for the log. `used` says that there was a match since somebody has set it to False.
    """

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._all = routes
        self.ready = False  # it is compiled
        self._nodes: list[_Node] = []
        self._stricter: dict[Level, list[_Node]] = {}  # the routes that are stricter than a level
        self._prefixes: _Prefixes | None = None  # the routes, if they are all literal
        self.problems: tuple[str, ...] = ()
        self.used = False

    @property
    def size(self) -> int:
        """How many routes are compiled when it is."""
        return min(len(self._all), ROUTES)

    def forget(self) -> None:
        """Release the compiled routes; the next match needs them again."""
        self.ready = False
        self._nodes, self._stricter, self._prefixes = [], {}, None

    def compiling(self) -> Iterator[None]:
        """Compile the routes, a short step for each item."""
        if self.ready:
            return
        problems: list[str] = []
        leaves: list[_Leaf] = []
        for route in self._all[:ROUTES]:
            try:
                leaves.append(_leaf(route))
                if self.size > KEPT and leaves[-1].source:
                    leaves[-1].pattern = None
            except ValueError as error:
                problems.append(f"route {_shown(route)} is skipped: {error}")
            yield
        stricter = {}
        for level in {leaf.level for leaf in leaves}:
            stricter[level] = yield from _in_groups([leaf for leaf in leaves if leaf.level > level], LARGE_GROUP)
        nodes = yield from _in_groups(leaves, GROUP if self.size <= KEPT else LARGE_GROUP)
        if len(self._all) > ROUTES:
            problems.append(f"{len(self._all) - ROUTES} routes are left out, limit {ROUTES}")
        self.problems = tuple(problems)
        self._stricter, self._nodes, self.ready = stricter, nodes, True
        if len(nodes) == 1 and isinstance(nodes[0], _Prefixes):
            self._prefixes = nodes[0]

    def match(self, path: ExAppPath) -> RouteMatch | Denial:
        """Return the route of a path, or why none can be found.

        The normalised reading decides. If another reading hits a different route, the stricter of them wins, and to
        hit none is the strictest; if it depends on the meaning of an encoded slash or a backslash, the request
        is refused.
        """
        self.used = True
        if self._prefixes is not None and not path.others and not path.loose:
            leaf = self._prefixes.find_alone(path.plain)
            if leaf is not None:
                return leaf.match
        for _ in self.compiling():
            pass
        try:
            return self._match(path)
        except _Undecided as error:
            return Denial(403, str(error))

    def _match(self, path: ExAppPath) -> RouteMatch | Denial:
        leaf = self._first(path.plain)
        if path.others:
            others = [self._first(reading) for reading in path.others]
            if path.doubtful and any(other is not leaf for other in others):
                return _DOUBTFUL
            if leaf is not None and None in others:
                return _NO_ROUTE_OTHERWISE
        if leaf is None:
            return _NO_ROUTE
        leaf = self._slashed(leaf, path.plain)
        if path.others or path.loose:
            for reading in (*path.others, *path.loose):
                other = self._first(reading)
                other = other and self._slashed(other, reading)
                if other is not None and other.level > leaf.level:
                    leaf = other
        return leaf.match

    def _slashed(self, leaf: _Leaf, path: bytes) -> _Leaf:
        """Return the stricter route that `path` hits with a "/" at its end, or `leaf`.

        Many servers run the same handler for both. A route that matches only one of them distinguishes them: it stays.
        """
        stricter = self._stricter[leaf.level]
        if stricter and path[-1] != 0x2F:
            slashed = path + b"/"
            if _may_fit(stricter, slashed) and leaf.find(slashed, slashed[1:]) is not None:
                other = self._first(slashed)
                if other is not None and other.level > leaf.level:
                    return other
        return leaf

    def _first(self, path: bytes) -> _Leaf | None:
        return _first_of(self._nodes, path)


class _Leaf(Struct):
    """One route. `bare`: its pattern may fit a path without the slash at its start."""

    match: RouteMatch
    level: Level
    pattern: _Pattern | None  # None: right, but not compiled at the moment
    source: bytes  # of the pattern; b"" where only the guarded engine understands it
    bare: bool
    literal: bytes | None = None  # what paths begin with that fit, in lower case, where that is all there is to it

    def find(self, path: bytes, bare: bytes) -> _Leaf | None:
        """Return itself if the path fits."""
        literal = self.literal
        if literal is not None and path.isascii():
            path = path.lower()
            return self if path.startswith(literal) or path.startswith(literal, 1) else None
        pattern = self.pattern
        if pattern is None:
            pattern = self.pattern = _compile(self.match.route.url)[0]
        if pattern.match(path) or ((self.bare or bare[:1] == b"/") and pattern.match(bare)):
            return self
        return None


class _Group(Struct):
    """Some routes in order. `pattern` fits where that of any of them does; None is not known."""

    leaves: list[_Leaf]
    pattern: _Pattern | None
    bare: bool

    def find(self, path: bytes, bare: bytes) -> _Leaf | None:
        """Return the first of its routes that the path fits."""
        pattern = self.pattern
        if (
            pattern is not None
            and not pattern.match(path)
            and not ((self.bare or bare[:1] == b"/") and pattern.match(bare))
        ):
            return None
        for leaf in self.leaves:
            found = leaf.find(path, bare)
            if found is not None:
                return found
        return None


class _Prefixes(Struct):
    """Some routes in order, all of them literal: no engine is needed for paths of ASCII characters.

    A path fits a route that begins with one of its two literals, one for manifests that leave out the first slash. What
    ends like one of `slashed` may fit another route with a "/" at its end.
    """

    leaves: list[_Leaf]
    literals: list[tuple[tuple[bytes, bytes], _Leaf]]
    slashed: tuple[bytes, ...]

    def find_alone(self, path: bytes) -> _Leaf | None:
        """Return the first of its routes that the path fits, if a "/" at its end would make no difference."""
        if not path.isascii():
            return None
        path = path.lower()
        if path.endswith(self.slashed):
            return None
        for literals, leaf in self.literals:
            if path.startswith(literals):
                return leaf
        return None

    def find(self, path: bytes, bare: bytes) -> _Leaf | None:
        """Return the first of its routes that the path fits."""
        if not path.isascii():
            return _first_of(self.leaves, path)
        path = path.lower()
        for literals, leaf in self.literals:
            if path.startswith(literals):
                return leaf
        return None


_Node = _Leaf | _Group | _Prefixes


def _first_of(nodes: Sequence[_Node], path: bytes) -> _Leaf | None:
    bare = path[1:]
    for node in nodes:
        found = node.find(path, bare)
        if found is not None:
            return found
    return None


def _may_fit(nodes: Sequence[_Node], path: bytes) -> bool:
    try:
        return _first_of(nodes, path) is not None
    except _Undecided:
        return True


def _leaf(route: Route) -> _Leaf:
    """Raises ValueError for what is not a regular expression."""
    pattern, source = _compile(route.url)
    url = route.url.encode("utf-8", "surrogatepass")
    reason = f"route {_shown(route)} is for {route.access_level.name}"
    bare = b"|" in url or _ROOTED.match(url) is None
    literal = _LITERAL(url) if source else None
    start = None if literal is None else literal[1].replace(b"\\", b"").lower()
    return _Leaf(RouteMatch(route, reason), route.access_level, pattern, source, bare, start)


def _in_groups(leaves: list[_Leaf], size: int) -> Generator[None, None, list[_Node]]:
    """Put routes together, a step for each group."""
    nodes: list[_Node] = []
    for start in range(0, len(leaves), size):
        nodes.append(_grouped(leaves[start : start + size]))
        yield
    return nodes


def _grouped(leaves: list[_Leaf]) -> _Node:
    """Join routes; each pattern is valid by itself, so it keeps its meaning in parentheses."""
    if len(leaves) == 1:
        return leaves[0]
    literals = [((leaf.literal, b"/" + leaf.literal), leaf) for leaf in leaves if leaf.literal is not None]
    if len(literals) == len(leaves):
        slashed = [literal[:-1] for (literal, _), _ in literals if literal[-1:] == b"/" and literal != b"/"]
        return _Prefixes(leaves, literals, tuple(slashed))
    bare = any(leaf.bare for leaf in leaves)
    sources = [leaf.source for leaf in leaves]
    source = b"|".join([b"(?:%b)" % source for source in sources]) if all(sources) else b""
    re2 = _linear_engine()
    if source and re2 is not None and len(source) <= GROUP_PATTERN:
        try:
            return _Group(leaves, cast(_Pattern, re2.compile(source, re2.IGNORECASE)), bare)
        except re2.error:
            pass  # two groups of one name, or too large: its routes are tried one by one
    return _Group(leaves, None, bare)


def _shown(route: Route) -> str:
    """Return the pattern for a reason: one line, printable, short."""
    return ascii(route.url if len(route.url) <= 60 else route.url[:59] + "…")[1:-1]


def _compile(url: str) -> tuple[_Pattern, bytes]:
    """Return the pattern and its source, b"" if that is not RE2's.

    Raises ValueError for what is not a regular expression.
    """
    source = url.encode("utf-8", "surrogatepass")
    if len(source) > PATTERN_SIZE:
        return _Refusing(f"a route pattern of {len(source)} bytes is not run, limit {PATTERN_SIZE}"), b""
    source = b"^(?:" + source + b")"
    re2 = _linear_engine()
    if re2 is not None:
        try:
            return cast(_Pattern, re2.compile(source, re2.IGNORECASE)), source
        except re2.error:
            pass  # RE2 does not know it; perhaps `regex` does
    return _guarded(source), b""


def _guarded(source: bytes) -> _Guarded:
    import regex  # noqa: PLC0415 - 1.5 MB that few routes need

    try:
        return _Guarded(regex.compile(source, regex.IGNORECASE))
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a usable regular expression ({error})") from None


@cache
def _linear_engine() -> ModuleType | None:
    """RE2, set to raise where it would fall back to `re` in silence; None where there is no wheel for it (musl)."""
    try:
        import re2  # noqa: PLC0415
    except ImportError:
        return None
    re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)
    return cast(ModuleType, re2)


class _Refusing:
    """Replaces a pattern that is not run: nothing after it in the list may decide either."""

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
            raise _Undecided("a route pattern was too slow too often and is no longer used")
        try:
            found: object | None = self._pattern.match(path, timeout=MATCH_TIME)
        except TimeoutError:
            self._slow += 1
            raise _Undecided(f"a route pattern took longer than {MATCH_TIME * 1000:.0f} ms") from None
        return found
