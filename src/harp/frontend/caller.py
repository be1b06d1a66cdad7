"""Who sends a request, as the connection and the header lines tell: read once for all the requests that repeat them."""

from __future__ import annotations

import re

from harp.policy.client_address import ClientAddresses
from harp.policy.decide import Rules
from harp.policy.paths import is_prefix
from harp.policy.question import Credentials, Digest, Key, Login, by_name, credentials_of, login_of
from harp.settings import Proxies
from harp.wire.forwarding import passing_lines
from harp.wire.http import FORWARDED, SAID
from harp.wire.requests import RequestFields

_OF_APPAPI = frozenset((b"aa-request-id", b"x-origin-ip"))
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


class Callers:
    """Reads callers under one configuration. `digest` names what logs a visitor in."""

    def __init__(self, proxies: Proxies, rules: Rules, digest: Digest) -> None:
        self._addresses = ClientAddresses(proxies)
        self._accept = rules.accept
        self._digest = digest

    def read(self, fields: RequestFields, peer: str, *, secure: bool) -> Caller:
        """The caller of a request with these header lines, from a connection's other end."""
        lines = fields.special
        found = by_name(lines)
        login = login_of(found)
        alone = len(found) == len(lines)  # no header came twice
        client = self._addresses.find(peer, lines, found if alone else None)
        caller = Caller(
            self,
            client.address,
            client.ban_key,
            client.proxy_key,
            login,
            credentials_of(found, login, self._digest, self._accept),
            fields,
        )
        told = found if alone else dict(reversed(lines))  # the first line of a name counts
        caller.take(told, peer.encode() or b"127.0.0.1", b"https" if secure else b"http")
        if not FORWARDED.isdisjoint(told):
            if self._addresses.is_neighbour(peer):
                caller.take_word(told, fields)
            elif caller.credentials.key is Key.RIGHT:
                caller.keep(fields, _OF_APPAPI)
        return caller

    def is_neighbour(self, peer: str) -> bool:
        """May `peer` speak for clients in forwarding headers?"""
        return self._addresses.is_neighbour(peer)


class Caller:
    """One block of header lines on one connection.

    What a neighbour (a trusted proxy; without configuration, a private peer) says about the client's side is kept and
    added to; what anybody else says about it is dropped, and so are values that could do harm further on.
    """

    __slots__ = (
        "_chain",
        "_fields",
        "_host",
        "_lines",
        "_proto",
        "_said",
        "address",
        "ban_key",
        "credentials",
        "login",
        "outer_prefix",
        "proxy_key",
        "read_by",
        "request_id",
    )

    def __init__(
        self,
        read_by: Callers,
        address: str,
        ban_key: str,
        proxy_key: str,
        login: Login | None,
        credentials: Credentials,
        fields: RequestFields,
    ) -> None:
        self.read_by = read_by
        self.address = address  # the true client's, as far as we know
        self.ban_key = ban_key  # the address that strikes count on
        self.proxy_key = proxy_key  # of the peer, where the ban key is only its word
        self.login = login
        self.credentials = credentials
        self.request_id = b""  # that the sender has chosen, where it has a say
        self.outer_prefix = b""  # what proxies in front have removed from the path
        self._fields = fields
        self._lines = self._said = b""

    def __repr__(self) -> str:
        return f"Caller({self.address!r})"

    @property
    def lines(self) -> bytes:
        """The header lines that an ExApp gets of the client's own, and where the request comes from."""
        if not self._lines:
            self._lines = b"%bx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n%b" % (
                passing_lines(self._fields),
                self._chain,
                self._proto,
                self._host,
                self._said,
            )
        return self._lines

    def take(self, told: dict[bytes, bytes], chain: bytes, proto: bytes) -> None:
        """Note what the connection says, `told` are header lines by name."""
        self._chain = chain
        self._proto = proto
        self._host = told.get(b"host", b"")

    def take_word(self, told: dict[bytes, bytes], fields: RequestFields) -> None:
        """Take a neighbour's word."""
        lines = fields.special
        if len(told) == len(lines):
            if b"x-forwarded-for" in told:
                self._chain = b"%b, %b" % (told[b"x-forwarded-for"], self._chain)
        else:
            chain = [value for name, value in lines if name == b"x-forwarded-for"]
            self._chain = b", ".join([*chain, self._chain])
        self._host = told.get(b"x-forwarded-host") or self._host
        proto = told.get(b"x-forwarded-proto", b"").lower()
        if proto in (b"http", b"https"):
            self._proto = proto
        prefix = told.get(b"x-forwarded-prefix", b"").rstrip(b"/")
        if prefix and is_prefix(prefix):
            self.outer_prefix = prefix
        for name in (b"aa-request-id", b"x-request-id"):  # AppAPI has a name of its own for it
            if name in told and _REQUEST_ID(told[name]):
                self.request_id = told[name]
        if not SAID.isdisjoint(told):
            self.keep(fields, SAID)

    def keep(self, fields: RequestFields, names: frozenset[bytes]) -> None:
        """Let the ExApp see these lines as they are."""
        self._said = b"".join([b"%b: %b\r\n" % field for field in fields.special if field[0] in names])
