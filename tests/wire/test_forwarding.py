"""What goes on to the next hop, and what stays here (RFC 9110 section 7.6, A 2.6)."""

from __future__ import annotations

import pytest

from harp.errors import BadRequest
from harp.wire.forwarding import control_head, passing_lines, request_head, trailers_to_pass
from harp.wire.requests import RequestReader

ADDED = b"ex-app-id: hello\r\n"


def forwarded(lines: bytes, target: bytes = b"/x", *, control: bool = False) -> list[bytes]:
    data = b"GET /exapps/hello/x?q=1 HTTP/1.1\r\nHost: cloud\r\n" + lines + b"\r\n"
    head = RequestReader(50).read(data)
    if control:
        return control_head(head, target, b"1.1.1.1", b"7").split(b"\r\n")
    return request_head(head, target, passing_lines(head.fields), ADDED, b"7").split(b"\r\n")


def test_method_target_query_and_lines_go_on() -> None:
    assert forwarded(b"Accept: */*\r\nX-Two: 2\r\n") == [
        b"GET /x?q=1 HTTP/1.1",
        b"host: cloud",
        b"Accept: */*",
        b"X-Two: 2",
        b"ex-app-id: hello",
        b"x-request-id: 7",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic xyz",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"Harp-Shared-Key: secret",
        b"EX-APP-ID: other",
        b"EX-APP-HOST: 10.0.0.1",
        b"EX-APP-PORT: 1",
        b"EX-APP-VERSION: 9",
        b"Docker-Engine-Port: 24000",
        b"AUTHORIZATION-APP-API: forged",
        b"AA-VERSION: 99",
        b"authorization_app_api: forged",
        b"Ex_App-Id: forged",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-Prefix: /evil",
        b"X-Request-Id: 1",
        b"AA-Request-Id: 1",
        b"X-Origin-IP: 1.2.3.4",
        b"X-Forwarded-Port: 1",
        b"X-Forwarded-SSL: on",
        b"X_Forwarded-Server: evil",
        b"Proxy: http://evil",
        b"X_Forwarded_For: 1.2.3.4",
        b"X-Forwarded_Prefix: /evil",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"Keep_Alive: timeout=5",
    ],
)
def test_hop_by_hop_and_reserved_headers_stay_here(line: bytes) -> None:
    assert forwarded(line + b"\r\n") == [
        b"GET /x?q=1 HTTP/1.1",
        b"host: cloud",
        b"ex-app-id: hello",
        b"x-request-id: 7",
        b"",
        b"",
    ]


@pytest.mark.parametrize("line", [b"cookie: a=b", b"authorization: Basic x", b"x-forwarded-custom: 7", b"x_custom: 1"])
def test_everything_else_goes_on(line: bytes) -> None:
    assert line in forwarded(line + b"\r\n")


def test_headers_named_by_connection_stay_here_but_no_end_to_end_ones() -> None:
    lines = forwarded(b"Connection: X-Hop, cookie\r\nX-Hop: 1\r\nCookie: a=b\r\n")
    assert b"x-hop: 1" not in lines
    assert b"cookie: a=b" in lines


def test_connection_names_as_many_headers_as_anybody_needs() -> None:
    lines = forwarded(
        b"Connection: %b\r\n%b"
        % (
            b", ".join([b"x-%d" % number for number in range(64)]),
            b"".join([b"X-%d: 1\r\n" % number for number in range(0, 70, 10)]),
        )
    )
    assert lines[2] == b"ex-app-id: hello"


@pytest.mark.parametrize("lines", [b"Connection: " + b"a," * 64 + b"a", (b"Connection: " + b"a," * 32 + b"a\r\n") * 2])
def test_a_connection_header_with_more_options_is_refused(lines: bytes) -> None:
    with pytest.raises(BadRequest, match="64 options"):
        forwarded(lines.removesuffix(b"\r\n") + b"\r\n")


def test_a_websocket_offer_is_made_again() -> None:
    lines = forwarded(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n")
    assert lines[-6:-3] == [b"connection: upgrade", b"upgrade: websocket", b"ex-app-id: hello"]


def test_a_chunked_body_is_announced_and_a_length_kept() -> None:
    assert b"transfer-encoding: chunked" in forwarded(b"Transfer-Encoding: chunked\r\n")
    assert b"content-length: 5" in forwarded(b"Content-Length: 5\r\n")


def test_a_request_without_host_gets_one() -> None:
    head = RequestReader(9).read(b"GET / HTTP/1.0\r\n\r\n")
    assert passing_lines(head.fields) == b"host: localhost\r\n"


def test_the_control_api_learns_the_engine_and_no_credential() -> None:
    lines = forwarded(
        b"Docker-Engine-Port: 24001\r\nAuthorization: Basic x\r\nHarp-Shared-Key: k\r\nCookie: c=1\r\n", control=True
    )
    assert lines == [
        b"GET /x?q=1 HTTP/1.1",
        b"host: cloud",
        b"docker-engine-port: 24001",
        b"x-forwarded-for: 1.1.1.1",
        b"x-request-id: 7",
        b"",
        b"",
    ]


def test_trailers_cannot_bring_what_headers_may_not() -> None:
    trailers = [(b"x-checksum", b"1"), (b"ex-app-id", b"x"), (b"content-length", b"9"), (b"host", b"evil")]
    assert trailers_to_pass(trailers) == [(b"x-checksum", b"1")]


@pytest.mark.parametrize(
    "name",
    [
        *(b"transfer-encoding", b"host", b"max-forwards", b"cache-control", b"expect", b"range", b"te", b"if-match"),
        *(
            b"if-none-match",
            b"authorization",
            b"www-authenticate",
            b"set-cookie",
            b"cookie",
            b"age",
            b"expires",
            b"date",
        ),
        *(b"location", b"retry-after", b"vary", b"content-encoding", b"content-type", b"content-range", b"trailer"),
        *(b"content-length", b"content_type", b"content-security-policy", b"x-forwarded-for", b"aa-request-id"),
        *(b"access-control-allow-origin", b"accept-encoding", b"proxy-authorization", b"connection", b"upgrade"),
    ],
)
def test_what_rfc_9110_forbids_in_trailers_does_not_go_on(name: bytes) -> None:
    assert trailers_to_pass([(name, b"1")]) == []


@pytest.mark.parametrize("name", [b"content-digest", b"etag", b"server-timing", b"grpc-status", b"x-checksum"])
def test_what_is_known_only_after_the_content_goes_on(name: bytes) -> None:
    assert trailers_to_pass([(name, b"1")]) == [(name, b"1")]


def test_identity_is_not_read_from_trailers_in_any_spelling() -> None:
    forged = [(b"ex_app_id", b"other"), (b"Authorization-App_Api".lower(), b"forged"), (b"x_forwarded_for", b"1.2.3.4")]
    assert trailers_to_pass([*forged, (b"x-sum", b"1")]) == [(b"x-sum", b"1")]
