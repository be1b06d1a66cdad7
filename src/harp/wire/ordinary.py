"""Ordinary heads of HTTP/1.1 and paths of ExApps, cut by expressions that every byte of them has to fit.

None means: not ordinary, or not complete. Then `harp.wire.requests` and `harp.wire.responses` read line by line.
The optional package `appapi-harp-core` (the folder core/) has the same in compiled form, in use where it is
installed; a property test says that they are equal to these on every input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from harp.wire.http import CHUNKED, UNTIL_CLOSE

# Names with "_" are not ordinary: CGI-style servers cannot tell it from "-".
_NAME = rb"[!#$%&'*+.^`|~0-9A-Za-z-]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"
START = (
    rb"(GET|POST|HEAD|PUT|DELETE|OPTIONS|PATCH|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|REPORT|SEARCH)"
    rb" (/[A-Za-z0-9/._~%=&+,:;@!$'()*-]*+)(\?[A-Za-z0-9/?._~%=&+,:;@!$'()*\[\]|-]*+)?+"
)
VERSION = b" HTTP/1.1\r\n"
ORDINARY = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) (" + _VALUE + rb")(?:" + _NAME + rb":" + _VALUE + rb")*+\r\n"
).fullmatch  # a final response

_LINES = (
    rb"(?:(?![CcKkPpTtUu](?i:on(?:tent-length|nection)|eep-alive|roxy-|e:|ransfer-encoding|pgrade:))"
    rb"%b:%b)*+" % (_NAME, _VALUE)
)  # those that say nothing about framing
_LENGTH = rb"(?:[Cc]ontent-[Ll]ength:[ \t]*(0|[1-9][0-9]{0,17})\r\n%b)?" % _LINES
_KEPT = rb"(?:([Cc]onnection:[ \t]*[Kk]eep-[Aa]live\r\n)%b)?" % _LINES
_USUAL = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) %b%b%b%b%b\r\n" % (_VALUE, _LINES, _LENGTH, _KEPT, _LENGTH)).match

_REQUEST_ID = re.compile(rb"(?i)\n(?:x-request-id:[^\n]*\n)+").sub

EXAPP = rb"((?:/(?!exapps/)[A-Za-z0-9_-]+)*+/exapps/([A-Za-z0-9_][A-Za-z0-9_.-]{0,63}))"
_SEGMENT = rb"[A-Za-z0-9_~!$&'()*,=:@-]++"
_PATH = re.compile(rb"%b((?:/%b(?:\.++%b)*+)*+/?)" % (EXAPP, _SEGMENT, _SEGMENT)).fullmatch

NO_LENGTH = -2  # of a request: it says nothing of a body

# Method, path, query (b"" or with its "?"), what follows the target, said, request id, length, keep alive, plain lines.
Cut = tuple[bytes, bytes, bytes, bytes, bytes, bytes, int, bool, bytes]

OF_EACH_REQUEST = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"x-request-id")
)  # special lines that are not `said`


class RequestCutter:
    """Cuts request heads. `special` are the lower-case names of the lines that anybody here looks at.

    A head with more than `most` lines is not ordinary, and neither is one that says a thing twice or something rare
    about the connection or the body.
    """

    __slots__ = ("_cut", "_ordinary")

    def __init__(self, special: Iterable[bytes], most: int) -> None:
        self._ordinary = re.compile(rb"%b( HTTP/1\.1\r\n(?:%b:%b){0,%d}+\r\n)" % (START, _NAME, _VALUE, most)).match
        self._cut = re.compile(rb"\n(%b):([^\r]*)\r" % _any_of({*special, *OF_EACH_REQUEST})).split

    def cut(self, data: bytes, at: int) -> Cut | None:
        """Cut the head that begins at `at`.

        `said` are the special lines that a client repeats from request to request, each as b"name: value" with its
        line end, the name in lower case and the value without outer white space; plain ones are as they came. `length`
        is the body's in bytes, CHUNKED or NO_LENGTH.
        """
        found = self._ordinary(data, at)
        if found is None:
            return None
        method, path, query, raw = found.groups(b"")
        parts = self._cut(raw)  # between the plain ones: name, value, name, value
        names = list(map(bytes.lower, parts[1::3]))
        special = dict(zip(names, map(bytes.strip, parts[2::3]), strict=True))
        if len(special) != len(names) or b"host" not in special:
            return None
        plain = b"".join(parts[::3])[len(VERSION) : -2]
        if OF_EACH_REQUEST.isdisjoint(special):
            request_id, length, keep_alive = b"", NO_LENGTH, True
        else:
            connection = special.pop(b"connection", b"keep-alive").lower()
            size, coding = special.pop(b"content-length", None), special.pop(b"transfer-encoding", None)
            if b"upgrade" in special or connection not in (b"keep-alive", b"close") or not _is_usual(size, coding):
                return None
            length = CHUNKED if coding is not None else NO_LENGTH if size is None else int(size)
            request_id, keep_alive = special.pop(b"x-request-id", b""), connection == b"keep-alive"
        said = b"".join([b"%b: %b\r\n" % line for line in special.items()])
        return method, path, query, raw, said, request_id, length, keep_alive, plain


def _is_usual(size: bytes | None, coding: bytes | None) -> bool:
    """Is this one plain length, or chunked, or neither?"""
    if coding is not None:
        return size is None and coding.lower() == b"chunked"
    return size is None or (size.isdigit() and len(size) <= 18)


def cut_path(path: bytes) -> tuple[str, str, bytes, bytes] | None:
    """Cut a path with an ExApp's id into that, the same in lower case, what is removed, and the target, b"/" at least.

    None: it is not ordinary, so others may read it in another way than it says. Segments are of unreserved characters
    and delimiters, with dots neither first nor last.
    """
    found = _PATH(path)
    if found is None:
        return None
    prefix, name, target = found.groups()
    app = name.decode("ascii")
    return app, app.lower(), prefix, target or b"/"


def cut_response(data: bytes) -> tuple[int, bytes, int, int] | None:
    """Cut the head that `data` begins with, of a final response that says its length at most, and that it is kept.

    Return the status, what goes on to the client (without X-Request-Id, which is ours to give, and the empty line), the
    body's length or UNTIL_CLOSE, and where the head ends.
    """
    usual = _USUAL(data)
    if usual is None:
        return None
    status, length, kept, other = usual.groups()
    if length is None:
        length = other
    elif other is not None:
        return None
    if length is not None and status == b"204":
        return None
    end = usual.end()
    start = data[: end - 2] if kept is None else data[: usual.start(3)] + data[usual.end(3) : end - 2]
    if b"\nx-request-id:" in start.lower():
        start = _REQUEST_ID(b"\n", start)
    return int(status), start, UNTIL_CLOSE if length is None else int(length), end


def _any_of(names: Iterable[bytes]) -> bytes:
    """An expression for any of these lower-case names in any case, that looks at each letter once."""
    rests: dict[bytes, set[bytes]] = {}
    for name in names:
        rests.setdefault(name[:1], set()).add(name[1:])
    ends = rests.pop(b"", None) is not None
    branches = [
        (b"[%b%b]" % (first.upper(), first) if first.isalpha() else re.escape(first)) + _any_of(rest)
        for first, rest in sorted(rests.items())
    ]
    if not branches:
        return b""
    return b"(?:%b)%b" % (b"|".join(branches), b"?" if ends else b"")
