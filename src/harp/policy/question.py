"""What the access decision reads from a request, as one value.

A `Question` is the only request input of `decide`, so everything that a decision depends on is part of it by
construction, and its parts are the key of cached decisions: who asks, and the route that the path hits. It contains no
cookie, password or shared key: only a keyed hash of the visitor's credentials, and whether the shared key was right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

Digest = Callable[[bytes, "bytes | None"], bytes]  # the keyed hash of cookies and Authorization

OLD_AA_VERSION = b"32"  # what ExApps have always got from HaRP where AppAPI does not say

_PASSPHRASE = re.compile(rb"(?:^|;)[ \t]*oc_sessionPassphrase=[ \t]*([^;]?)")


class Key(IntEnum):
    """The value of harp-shared-key. A web page cannot make a browser send one, not even a wrong one."""

    ABSENT = 0
    WRONG = 1
    RIGHT = 2


class Signature(Struct, frozen=True, cache_hash=True):
    """What AppAPI says about an ExApp in a signed request. Valid only if the shared key is right."""

    version: bytes
    host: bytes
    port: bytes
    authorization: bytes  # AUTHORIZATION-APP-API; may be empty
    aa_version: bytes

    def __repr__(self) -> str:
        return f"Signature({self.host!r}, {self.port!r})"


class Credentials(Struct, frozen=True, cache_hash=True):
    """Who is calling, as far as the decision can tell without asking."""

    digest: bytes = b""  # keyed hash of what logs the visitor in; b"" = nothing does, Nextcloud need not be asked
    password: bool = False  # it contains a Basic password, which is meant for Nextcloud
    key: Key = Key.ABSENT
    engine_port: bytes = b""  # of control calls, which have the right key
    signature: Signature | None = None  # all six headers are present

    def __repr__(self) -> str:
        return f"Credentials({self.key.name})"


ANYBODY = Credentials()


class VisitorLogin(Struct, frozen=True):
    """The visitor's own secrets, which are sent to Nextcloud and which no decision sees."""

    cookie: bytes = b""  # all Cookie lines, joined by "; "
    authorization: bytes | None = None

    def __repr__(self) -> str:
        return "Login(...)"


class Asker(Struct, frozen=True, cache_hash=True):
    """Who wants to pass."""

    ban_key: str  # whom strikes count on
    credentials: Credentials = ANYBODY
    proxy_key: str = ""  # the peer that has named the client, where nobody says that it may

    def __repr__(self) -> str:
        return f"Asker({self.ban_key!r}, {self.credentials!r})"


class Question(Struct, frozen=True):
    """May this pass, and where to?"""

    path: bytes  # raw, without query
    asker: Asker

    def __repr__(self) -> str:
        return f"Question({self.path!r}, {self.asker!r})"


def by_name(lines: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header lines by their lower-case name: the last one of a name counts, only Cookie lines are joined.

    A browser may send several of those (RFC 9113 section 8.2.3).
    """
    found = dict(lines)
    if len(found) != len(lines) and b"cookie" in found:
        found[b"cookie"] = b"; ".join([value for name, value in lines if name == b"cookie"])
    return found


def login_of(found: dict[bytes, bytes]) -> VisitorLogin | None:
    """Return what logs a visitor in: an Authorization, or the cookie of a Nextcloud session.

    None when neither is there.
    """
    authorization = found.get(b"authorization")
    cookie = found.get(b"cookie", b"")
    if not authorization:
        if b"oc_sessionPassphrase=" not in cookie:
            return None
        first = _PASSPHRASE.search(cookie)
        if first is None or not first[1]:
            return None
    return VisitorLogin(cookie, authorization)


def credentials_of(
    found: dict[bytes, bytes], login: VisitorLogin | None, digest: Digest, accept: Callable[[bytes], bool]
) -> Credentials:
    """Return the credentials of a request, from its header lines by name. `accept` knows the shared key."""
    if b"harp-shared-key" in found:
        key, port, signature = _key_of(found, accept)
    elif login is None:
        return ANYBODY
    else:
        key, port, signature = Key.ABSENT, b"", None
    if login is None:
        return Credentials(b"", False, key, port, signature)
    authorization = login.authorization
    # Basic is meant for Nextcloud; a bearer token may be the ExApp's own affair.
    password = authorization is not None and authorization[:6].lower() == b"basic "
    return Credentials(digest(login.cookie, authorization), password, key, port, signature)


def _key_of(found: dict[bytes, bytes], accept: Callable[[bytes], bool]) -> tuple[Key, bytes, Signature | None]:
    key = Key.RIGHT if accept(found[b"harp-shared-key"]) else Key.WRONG
    try:
        signature = Signature(
            version=found[b"ex-app-version"],
            host=found[b"ex-app-host"],
            port=found[b"ex-app-port"],
            authorization=found[b"authorization-app-api"],
            aa_version=found.get(b"aa-version") or OLD_AA_VERSION,
        )
    except KeyError:
        signature = None
    if b"ex-app-id" not in found:
        signature = None
    return key, found.get(b"docker-engine-port", b"") if key is Key.RIGHT else b"", signature
