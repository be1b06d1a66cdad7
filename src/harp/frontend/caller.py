"""Who sends a request, as the connection and the header lines tell: read once for all the requests that repeat them."""

from __future__ import annotations

import re

from harp.policy.client_address import ClientAddresses
from harp.policy.decide import credentials_of
from harp.wire.http import FORWARDED, Fields

_HEARSAY = FORWARDED | {b"aa-request-id"}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~-]+)+").fullmatch


class Caller:
    """One block of header lines on one connection, read by `addresses`.

    What a neighbour (a trusted proxy; without configuration, a private peer) says about the client's side is kept and
    added to; what anybody else says about it is dropped, and so are values that could do harm further on.
    """

    __slots__ = (
        "_added",
        "_chain",
        "_hearsay",
        "_host",
        "_identity",
        "_outer_prefix",
        "_prefix",
        "_proto",
        "address",
        "addresses",
        "ban_key",
        "credentials",
        "name",
        "request_id",
    )

    def __init__(self, lines: Fields, peer: str, secure: bool, addresses: ClientAddresses) -> None:
        client = addresses.find(peer, lines)
        self.addresses = addresses
        self.address = client.address  # the true client's, as far as we know
        self.ban_key = client.ban_key  # the address that strikes count on
        self.credentials = credentials_of(lines)
        self.name = b""  # of this address with these credentials, see `name_it`
        self.request_id = b""  # that the sender has chosen, where it has a say
        self._chain = peer.encode() or b"127.0.0.1"
        self._proto = b"https" if secure else b"http"
        self._hearsay = self._outer_prefix = self._added = self._identity = self._prefix = b""
        told = dict(reversed(lines))  # the first line of a name counts
        self._host = told.get(b"host", b"")
        if addresses.is_neighbour(peer) and not _HEARSAY.isdisjoint(told):
            self._listen(lines, told)
        self.name_it()

    def __repr__(self) -> str:
        return f"Caller({self.address!r})"

    def name_it(self) -> None:
        """Give it a name that all callers share of whom every decision is the same; none with the shared key.

        Credentials can have one after a decision that has looked at them, and so given them their digest. Until a
        second request comes with the same lines nobody needs it.
        """
        credentials = self.credentials
        anonymous = not (credentials.authorization or credentials.passphrase)
        if credentials.shared_key is None and (anonymous or credentials.digest):
            self.name = b"%b %b" % (self.ban_key.encode(), credentials.digest)

    def added(self, identity: bytes, prefix: bytes) -> bytes:
        """The header lines that an ExApp gets beside the client's own: `identity`, and where the request comes from.

        `prefix` is what was removed from the path. The answer is remembered: the next one is mostly the same.
        """
        if identity != self._identity or prefix != self._prefix:
            self._identity, self._prefix = identity, prefix
            lines = (
                identity + b"x-forwarded-for: " + self._chain,
                b"x-forwarded-proto: " + self._proto,
                b"x-forwarded-host: " + self._host,
                b"x-forwarded-prefix: " + self._outer_prefix + prefix,
                self._hearsay,
            )
            self._added = b"\r\n".join(lines)
        return self._added

    def _listen(self, lines: Fields, told: dict[bytes, bytes]) -> None:
        """Take a neighbour's word."""
        chain = [value for name, value in lines if name == b"x-forwarded-for"]
        self._chain = b", ".join([*chain, self._chain])
        self._host = told.get(b"x-forwarded-host") or self._host
        proto = told.get(b"x-forwarded-proto", b"").lower()
        if proto in (b"http", b"https"):
            self._proto = proto
        prefix = told.get(b"x-forwarded-prefix", b"").rstrip(b"/")
        if prefix and _PREFIX(prefix):
            self._outer_prefix = prefix
        for name in (b"aa-request-id", b"x-request-id"):  # AppAPI has a name of its own for it
            if name in told and _REQUEST_ID(told[name]):
                self.request_id = told[name]
        hearsay = [b"%b: %b\r\n" % field for field in lines if field[0] == b"forwarded" or field[0] == b"x-real-ip"]
        self._hearsay = b"".join(hearsay)
