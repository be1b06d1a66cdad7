"""What the header lines of a request tell the gate, read once for all the requests that repeat them."""

from __future__ import annotations

import re

from msgspec import Struct

from harp.policy.decide import Credentials, credentials_of
from harp.wire.http import Fields

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~-]+)+").fullmatch


class Told(Struct, frozen=True):
    """`addresses` and what follows come from a proxy in front, or from anybody: they are worth what the peer is."""

    credentials: Credentials
    host: bytes
    addresses: bytes  # of the header that tells the client's address
    chain: bytes = b""  # X-Forwarded-For so far, with a comma and a blank behind it
    proto: bytes = b""
    first_host: bytes = b""  # that the client asked for
    prefix: bytes = b""  # that was removed before us
    request_id: bytes = b""
    hearsay: bytes = b""  # further lines about the client, complete

    def __repr__(self) -> str:
        return f"Told({self.host!r})"


def told_by(lines: Fields, addresses: bytes) -> Told:
    """Read the lines; values that could do harm further on count as not there."""
    told = dict(reversed(lines))  # the first line of a name counts
    proto = told.get(b"x-forwarded-proto", b"").lower()
    prefix = told.get(b"x-forwarded-prefix", b"").rstrip(b"/")
    ids = (told.get(b"x-request-id", b""), told.get(b"aa-request-id", b""))  # AppAPI has a name of its own for it
    return Told(
        credentials_of(lines),
        told.get(b"host", b""),
        addresses,
        chain=b"".join([value + b", " for name, value in lines if name == b"x-forwarded-for"]),
        proto=proto if proto in (b"http", b"https") else b"",
        first_host=told.get(b"x-forwarded-host", b""),
        prefix=prefix if _PREFIX(prefix) else b"",
        request_id=next((value for value in ids if _REQUEST_ID(value)), b""),
        hearsay=b"".join([b"%b: %b\r\n" % field for field in lines if field[0] in (b"forwarded", b"x-real-ip")]),
    )
