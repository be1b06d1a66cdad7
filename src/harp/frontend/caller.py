"""Who sends a request, as the connection and the header lines tell: read once for all the requests that repeat them."""

from __future__ import annotations

import re

from msgspec import Struct

from harp.policy.client_address import ClientAddresses
from harp.policy.decide import Rules
from harp.policy.question import Asker, Digest, Key, VisitorLogin, by_name, credentials_of, login_of
from harp.recent import remember
from harp.settings import Proxies
from harp.wire.forwarding import passing_lines
from harp.wire.http import SAID, Fields
from harp.wire.requests import RequestFields

KNOWN = 4096  # callers

_OF_APPAPI = frozenset((b"aa-request-id", b"x-origin-ip"))
is_request_id = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~-]+)+").fullmatch


class Callers:
    """Reads callers of one Nextcloud under one configuration. `digest` names what logs a visitor in."""

    def __init__(self, proxies: Proxies, rules: Rules, digest: Digest, instance: str = "") -> None:
        self.instance = instance  # the Nextcloud's name, where there are several
        self._addresses = ClientAddresses(proxies)
        self._accept = rules.accept
        self._digest = digest
        self._known: dict[tuple[RequestFields, str, bool], Caller] = {}

    def find(self, fields: RequestFields, peer: str, *, secure: bool) -> Caller:
        """As `read`; who has called lately is known."""
        caller = self._known.get((fields, peer, secure))
        if caller is None:
            caller = self.read(fields, peer, secure=secure)
            if fields.known:
                remember(self._known, (fields, peer, secure), caller, KNOWN)
        return caller

    def forget(self) -> None:
        """Forget who has called."""
        self._known.clear()

    def read(self, fields: RequestFields, peer: str, *, secure: bool) -> Caller:
        """The caller of a request with these header lines, from a connection's other end."""
        lines, found = fields.special, fields.found
        first = found
        if len(found) != len(lines):
            found, first = by_name(lines), dict(reversed(lines))  # the first line of a name counts
        login = login_of(found)
        credentials = credentials_of(found, login, self._digest, self._accept)
        client = self._addresses.find(peer, lines, found if first is found else None)
        caller = Caller(
            self,
            client.address,
            Asker(client.ban_key, credentials, client.proxy_key),
            credentials.key is Key.RIGHT,
            login,
            fields,
            peer.encode() or b"127.0.0.1",
            b"https" if secure else b"http",
            first.get(b"host", b""),
        )
        if self._addresses.is_neighbour(peer):
            caller.neighbour = True
            caller.take_word(first, lines)
        elif caller.trusted:
            caller.said = _said(lines, _OF_APPAPI)
        caller.lines = passing_lines(fields) + caller.client_side
        return caller

    def is_neighbour(self, peer: str) -> bool:
        """May `peer` speak for clients in forwarding headers?"""
        return self._addresses.is_neighbour(peer)


class Caller(Struct, eq=False):
    """One block of header lines on one connection.

    What a neighbour (a trusted proxy; without configuration, a private peer) says about the client's side is kept and
    added to; what anybody else says about it is dropped, and so are values that could do harm further on.
    """

    read_by: Callers
    address: str  # the true client's, as far as we know
    asker: Asker
    trusted: bool  # it has the shared key
    login: VisitorLogin | None
    fields: RequestFields
    chain: bytes  # the addresses of X-Forwarded-For
    proto: bytes
    host: bytes
    said: bytes = b""  # lines about the client's side that the ExApp gets as they are
    neighbour: bool = False  # what it says of requests counts, too
    request_id: bytes = b""  # that AppAPI has chosen, where it has a say
    outer_prefix: bytes = b""  # what proxies in front have removed from the path
    lines: bytes = b""  # the header lines that an ExApp gets of the client's own, and where the request comes from

    def __repr__(self) -> str:
        return f"Caller({self.address!r})"

    @property
    def client_side(self) -> bytes:
        """The header lines that say where the request comes from, and how it was called."""
        return b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n%b" % (
            self.chain,
            self.proto,
            self.host,
            self.said,
        )

    def take_word(self, told: dict[bytes, bytes], lines: Fields) -> None:
        """Take a neighbour's word, `told` are header lines by name."""
        if b"x-forwarded-for" in told:
            chain = [value for name, value in lines if name == b"x-forwarded-for"]
            self.chain = b", ".join([*chain, self.chain])
        self.host = told.get(b"x-forwarded-host") or self.host
        proto = told.get(b"x-forwarded-proto", b"").lower()
        if proto in (b"https", b"http"):
            self.proto = proto
        if b"x-forwarded-prefix" in told:
            prefix = told[b"x-forwarded-prefix"].rstrip(b"/")
            if prefix and _PREFIX(prefix):
                self.outer_prefix = prefix
        if is_request_id(told.get(b"aa-request-id", b"")):  # AppAPI has a name of its own for it
            self.request_id = told[b"aa-request-id"]
        if not SAID.isdisjoint(told):
            self.said = _said(lines, SAID)


def _said(lines: Fields, names: frozenset[bytes]) -> bytes:
    """These lines as they are."""
    return b"".join([b"%b: %b\r\n" % field for field in lines if field[0] in names])
