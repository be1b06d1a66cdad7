"""Header fields on their way through (RFC 9110 section 7.6; A 2.6 with difference 6)."""

from __future__ import annotations

import re

from harp.wire.http import FORWARDED, HEAD_END, HOP_BY_HOP, RESERVED, Fields
from harp.wire.ordinary import VERSION
from harp.wire.requests import RequestFields, RequestHead
from harp.wire.responses import ResponseHead

_ID = b"x-request-id: "
_REQUEST_ID = re.compile(rb"(?i)\n(?:x-request-id:[^\n]*\n)+").sub
_TO_EXAPP = HOP_BY_HOP | RESERVED | FORWARDED
# The control API is ourselves: it needs to know the engine; the decision has used up all the rest.
_TO_CONTROL = HOP_BY_HOP | FORWARDED | (RESERVED - {b"docker-engine-port"}) | {b"authorization", b"cookie"}

# RFC 9110 section 6.5.1: what decides framing, routing, identity or the handling of content is not read from trailers.
_NOT_TRAILERS = _TO_EXAPP | frozenset(
    (
        *(b"host", b"trailer", b"expect", b"max-forwards", b"cache-control", b"pragma", b"range", b"accept-ranges"),
        *(b"authorization", b"cookie", b"set-cookie", b"www-authenticate", b"authentication-info"),
        *(b"proxy-authentication-info", b"location", b"date", b"age", b"expires", b"retry-after", b"vary", b"warning"),
        *(b"strict-transport-security", b"clear-site-data", b"refresh", b"origin", b"referer", b"allow"),
    )
)
_NOT_TRAILERS_BEGIN = (b"content-", b"if-", b"accept", b"access-control-", b"sec-", b"x-forwarded-", b"cross-origin-")
_TRAILERS = frozenset((b"content-digest", b"content-md5"))  # made while the content is sent, so they may


def passing_lines(fields: RequestFields) -> bytes:
    """The special header lines of a request that an ExApp gets as they are."""
    return _passing(fields, _TO_EXAPP)


def request_head(head: RequestHead, target: bytes, lines: bytes, identity: bytes, request_id: bytes) -> bytes:
    """The request as an ExApp gets it, always HTTP/1.1.

    `target` is the path to send, without query. `lines` and `identity` are complete header lines: of the client and its
    way to us, and what the ExApp trusts.
    """
    return b"".join(
        (
            head.method,
            b" ",
            target,
            head.query,
            VERSION,
            lines,
            head.plain,
            head.framing,
            identity,
            _ID,
            request_id,
            HEAD_END,
        )
    )


def control_head(head: RequestHead, target: bytes, address: bytes, request_id: bytes, more: bytes = b"") -> bytes:
    """The request as the control API gets it, which is ourselves. `address` is the client's, `more` lines of ours."""
    return b"%b %b%b HTTP/1.1\r\n%b%b%bx-forwarded-for: %b\r\nx-request-id: %b\r\n%b\r\n" % (
        head.method,
        target,
        head.query,
        _passing(head.fields, _TO_CONTROL),
        head.plain,
        head.framing,
        address,
        request_id,
        more,
    )


def gateway_head(head: RequestHead, client_side: bytes, request_id: bytes) -> bytes:
    """The request as Nextcloud gets it behind us: all that is not between neighbours, and who called us how.

    `client_side` are complete header lines.
    """
    return b"%b %b%b HTTP/1.1\r\n%b%b%b%bx-request-id: %b\r\n\r\n" % (
        head.method,
        head.path,
        head.query,
        _passing(head.fields, HOP_BY_HOP | FORWARDED),
        head.plain,
        head.framing,
        client_side,
        request_id,
    )


def interim_response(head: ResponseHead) -> bytes:
    """A whole interim response (1xx) for the client."""
    return head.start + b"\r\n"


def switching_start(start: bytes, protocol: bytes) -> bytes:
    """The start of a 101 for the client, with the lines that say so."""
    return b"%bconnection: upgrade\r\nupgrade: %b\r\n" % (start, protocol)


def without_id(start: bytes) -> bytes:
    """The same start of a response, without a request id: the client gets the one under which our log has it."""
    return _REQUEST_ID(b"\n", start) if b"\nx-request-id:" in start.lower() else start


def _passing(fields: RequestFields, dropped: frozenset[bytes]) -> bytes:
    """What goes on of the special lines."""
    lines = [b"%b: %b\r\n" % field for field in fields.special if field[0] not in dropped and b"_" not in field[0]]
    if fields.host is None:  # HTTP/1.0 may leave it out, HTTP/1.1 may not
        lines.append(b"host: localhost\r\n")
    return b"".join(lines)


def with_prefix(start: bytes, prefix: bytes) -> bytes:
    """The same start of a response, with `prefix` before the path of Location and Content-Location.

    Only where that is a path of this host, and the prefix is not there yet.
    """
    lines = start.split(b"\r\n")
    for index, line in enumerate(lines):
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        if (
            name.lower() in (b"location", b"content-location")
            and value.startswith(b"/")
            and not value.startswith(b"//")
            and value != prefix
            and not value.startswith((prefix + b"/", prefix + b"?"))
        ):
            lines[index] = name + b": " + prefix + value
    return b"\r\n".join(lines)


def trailers_to_pass(trailers: Fields) -> Fields:
    """The trailer fields that may go on."""
    return [field for field in trailers if _may_trail(field[0].replace(b"_", b"-"))]


def _may_trail(name: bytes) -> bool:
    return name in _TRAILERS or not (name in _NOT_TRAILERS or name.startswith(_NOT_TRAILERS_BEGIN))
