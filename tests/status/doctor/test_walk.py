"""The walk through the public URL, past fronts that are in order and fronts with one fault each."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trustme
from msgspec.structs import replace

from harp.policy.paths import NO_APP
from harp.settings import load
from harp.status.doctor.report import Finding
from harp.status.doctor.walk import walk
from tests.status.doctor.front import (
    DoctorsFront,
    FrontRequest,
    Step,
    answers,
    hangs_up,
    hello,
    seen_by,
    speaks_something_else,
)

PROXIES = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"}).proxies
NONCE = "0123456789abcdef"
LATER = ["road.prefix", "road.address", "road.websocket", "road.body", "road.stream"]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def findings(url: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in walk(url, NONCE, PROXIES)}


def fault(check: str, **steps: Step) -> Finding:
    """The finding of one check of a front whose other steps are in order."""
    with DoctorsFront(tls=None, **steps) as front:
        found = findings(front.url)
    assert [one.check for one in found.values() if one.state == "failed"] == [check]
    assert found[check].fix
    return found[check]


def test_a_front_in_order_has_no_fault() -> None:
    with DoctorsFront() as front:
        found = findings(front.url)
    assert {one.state for one in found.values()} == {"ok"}
    assert set(LATER) < set(found)


# To the front


def test_a_name_that_cannot_be_one_and_a_port_where_nobody_listens_are_told_and_the_rest_is_skipped() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for url, cause in (
            ("http://cloud..example", "the name cloud..example does not resolve: it is not a host name"),
            (f"http://127.0.0.1:{port}", f"127.0.0.1:{port} cannot be reached: Connection refused"),
        ):
            found = findings(url)
            assert found["road.reach"].cause == cause
            assert [found[check].state for check in ("road.arrives", *LATER)] == ["skipped"] * 6


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The only CA of this system."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # where OpenSSL looks for them
    return authority


def served_with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    return tls


def test_a_trusted_certificate_is_in_order_and_one_that_ends_soon_is_a_warning(authority: trustme.CA) -> None:
    for certificate, state in (
        (authority.issue_cert("localhost", not_after=NOW + 90 * DAY), "ok"),
        (authority.issue_cert("localhost", not_after=NOW + 5 * DAY), "warning"),
    ):
        with DoctorsFront(tls=served_with(certificate)) as front:
            found = findings(front.url)
        assert found["road.tls"].state == state
        assert found["road.stream"].state == "ok"


def test_each_fault_of_a_certificate_has_its_own_words_and_the_walk_goes_on(authority: trustme.CA) -> None:
    for certificate, words in (
        (authority.issue_cert("localhost", not_before=NOW - 9 * DAY, not_after=NOW - DAY), "has expired"),
        (authority.issue_cert("localhost", not_before=NOW + DAY, not_after=NOW + 9 * DAY), "is not valid yet"),
        (authority.issue_cert("other.example"), "the certificate is not for localhost"),
        (trustme.CA().issue_cert("localhost"), "is not trusted: unable to get local issuer certificate"),
    ):
        with DoctorsFront(tls=served_with(certificate)) as front:
            found = findings(front.url)
        assert found["road.tls"].state == "failed"
        assert words in found["road.tls"].cause
        assert found["road.stream"].state == "ok"


def test_https_to_a_port_that_speaks_http_is_a_fault_of_tls() -> None:
    with DoctorsFront(hello=hangs_up) as front:
        found = findings(front.url.replace("http:", "https:"))
    assert found["road.tls"].state == "failed"
    assert found["road.arrives"].state == "failed"


# To HaRP


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (answers(200, b"<html>Nextcloud</html>"), "is not forwarded to HaRP: somebody else answers 200"),
        (answers(404, b"not here"), "is not forwarded to HaRP: somebody else answers 404"),
        (answers(502, b"bad gateway"), "the reverse proxy answers 502"),
        (answers(404, b"404\nrequest id: 1", x_request_id="1"), "leads to another HaRP than this one"),
        (answers(429, b"429\nrequest id: 1", x_request_id="1"), "HaRP has banned the address"),
        (answers(404, NO_APP.encode() + b"\nrequest id: 1", x_request_id="1"), "/exapps/app_api is missing"),
        (speaks_something_else, "it does not speak HTTP"),
    ],
)
def test_a_request_that_does_not_arrive_tells_whom_it_has_met(step: Step, cause: str) -> None:
    found = fault("road.arrives", hello=step)
    assert cause in found.cause


def test_a_member_that_hears_of_the_walk_a_moment_later_is_no_other_harp() -> None:
    steps = iter([answers(404, b"404\nrequest id: 1", x_request_id="1")])

    def late(request: FrontRequest) -> None:
        next(steps, hello)(request)

    with DoctorsFront(hello=late) as front:
        assert {one.state for one in findings(front.url).values()} == {"ok"}


def test_a_redirect_is_followed_to_where_nextcloud_really_is() -> None:
    with DoctorsFront() as front, DoctorsFront(hello=lambda request: moved(request, front.url)) as moved_away:
        found = findings(moved_away.url)
    assert found["road.arrives"].state == "ok"
    assert found["road.stream"].state == "ok"


def moved(request: FrontRequest, url: str) -> None:
    request.say(301, location=f"{url}{request.path}")


def test_a_stripped_prefix_is_told_by_the_path_that_arrives() -> None:
    def stripped(request: FrontRequest) -> None:
        seen = seen_by(request)
        request.say(200, msgspec.json.encode(replace(seen, path=seen.path.removeprefix("/exapps"))))

    assert "HaRP gets /app_api/... for /exapps/app_api/..." in fault("road.prefix", hello=stripped).cause


# What passes


def not_echoed(request: FrontRequest) -> None:
    request.send_response(101)
    request.end_headers()
    request.wfile.write(b"\x81\x04what")


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (answers(426), "the request arrives without its Upgrade header"),
        (answers(400), "the request for a WebSocket is answered with 400"),
        (not_echoed, "a WebSocket opens, and no message comes back"),
        (hangs_up, "the step websocket broke: "),
    ],
)
def test_websockets_that_do_not_pass_are_told_by_what_happens(step: Step, cause: str) -> None:
    assert cause in fault("road.websocket", websocket=step).cause


def takes_up_to(limit: int) -> Step:
    def step(request: FrontRequest) -> None:
        size = int(request.headers["Content-Length"])
        if size > limit:
            request.say(413, b"too large")
        elif request.announced():
            request.send_response_only(100)
            request.end_headers()
        else:
            request.say(200, b'{"bytes": %d}' % len(request.rfile.read(size)))

    return step


@pytest.mark.parametrize(
    ("limit", "words"), [(1 << 20, "up to 1 MB passes"), (150 << 10, "up to 100 kB passes"), (9, "not even 100 kB")]
)
def test_a_limit_on_bodies_is_found_without_sending_them(limit: int, words: str) -> None:
    assert words in fault("road.body", body=takes_up_to(limit)).cause


def test_a_limit_that_large_uploads_of_files_may_meet_is_a_warning() -> None:
    with DoctorsFront(body=takes_up_to(200 << 20)) as front:
        found = findings(front.url)
    assert (found["road.body"].state, "up to 100 MB" in found["road.body"].cause) == ("warning", True)


def announced_or(then: Step) -> Step:
    """Takes what is announced, and answers like this when it comes."""

    def step(request: FrontRequest) -> None:
        if request.announced():
            request.send_response_only(100)
            request.end_headers()
        else:
            request.rfile.read(int(request.headers["Content-Length"]))
            then(request)

    return step


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (answers(413), "a body of 3 MB is answered with 413"),
        (answers(500), "a body of 3 MB is answered with 500"),
        (answers(200, b'{"bytes": 7}'), 'HaRP gets {"bytes": 7}'),
    ],
)
def test_a_body_that_does_not_arrive_whole_is_a_fault(step: Step, cause: str) -> None:
    assert cause in fault("road.body", body=announced_or(step)).cause


@pytest.mark.waits
def test_an_answer_that_comes_only_when_it_has_ended_is_a_fault() -> None:
    def buffered(request: FrontRequest) -> None:
        request.server.front.released.wait(10)
        request.say(200, b"data: first\n\ndata: second\n\ndata: third\n\n")

    assert "the reverse proxy buffers it" in fault("road.stream", events=buffered).cause


def test_events_that_are_refused_are_told_with_the_status() -> None:
    assert "it answers 503" in fault("road.stream", events=answers(503)).cause
