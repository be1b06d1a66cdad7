"""What request and response heads of HTTP/1.1 have in common: names, and header lines that are read once (RFC 9112).

Ordinary heads are read by expressions that every byte has to fit. llhttp, through httptools, judges all others, and
`harp.wire.requests` and `harp.wire.responses` do what it leaves to us. Lines go on only after they have been read as a
whole, so a peer behind us never reads a message other than the one we read.
"""

from __future__ import annotations

CHUNKED = -1  # body length: chunked coding, the end marks itself
UNTIL_CLOSE = -2  # body length of a response: everything until the connection ends

NO_BODY = -3  # body length of a response that has none, whatever its head says: to HEAD, with 204 or 304

Fields = list[tuple[bytes, bytes]]  # (lower-case name, value without outer white space), in order

HEAD_END = b"\r\n\r\n"
MAX_LENGTH = 1 << 62

# Between neighbours only. Their effect is applied by each side's own framing (RFC 9110 section 7.6.1).
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
# What is said about the client's side and kept as it is, if somebody says it who may.
SAID = frozenset(
    (
        b"forwarded",
        b"x-real-ip",
        b"x-forwarded-port",
        b"x-forwarded-ssl",
        b"x-forwarded-server",
        b"x-origin-ip",
        b"aa-request-id",
    )
)
# The same, and what is rewritten for the next hop. CGI programs take `Proxy` for a proxy to use: nobody may say that.
FORWARDED = SAID | {
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-prefix",
    b"x-request-id",
    b"proxy",
}
_UNDERSCORED = RESERVED | FORWARDED | HOP_BY_HOP | {b"content-length"}  # with "_" for "-" they go no further


class Ignore:
    """A listener without ears: llhttp checks, we read."""


IGNORE = Ignore()


def read_lines(lines: list[bytes], special: frozenset[bytes]) -> tuple[Fields, list[bytes]]:
    """Return the special and the plain of the lines of a head, whose last two are empty.

    Plain ones as complete lines.
    """
    found: Fields = []
    plain: list[bytes] = []
    for line in lines[:-2]:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        # CGI-style servers cannot tell "_" from "-", so the spellings share their fate.
        if name in special or (b"_" in name and name.replace(b"_", b"-") in _UNDERSCORED):
            found.append((name, value))
        else:
            plain.append(b"%b: %b\r\n" % (name, value))
    return found, plain
