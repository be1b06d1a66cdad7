"""What request and response heads of HTTP/1.1 have in common: names, and header lines that are read once (RFC 9112).

llhttp, through httptools, does the character-level work and is strict about it; `harp.wire.requests` and
`harp.wire.responses` do what it leaves to us. Nobody copies head bytes through: heads are always built anew from the
values read, so a peer behind us never reads a message other than the one we read.
"""

from __future__ import annotations

CHUNKED = -1  # body length: chunked coding, the end marks itself
UNTIL_CLOSE = -2  # body length of a response: everything until the connection ends

NO_BODY = -3  # body length of a response that has none, whatever its head says: to HEAD, with 204 or 304

Fields = list[tuple[bytes, bytes]]  # (lower-case name, value without outer white space), in order

HEAD_END = b"\r\n\r\n"
MAX_LENGTH = 1 << 62

LINE_REMEMBERED = 200  # bytes; longer header lines are read anew each time
LINES_REMEMBERED = 2048
FIELDS_REMEMBERED = 2048  # bytes; longer heads are read anew each time

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
_OURS = RESERVED | FORWARDED
CREDENTIALS = RESERVED | {b"cookie", b"set-cookie", b"authorization", b"proxy-authorization", b"x-registry-auth"}
# Lines that are not remembered: secrets, and what tells one client of a reverse proxy from all others.
_PERSONAL = CREDENTIALS | SAID | {b"x-forwarded-for", b"x-request-id"}


class Ignore:
    """A listener without ears: llhttp checks, we read."""


IGNORE = Ignore()


class Lines(dict[bytes, "bytes | tuple[bytes, bytes]"]):
    """Header lines, read: a rendered line when it is plain, name and value when its name is special.

    Nearly all lines of a request have been seen before, so what they say is remembered; never for long, never much of
    it, and never what is one client's own.
    """

    __slots__ = ("_older", "_special")

    def __init__(self, special: frozenset[bytes]) -> None:
        self._special = special
        self._older: dict[bytes, bytes | tuple[bytes, bytes]] = {}  # the generation before: what is used again stays

    def __missing__(self, line: bytes) -> bytes | tuple[bytes, bytes]:
        older = self._older.pop(line, None)
        if older is not None:
            self._keep(line, older)
            return older
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        # CGI-style servers cannot tell "_" from "-", so the spellings share their fate.
        special = name in self._special or (b"_" in name and name.replace(b"_", b"-") in _OURS)
        read = (name, value) if special else b"%b: %b\r\n" % (name, value)
        if len(line) <= LINE_REMEMBERED and name not in _PERSONAL:
            self._keep(line, read)
        return read

    def _keep(self, line: bytes, read: bytes | tuple[bytes, bytes]) -> None:
        if len(self) >= LINES_REMEMBERED:
            self._older = dict(self)
            self.clear()
        self[line] = read

    def read(self, lines: list[bytes]) -> tuple[Fields, list[bytes]]:
        """Special and plain of the lines of a head, whose last two are empty."""
        special: Fields = []
        plain: list[bytes] = []
        for line in lines[:-2]:
            read = self[line]
            if isinstance(read, bytes):
                plain.append(read)
            else:
                special.append(read)
        return special, plain
