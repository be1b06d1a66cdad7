"""What may reach a Docker engine through us, and in which version of its API (A 3, difference 9).

Only five kinds of requests pass. A path is checked percent-decoded, from end to end, and what is sent on is built anew
from what was checked, so the engine cannot read it differently.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes

from msgspec import Struct

WANTED = (1, 44)  # the API version that our own calls are written for, where the engine has it
PULL_QUERY = frozenset((b"fromImage", b"tag", b"platform"))

_READ = re.compile(
    rb"/_ping"
    rb"|/images/(?=[A-Za-z0-9])[A-Za-z0-9_.:/@-]{1,512}/json"
    rb"|/containers/nc_app_[A-Za-z0-9_.-]{1,256}/(?:json|logs)"
)
_PULL = b"/images/create"
_VERSIONED = re.compile(rb"/v(\d{1,4}(?:\.\d{1,4}){0,2})(?=/)")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


class ApiRange(Struct, frozen=True):
    """The API versions that an engine takes, both ends included."""

    low: tuple[int, int]
    high: tuple[int, int]

    def nearest(self, version: tuple[int, ...]) -> tuple[int, int]:
        """`version` where the engine takes it, else the end of the range that is nearer."""
        wanted = (version[0], version[1] if len(version) > 1 else 0)
        return max(self.low, min(self.high, wanted))

    def __str__(self) -> str:
        return f"{self.low[0]}.{self.low[1]} to {self.high[0]}.{self.high[1]}"


class Passage(Struct, frozen=True):
    """A request that may pass."""

    version: tuple[int, ...]  # that the caller asks for; () = none
    rest: bytes  # percent-decoded path after the version

    def target(self, api: ApiRange) -> bytes:
        """The path to send to an engine with this range; without a version it stays without one."""
        path = quote_from_bytes(self.rest, safe="/:@").encode()
        if not self.version:
            return path
        major, minor = api.nearest(self.version)
        return b"/v%d.%d%b" % (major, minor, path)


def passage(method: bytes, target: bytes, query: bytes) -> Passage | str:
    """Look at one request: the way through, or the reason why there is none.

    `target` is the raw path after /exapps/app_api; `query` is raw, b"" or with its "?".
    """
    path = unquote_to_bytes(target)
    found = _VERSIONED.match(path)
    rest = path[found.end() :] if found else path
    if method == b"POST" and rest == _PULL:
        refusal = _pull_refusal(query.removeprefix(b"?"))
    elif method in (b"GET", b"HEAD") and _READ.fullmatch(rest):
        refusal = ""
    else:
        refusal = "this call is not among those that pass to the engine (_ping, image and ExApp inspection, logs, pull)"
    if refusal:
        return refusal
    return Passage(tuple(map(int, found[1].split(b"."))) if found else (), rest)


def _pull_refusal(query: bytes) -> str:
    """Images come from registries only: an import could bring anything, under any name."""
    if b";" in query:  # engines differ in whether it separates (A 9.2 no. 33)
        return "a semicolon in the query of images/create"
    try:
        names = [name for name, _ in parse_qsl(query, keep_blank_values=True, max_num_fields=16)]
    except ValueError:
        return "the query of images/create has too many parts"
    foreign = next((name for name in names if name not in PULL_QUERY), None)
    if foreign is not None:
        shown = foreign[:32].decode("ascii", "replace")
        return f"images/create takes fromImage, tag and platform only, not {shown!r}: images come from registries"
    if len(set(names)) != len(names) or b"fromImage" not in names:
        return "images/create needs each of its parameters once, and fromImage"
    return ""


def version_of(text: str) -> tuple[int, int] | None:
    """An API version such as "1.41" as numbers; None when it is none."""
    found = _VERSION.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None
