"""Request heads of RFC 9112 as we read them, with every case of the parser comparison that llhttp leaves to us."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import BadRequest
from harp.wire.http import CHUNKED
from harp.wire.requests import RequestHead, RequestReader
from tests.properties import core
from tests.wire.heads import LINES, heads


def request(text: str | bytes, max_headers: int = 20) -> RequestHead:
    """Read a request by a reader that is new, and by one that has seen the same header lines, then the same line."""
    data = text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode("latin-1")
    used = RequestReader(max_headers)
    before = None
    with suppress(BadRequest):
        before = used.read(b"GET /before HTTP/1.1\r\n" + data.partition(b"\r\n")[2])
    try:
        again = [used.read(data, before), used.read(data, before), used.read(data)]
    except BadRequest as error:
        with pytest.raises(BadRequest) as refused:
            RequestReader(max_headers).read(data)
        assert refused.value.status == error.status
        raise
    head = RequestReader(max_headers).read(data)
    for other in again:
        for name in (
            *("method", "path", "query", "minor", "length", "keep_alive", "upgrade"),
            "plain",
            "framing",
            "size",
        ):
            assert getattr(other, name) == getattr(head, name)
        assert other.fields.special == head.fields.special
    return head


def test_a_request_is_read_into_values() -> None:
    head = request("GET /exapps/a/b?x=1&y HTTP/1.1\nHost: cloud\nAccept:  text/html \n\n")
    assert (head.method, head.path, head.query, head.minor) == (b"GET", b"/exapps/a/b", b"?x=1&y", 1)
    assert head.fields.special == [(b"host", b"cloud")]
    assert head.plain == b"Accept:  text/html \r\n"
    assert (head.length, head.keep_alive, head.upgrade) == (0, True, None)


def test_one_parser_reads_request_after_request() -> None:
    parser = RequestReader(20)
    for length in (b"3", b"0", b"7"):
        head = parser.read(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: " + length + b"\r\n\r\n")
        assert head.length == int(length)
    assert parser.read(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n").path == b"/b"


def test_header_lines_that_repeat_are_read_once() -> None:
    reader = RequestReader(20)
    before = reader.read(b"GET /a HTTP/1.1\r\nhost: a\r\naccept: b\r\n\r\n")
    second = reader.read(b"GET /c?d HTTP/1.1\r\nhost: a\r\naccept: b\r\n\r\n", before)
    assert second.raw is before.raw
    assert (second.path, second.query) == (b"/c", b"?d")
    assert reader.read(b"GET /a HTTP/1.0\r\nhost: a\r\naccept: b\r\n\r\n", before).keep_alive is False
    assert reader.read(b"GET /a HTTP/1.1\r\nhost: a\r\naccept: B\r\n\r\n", before).plain == b"accept: B\r\n"


@core
@given(
    st.sampled_from([b"GET", b"PUT", b"MKCOL", b"get", b"CONNECT", b"TRACE", b"\r\nGET", b"G\0T"]),
    st.binary(max_size=12).map(lambda rest: b"/" + rest)
    | st.text('/a.?#%&;"{}|~ \t', max_size=12).map(lambda text: ("/" + text).encode()),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b"  HTTP/1.1", b"", b" HTTP/1.1 ", b"\tHTTP/1.1"]),
)
def test_a_request_line_says_the_same_whether_its_header_lines_are_known_or_not(
    method: bytes, target: bytes, version: bytes
) -> None:
    reader = RequestReader(20)
    rest = b"host: a\r\n\r\n"
    before = reader.read(b"GET /before HTTP/1.1\r\n" + rest)
    outcomes: list[tuple[object, ...]] = []
    for known in (None, before):
        try:
            head = reader.read(b"%b %b%b\r\n%b" % (method, target, version, rest), known)
        except BadRequest as error:
            outcomes.append((error.status,))
        else:
            outcomes.append((head.method, head.path, head.query, head.minor))
    assert outcomes[0] == outcomes[1]


def meaning(read: Callable[[], RequestHead]) -> object:
    """All that a head says; of plain lines what others read in them."""
    try:
        head = read()
    except BadRequest as error:
        return error.status
    fields = head.fields
    lines = [line.partition(b":") for line in head.plain.split(b"\r\n")[:-1]]
    return (
        *(head.method, head.path, head.query, head.minor, head.length, head.keep_alive, head.upgrade),
        *(fields.host, fields.special, fields.found, head.framing, head.request_id),
        [(name.lower(), value.strip(b" \t")) for name, _, value in lines],
    )


@core
@given(heads(), LINES)
def test_expressions_read_a_head_as_it_is_read_line_by_line(data: bytes, others: list[bytes]) -> None:
    reader = RequestReader(6, frozenset({b"x-hop"}))
    careful = meaning(lambda: reader.read_any(data))
    assert meaning(lambda: reader.read(data)) == careful
    rest = data.partition(b"\r\n")[2]
    for lines in (rest, b"\r\n".join([*others, b"", b""])):  # of the request before, the same ones or others
        with suppress(BadRequest):
            before = reader.read(b"GET /before HTTP/1.1\r\n" + lines)
            assert meaning(lambda known=before: reader.read(data, known)) == careful  # type: ignore[misc]


@given(heads(), heads())
def test_a_head_ends_where_its_first_empty_line_does(data: bytes, more: bytes) -> None:
    reader = RequestReader(6)
    found = reader.read_ordinary(more + data + more, len(more))
    assert found is None or found.size == len(data)


def test_a_head_shows_neither_query_nor_headers() -> None:
    head = request("GET /a?token=secret HTTP/1.1\nHost: a\nCookie: secret\n\n")
    assert repr(head) == "RequestHead(b'GET', b'/a')"


def test_the_last_value_of_a_repeated_header_is_got() -> None:
    assert request("GET / HTTP/1.1\nHost: a\nX: 1\nX: 2\n\n").get(b"x") == b"2"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close\n", False),
        ("1.1", "Connection: foo, CLOSE\n", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive\n", True),
        ("1.0", "Connection: keep-alive, close\n", False),
    ],
)
def test_persistence_follows_version_and_connection_header(version: str, connection: str, kept: bool) -> None:
    assert request(f"GET / HTTP/{version}\nHost: a\n{connection}\n").keep_alive is kept


def test_bytes_beyond_ascii_pass_in_header_values() -> None:
    head = request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: J\xf6rg \xe2\x82\xac\r\n\r\n")
    assert head.get(b"x-name") == b"J\xf6rg \xe2\x82\xac"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "REPORT"])
def test_methods_that_exapps_use_are_read(method: str) -> None:
    assert request(f"{method} / HTTP/1.1\nHost: a\n\n").method == method.encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 3\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 3\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3, 3\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 18446744073709551619\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 9223372036854775807\n\n", "number of bytes"),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: +3\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3 4\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: \n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, chunked\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\n\n", ""),
        ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: \x0bchunked\n\n", ""),
        ("POST / HTTP/1.0\nHost: a\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n", "in HTTP/1.0"),
        ("GET / HTTP/1.1\n\n", "no Host"),
        ("GET / HTTP/1.1\nHost: a\nHost: b\n\n", "more than one Host"),
        ("GET / HTTP/1.1\nHost: a\nHost: a\n\n", "more than one Host"),
        ("GET / HTTP/1.1\nHost: a b\n\n", "Host header"),
        ("GET / HTTP/1.1\nHost: a/b\n\n", "Host header"),
        ("GET / HTTP/1.1\nHost: user@a\n\n", "Host header"),
        ("GET / HTTP/1.1\nHost: a:8x\n\n", "Host header"),
        ("GET http://b/x HTTP/1.1\nHost: a\n\n", "not that of the Host header"),
        ("GET ftp://a/x HTTP/1.1\nHost: a\n\n", ""),
        ("GET /a\n\n", ""),
        ("GET / HTTP/1.2\nHost: a\n\n", ""),
        ("GET / HTTP/3.0\nHost: a\n\n", ""),
        ("GET / HTTP/2.0\nHost: a\n\n", ""),
        ("GET / HTP/1.1\nHost: a\n\n", ""),
        ("GET / HTTP/1.1 \nHost: a\n\n", ""),
        ("GET\t/ HTTP/1.1\nHost: a\n\n", ""),
        ("get / HTTP/1.1\nHost: a\n\n", ""),
        ("GET  / HTTP/1.1\nHost: a\n\n", ""),
        ("GET /a b HTTP/1.1\nHost: a\n\n", ""),
        ("GET /a#b HTTP/1.1\nHost: a\n\n", ""),
        ("GET /\xe4 HTTP/1.1\nHost: a\n\n", ""),
        ("GET * HTTP/1.1\nHost: a\n\n", ""),
        ("OPTIONS * HTTP/1.1\nHost: a\n\n", "not a path"),
        ("CONNECT a:443 HTTP/1.1\nHost: a\n\n", "CONNECT"),
        ("FOOBAR / HTTP/1.1\nHost: a\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\nX: 1\n 2\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\nX: 1\n\t2\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\n X: 1\n\n", ""),
        ("GET / HTTP/1.1\nHost : a\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\nX Y: 1\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\n: 1\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\nX\n\n", ""),
        ("GET / HTTP/1.1\nHost: a\nX: a\x00b\n\n", ""),
    ],
)
def test_an_ambiguous_or_broken_request_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason or None):
        request(text)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\rb\r\nHost: a\r\n\r\n",
    ],
)
def test_a_bare_cr_or_lf_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        request(raw)


def test_too_many_headers_are_431() -> None:
    with pytest.raises(BadRequest, match="3 header lines, limit 2") as refused:
        request("GET / HTTP/1.1\nHost: a\nX: 1\nY: 2\n\n", max_headers=2)
    assert refused.value.status == 431


def test_http_1_0_may_leave_out_the_host() -> None:
    assert request("GET / HTTP/1.0\n\n").minor == 0


@pytest.mark.parametrize("host", ["cloud", "cloud.example:8443", "[::1]", "[2001:db8::1]:80", "127.0.0.1:1", "a_b"])
def test_hosts_of_every_shape_are_taken(host: str) -> None:
    assert request(f"GET / HTTP/1.1\nHost: {host}\n\n").get(b"host") == host.encode()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://a/x/y?z", b"/x/y", b"?z"),
        ("HTTP://a", b"/", b""),
        ("http://a?z", b"/", b"?z"),
        ("https://A/x", b"/x", b""),
    ],
)
def test_an_absolute_target_is_its_path_when_the_host_agrees(target: str, path: bytes, query: bytes) -> None:
    head = request(f"GET {target} HTTP/1.1\nHost: a\n\n")
    assert (head.path, head.query) == (path, query)


def test_a_chunked_request_is_told_from_one_with_a_length() -> None:
    assert request("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: CHUNKED\n\n").length == CHUNKED
    assert request("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\n").length == 5


def test_an_offered_websocket_is_an_upgrade() -> None:
    head = request("GET / HTTP/1.1\nHost: a\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n\n")
    assert head.upgrade == b"websocket"


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\n",
        "Connection: close\nUpgrade: websocket\n",
        "Upgrade: websocket\n",
        "Connection: upgrade\nUpgrade: TLS/1.0\n",
        "Connection: upgrade\nUpgrade: websocket, h2c\n",
    ],
)
def test_other_upgrades_are_not_relayed(lines: str) -> None:
    assert request(f"GET / HTTP/1.1\nHost: a\n{lines}\n").upgrade is None


def test_the_body_of_a_request_that_offers_h2c_is_not_lost() -> None:
    parser = RequestReader(20)
    head = parser.read(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    )
    assert (head.length, head.upgrade) == (5, None)
    assert parser.read(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n").path == b"/next"


@pytest.mark.parametrize("start", [b"\n", b"\n\n", b"\r", b"\r\r\n", b" ", b"\t"])
def test_a_request_begins_with_its_method(start: bytes) -> None:
    reader = RequestReader(20)
    for _ in range(2):
        with pytest.raises(BadRequest):
            reader.read(start + b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("remembers", [True, False])
def test_what_clients_repeat_is_known_to_a_reader_that_remembers(remembers: bool) -> None:
    reader = RequestReader(20, remembers=remembers)
    said = [reader.read(b"GET /%d HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\n\r\n" % n).fields for n in range(2)]
    assert (said[0] is said[1]) == remembers
    assert said[0].special == said[1].special
