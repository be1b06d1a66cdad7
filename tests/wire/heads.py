"""Heads of requests that are nearly right, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

SPECIAL_LINES = [
    *(b"Host: a", b"host:a", b"HOST: cloud.example:8080 ", b"Host: a b", b"Host:", b"Host: [::1]:80"),
    *(b"Connection: keep-alive", b"connection: Close", b"Connection: close, x-hop", b"Connection: upgrade"),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"TE: trailers", b"Keep-Alive: timeout=5", b"Proxy-Connection: close"),
    *(b"Content-Length: 5", b"content-length:0", b"Content-Length: 05", b"Content-Length: 5, 5", b"Content-Length: -1"),
    *(b"Content-Length: 9223372036854775807", b"Content-Length:", b"Transfer-Encoding: chunked"),
    *(b"transfer-encoding: Chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked"),
    *(b"Cookie: a=b; oc_sessionPassphrase=c", b"cookie:", b"Authorization: Basic x", b"authorization_app_api: x"),
    *(b"X-Forwarded-For: 1.2.3.4, 5.6.7.8", b"x-forwarded-for: \t1.1.1.1", b"X_Forwarded_For: 9.9.9.9"),
    *(b"X-Request-Id: 1", b"X-Request-Ids: 1", b"EX-APP-ID: a", b"Ex-App-Idx: a", b"aa-version: 3", b"aa-versio: 3"),
]
PLAIN_LINES = [
    b"Accept: */*",
    b"X-A:",
    b"x-a:  two words\t",
    b"Accept-Language: en",
    b"X: J\xf6rg",
    b"X-Hop: 1",
    b"X_Y: 1",
]
STARTS = [
    *(b"GET / HTTP/1.1", b"GET /a/b?c=d&e HTTP/1.1", b"POST /a HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1"),
    *(b"GET / HTTP/1.0", b"GET /a%20b?#c HTTP/1.1", b'GET /"a" HTTP/1.1', b"OPTIONS * HTTP/1.1", b"MKCOL /a HTTP/1.1"),
    *(
        b"GET http://a/b HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET /?a?b[]|{} HTTP/1.1",
        b"PRI * HTTP/2.0",
    ),
]
LINES = st.lists(
    st.sampled_from(SPECIAL_LINES[:3]) | st.sampled_from(SPECIAL_LINES) | st.sampled_from(PLAIN_LINES), max_size=7
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads that are nearly right, some with a byte changed, added or taken away."""
    data = b"\r\n".join([draw(st.sampled_from(STARTS)), *draw(LINES), b"", b""])
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 5))
        data = data[:at] + draw(st.binary(max_size=2) | st.sampled_from(BYTES)) + data[at + draw(st.integers(0, 2)) :]
    end = data.find(b"\r\n\r\n")
    return data[: end + 4] if end >= 0 else b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


BYTES = [b"\r", b"\n", b"\r\n", b"\0", b"\x7f", b"\t", b" ", b":", b"_", b"\r\n ", b"\x0b", b"\xff"]

RESPONSE_LINES = st.sampled_from(
    [
        *(
            b"Content-Length: 5",
            b"content-length:0",
            b"Content-length: \t12",
            b"CONTENT-LENGTH: 5",
            b"Content-Length: 5 ",
        ),
        *(b"Content-Length: 05", b"Content-Length:", b"Content-Length: 1234567890123456789", b"Content-Length-X: 1"),
        *(
            b"Connection: keep-alive",
            b"connection:Keep-Alive",
            b"Connection: close",
            b"X-Request-Id: 7",
            b"x-request-id:",
            b"Connections: 1",
            b"Konnection: 1",
        ),
        *(b"Keep-Alive: timeout=5", b"keep-alives: 1", b"TE: x", b"ke: x", b"tea: x", b"Upgrade: h2c", b"Upgrades: x"),
        *(b"Transfer-Encoding: chunked", b"transfer-encodings: x", b"Proxy-Authenticate: x", b"Proxy: x", b"X_Y: 1"),
        *(b"Date: Sat, 28 Nov 2026 13:00:00 GMT", b'ETag: "a"', b"X-Empty:", b"x: J\xf6rg\t", b"Content-Type: a/b"),
    ]
)
STATUSES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 101 X"]
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Heads of responses that are nearly right, with something of a body."""
    lines = draw(st.lists(RESPONSE_LINES, max_size=6))
    data = b"\r\n".join([draw(STATUSES), *lines, b"", draw(st.sampled_from([b"", b"\r\nbody", b"\r\n\r\n"]))])
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2) | st.sampled_from(BYTES)) + data[at + draw(st.integers(0, 2)) :]
    return data
