"""Ordinary heads of HTTP/1.1 and paths of ExApps, cut by expressions that every byte of them has to fit.

None means: not ordinary, or not complete. Then `harp.wire.requests` and `harp.wire.responses` read line by line.
The optional package `appapi-harp-core` (the folder core/) has the same in compiled form, in use where it is
installed; a property test says that they are equal to these on every input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import itemgetter

from harp.recent import remember
from harp.wire.http import CHUNKED, UNTIL_CLOSE


def _any_of(names: Iterable[bytes]) -> bytes:
    """Alternatives for these lower-case names in any case, that look at each letter once.

    First letters are written out, as `re` passes over an alternative whose first letter is another one: most lines are
    none of these.
    """
    return b"|".join(
        [letter + _rest_of(rests) for first, rests in _by_first(names) for letter in sorted({first, first.upper()})]
    )


def _rest_of(names: set[bytes]) -> bytes:
    begin = b""
    while len(branches := _by_first(names - {b""})) == 1 and b"" not in names:
        first, names = branches[0]
        begin += first
    either = b"|".join([b"[%b%b]%b" % (first.upper(), re.escape(first), _rest_of(rests)) for first, rests in branches])
    spelt = b"(?i:%b)" % re.escape(begin) if begin else b""
    return b"%b(?:%b)%b" % (spelt, either, b"?" if b"" in names else b"") if either else spelt


def _by_first(names: Iterable[bytes]) -> list[tuple[bytes, set[bytes]]]:
    """First letters, and what follows each."""
    rests: dict[bytes, set[bytes]] = {}
    for name in names:
        rests.setdefault(name[:1], set()).add(name[1:])
    return sorted(rests.items())


# Names with "_" are not ordinary: CGI-style servers cannot tell it from "-".
_NAME = rb"[!#$%&'*+.^`|~0-9A-Za-z-]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"
START = (
    rb"(GET|POST|HEAD|PUT|DELETE|OPTIONS|PATCH|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE|LOCK|UNLOCK|REPORT|SEARCH)"
    rb" (/[A-Za-z0-9/._~%=&+,:;@!$'()*-]*+)(\?[A-Za-z0-9/?._~%=&+,:;@!$'()*\[\]|-]*+)?+"
)
VERSION = b" HTTP/1.1\r\n"
_LINES_BEGIN = len(VERSION)
ORDINARY = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) (" + _VALUE + rb")(?:" + _NAME + rb":" + _VALUE + rb")*+\r\n"
).fullmatch  # a final response

# What begins with one of these letters and goes on like this may say something about framing.
_FRAMING = rb"[CcKkPpTtUu]" + _rest_of(
    {b"ontent-length", b"onnection", b"eep-alive", b"roxy-", b"e:", b"ransfer-encoding", b"pgrade:"}
)
_LINES = rb"(?:(?!%b)%b:%b)*+" % (_FRAMING, _NAME, _VALUE)  # those that do not
_LENGTH = rb"(?:[Cc]ontent-[Ll]ength:[ \t]*(0|[1-9][0-9]{0,17})\r\n%b)?" % _LINES
_KEPT = rb"(?:[Cc]onnection:[ \t]*[Kk]eep-[Aa]live\r\n%b)?" % _LINES
_USUAL = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) %b%b%b%b%b\r\n" % (_VALUE, _LINES, _LENGTH, _KEPT, _LENGTH)).match

_ONWARD = re.compile(rb"\n(?:[Cc]onnection|[Xx](?i:-request-id)):[^\n]*").split  # around what does not go on

EXAPP = rb"((?:/(?!exapps/)[A-Za-z0-9_-]+)*+/exapps/([A-Za-z0-9_][A-Za-z0-9_.-]{0,63}))"
_SEGMENT = rb"[A-Za-z0-9_~!$&'()*,=:@-]++"
_PATH = re.compile(rb"%b((?:/%b(?:\.++%b)*+)*+/?)" % (EXAPP, _SEGMENT, _SEGMENT)).fullmatch

NO_LENGTH = -2  # of a request: it says nothing of a body

# Method, path, query (b"" or with its "?"), what follows the target, said, request id, length, keep alive, plain lines.
Cut = tuple[bytes, bytes, bytes, bytes, bytes, bytes, int, bool, bytes]

OF_EACH_REQUEST = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"x-request-id")
)  # special lines that are not `said`
_TWO_LENGTHS = {b"content-length", b"transfer-encoding"}

LAST = -1  # place after the last special line
KNOWN = 512  # orders of special lines


class SpecialLines:
    """The names of a head's special lines, in the order in which clients send them again and again: what they say.

    A line that is not there has the place LAST, where an empty value stands for it.
    """

    __slots__ = ("_coding", "_connection", "_length", "bare", "request_id", "said", "those_said")

    def __init__(self, names: Sequence[bytes]) -> None:
        """Take names in lower case, with a host, none of them twice."""
        said = [place for place, name in enumerate(names) if name not in OF_EACH_REQUEST]
        self.said = b"".join([names[place].replace(b"%", b"%%") + b": %b\r\n" for place in said])
        self.those_said = itemgetter(*said)
        self.request_id = _place(names, b"x-request-id")
        self._connection = _place(names, b"connection")
        self._length = _place(names, b"content-length")
        self._coding = _place(names, b"transfer-encoding")
        self.bare = self._connection == self._length == self._coding == LAST  # nothing about connection and body

    def framing(self, values: Sequence[bytes]) -> tuple[int, bool] | None:
        """Length of the body, and whether the connection is kept. None: not ordinary."""
        length, keep_alive = NO_LENGTH, True
        if self._length != LAST:
            size = values[self._length]
            if not size.isdigit() or len(size) > 18:
                return None
            length = int(size)
        elif self._coding != LAST:
            if values[self._coding].lower() != b"chunked":
                return None
            length = CHUNKED
        if self._connection != LAST:
            connection = values[self._connection].lower()
            keep_alive = connection == b"keep-alive"
            if not keep_alive and connection != b"close":
                return None
        return length, keep_alive


def _place(names: Sequence[bytes], name: bytes) -> int:
    return names.index(name) if name in names else LAST


class RequestCutter:
    """Cuts request heads. `special` are the lower-case names of the lines that anybody here looks at.

    A head with more than `most` lines is not ordinary, and neither is one that says a thing twice or something rare
    about the connection or the body.
    """

    __slots__ = ("_cut", "_known", "_ordinary")

    def __init__(self, special: Iterable[bytes], most: int) -> None:
        self._ordinary = re.compile(rb"%b( HTTP/1\.1\r\n(?:%b:%b){0,%d}+\r\n)" % (START, _NAME, _VALUE, most)).match
        self._cut = re.compile(rb"\n(%b):[ \t]*+([^\r]*)\r" % _any_of({*special, *OF_EACH_REQUEST})).split
        self._known: dict[tuple[bytes, ...], SpecialLines] = {}

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
        parts = self._cut(raw)  # plain lines, name, value, plain lines, name, value, plain lines
        names = tuple(parts[1::3])
        lines = self._known.get(names) or self._read_names(names)
        if lines is None:
            return None
        values = list(map(bytes.strip, parts[2::3]))
        said = lines.said % lines.those_said(values)
        plain = b"".join(parts[::3])[_LINES_BEGIN:-2]
        values.append(b"")
        if lines.bare:
            return method, path, query, raw, said, values[lines.request_id], NO_LENGTH, True, plain
        framing = lines.framing(values)
        if framing is None:
            return None
        length, keep_alive = framing
        return method, path, query, raw, said, values[lines.request_id], length, keep_alive, plain

    def _read_names(self, names: tuple[bytes, ...]) -> SpecialLines | None:
        """What these names say together; None: they are not ordinary."""
        lower = list(map(bytes.lower, names))
        met = set(lower)
        if len(met) != len(lower) or b"host" not in met or b"upgrade" in met or met >= _TWO_LENGTHS:
            return None
        lines = SpecialLines(lower)
        remember(self._known, names, lines, KNOWN)
        return lines


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
    status, length, other = usual.groups()
    if length is None:
        length = other
    elif other is not None:
        return None
    if length is not None and status == b"204":
        return None
    end = usual.end()
    start = b"".join(_ONWARD(data[: end - 2]))
    return int(status), start, UNTIL_CLOSE if length is None else int(length), end
