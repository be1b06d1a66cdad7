"""Header fields on their way through (RFC 9110 section 7.6; A 2.6 with difference 6)."""

from __future__ import annotations

from harp.wire.http import Fields, RequestHead, ResponseHead

# Between neighbours only. Their effect is applied by each side's own framing.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)

# The ExApp trusts these, so they come from us or from nobody.
RESERVED = frozenset(
    (
        b"harp-shared-key",
        b"docker-engine-port",
        b"ex-app-id",
        b"ex-app-version",
        b"ex-app-host",
        b"ex-app-port",
        b"authorization-app-api",
        b"aa-version",
    )
)

# Rewritten for the next hop.
FORWARDED = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix", b"x-request-id")
)

_TO_EXAPP = HOP_BY_HOP | RESERVED | FORWARDED
# The control API is ourselves: it needs to know the engine; the decision has used up all the rest.
_TO_CONTROL = HOP_BY_HOP | FORWARDED | (RESERVED - {b"docker-engine-port"}) | {b"authorization", b"cookie"}

# RFC 9110 section 6.5.1: what decides framing, routing or identity is not read from trailers.
_NOT_TRAILERS = _TO_EXAPP | {b"content-length", b"host", b"authorization", b"cookie", b"set-cookie", b"trailer"}


def request_head(head: RequestHead, target: bytes, added: bytes, *, control: bool = False) -> bytes:
    """The request as the next hop gets it, always HTTP/1.1.

    `target` is the path to send, without query. `added` are complete lines that go last: identity and forwarding.
    """
    dropped = _TO_CONTROL if control else _TO_EXAPP
    named = _named_by_connection(head.headers)
    lines = [b"%b %b%b HTTP/1.1\r\n" % (head.method, target, head.query)]
    host = False
    for name, value in head.headers:
        if name in dropped or name in named:
            continue
        if b"_" in name and name.replace(b"_", b"-") in RESERVED:
            continue  # CGI-style servers cannot tell the two spellings apart
        host = host or name == b"host"
        lines.append(b"%b: %b\r\n" % (name, value))
    if not host:  # HTTP/1.0 may leave it out, HTTP/1.1 may not
        lines.append(b"host: localhost\r\n")
    if head.length < 0:
        lines.append(b"transfer-encoding: chunked\r\n")
    if head.upgrade is not None:
        lines.append(b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade)
    lines.append(added)
    lines.append(b"\r\n")
    return b"".join(lines)


def response_fields(head: ResponseHead) -> bytes:
    """The header lines of a response for the client: everything but hop-by-hop fields and the body's length."""
    named = _named_by_connection(head.headers)
    return b"".join(
        [
            b"%b: %b\r\n" % field
            for field in head.headers
            if field[0] not in HOP_BY_HOP and field[0] != b"content-length" and field[0] not in named
        ]
    )


def trailers_to_pass(trailers: Fields) -> Fields:
    """The trailer fields that may go on."""
    return [field for field in trailers if field[0] not in _NOT_TRAILERS]


def _named_by_connection(headers: Fields) -> frozenset[bytes]:
    """Fields that the sender's Connection header declares hop-by-hop. Ends of the message are never among them."""
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return _NOTHING
    named = {option.strip().lower() for option in b",".join(values).split(b",")}
    return frozenset(named - _CANNOT_BE_NAMED)


_NOTHING: frozenset[bytes] = frozenset()
_CANNOT_BE_NAMED = frozenset(
    (b"host", b"content-length", b"content-type", b"cookie", b"authorization", b"x-forwarded-for")
)
