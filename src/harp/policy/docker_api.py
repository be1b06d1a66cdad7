"""Which requests may reach a Docker engine through HaRP, and in which version of its API (A 3, difference 9).

Only five kinds of requests pass. A path is checked percent-decoded, from end to end, and the forwarded path is
built from the checked one, so the engine cannot read it differently.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes, urlencode

from msgspec import Struct
from msgspec.structs import replace

from harp.policy.images import is_image

WANTED = (1, 44)  # the API version that our own calls are written for, where the engine has it
PULL_QUERY = frozenset((b"fromImage", b"tag", b"platform"))

_READ = re.compile(
    rb"/_ping"
    rb"|/images/([A-Za-z0-9_.:/@-]{1,512})/json"
    rb"|/containers/(nc_app_[A-Za-z0-9_.-]{1,256})/(?:json|logs)"
)
_PING = b"/_ping"
_PULL = b"/images/create"
_VERSIONED = re.compile(rb"/v(\d{1,4}(?:\.\d{1,4}){0,2})(?=/)")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


class ApiRange(Struct, frozen=True):
    """The API versions that an engine takes, both ends included."""

    low: tuple[int, int]
    high: tuple[int, int]

    def nearest(self, version: tuple[int, ...]) -> tuple[int, int]:
        """Return `version` if the engine supports it, else the nearer end of its range."""
        wanted = (version[0], version[1] if len(version) > 1 else 0)
        return max(self.low, min(self.high, wanted))

    def __str__(self) -> str:
        return f"{self.low[0]}.{self.low[1]} to {self.high[0]}.{self.high[1]}"


class EngineRequest(Struct, frozen=True):
    """A request that may pass."""

    version: tuple[int, ...]  # that the caller asks for; () = none
    rest: bytes  # percent-decoded path after the version
    query: bytes  # raw, without "?"
    image: str = ""  # that is asked for, with its tag; "" = none is
    instead: str = ""  # what to request instead; "" = that image itself
    container: str = ""  # that is looked at; "" = none is

    @property
    def is_ping(self) -> bool:
        """Return whether it asks for a sign of life."""
        return self.rest == _PING

    @property
    def is_stream(self) -> bool:
        """Return whether its answer is passed on while it arrives."""
        return self.is_pull or self.rest.endswith(b"/logs")

    @property
    def is_pull(self) -> bool:
        """Return whether it fetches an image from a registry."""
        return self.rest == _PULL

    def inspection(self) -> EngineRequest:
        """Return the request that looks at the same container."""
        return replace(self, rest=b"/containers/%b/json" % self.container.encode(), query=b"")

    def of_container(self, identifier: str) -> EngineRequest:
        """Return the same request for a container by its id, which never is another's."""
        end = self.rest.rpartition(b"/")[2]
        return replace(self, rest=b"/containers/%b/%b" % (identifier.encode(), end))

    def target(self, api: ApiRange) -> bytes:
        """Return the path and query to send to an engine with this range; without a version it stays without one."""
        rest, query = self.rest, self.query
        if self.instead and self.is_pull:
            platform = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] == b"platform"]
            query = urlencode([(b"fromImage", self.instead), *platform]).encode()
        elif self.instead:
            rest = b"/images/%b/json" % self.instead.encode()
        line = quote_from_bytes(rest, safe="/:@").encode()
        if self.version:
            line = b"/v%d.%d%b" % (*api.nearest(self.version), line)
        return b"%b?%b" % (line, query) if query else line


def engine_request(method: bytes, target: bytes, query: bytes) -> EngineRequest | str:
    """Return the request to send, or the reason why it is refused.

    `target` is the raw path after /exapps/app_api; `query` is raw, b"" or with its "?".
    """
    path = unquote_to_bytes(target)
    found = _VERSIONED.match(path)
    rest = path[found.end() :] if found else path
    version = tuple(map(int, found[1].split(b"."))) if found else ()
    query = query.removeprefix(b"?")
    if method == b"POST" and rest == _PULL:
        return _pull_refusal(query) or EngineRequest(version, rest, query, _pulled(query))
    read = _READ.fullmatch(rest) if method in (b"GET", b"HEAD") else None
    if read is None or (read[1] and not is_image(read[1].decode())):
        return "this call is not among those that pass to the engine (_ping, image and ExApp inspection, logs, pull)"
    return EngineRequest(version, rest, query, (read[1] or b"").decode(), container=(read[2] or b"").decode())


def _pull_refusal(query: bytes) -> str:
    """Return why a pull is refused: images come from registries only, an import could bring anything under any name."""
    if b";" in query:  # engines differ in whether it separates (A 9.2 no. 33)
        return "a semicolon in the query of images/create"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        return "the query of images/create has too many parts"
    names = [name for name, _ in pairs]
    foreign = next((name for name in names if name not in PULL_QUERY), None)
    if foreign is not None:
        shown = foreign[:32].decode("ascii", "replace")
        return f"images/create takes fromImage, tag and platform only, not {shown!r}: images come from registries"
    if len(set(names)) != len(names) or b"fromImage" not in names:
        return "images/create needs each of its parameters once, and fromImage"
    if not is_image(_pulled(query)):
        return "fromImage and tag of images/create are not the name of an image"
    return ""


def _pulled(query: bytes) -> str:
    """Return the image of a pull. A tag comes after a colon, a digest after an at sign."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    image, tag = given[b"fromImage"].decode("utf-8", "replace"), given.get(b"tag", b"").decode("utf-8", "replace")
    if not tag:
        return image
    return f"{image}@{tag}" if ":" in tag else f"{image}:{tag}"


def version_of(text: str) -> tuple[int, int] | None:
    """Return an API version such as "1.41" as numbers; None when it is none."""
    found = _VERSION.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None
