"""Requests that carry the shared key and the six headers of AppAPI."""

from __future__ import annotations

from base64 import b64decode

import pytest

from harp.policy.exapp import ExApp, Level, RecordFact, Route, UnknownApp
from harp.policy.verdict import NeedRecord, Refuse
from tests.policy.decide_facts import (
    DOWN,
    HELLO,
    KEY,
    SESSION,
    SIGNED,
    WRONG_KEY,
    Facts,
    answer,
    ask,
    forwarded,
    refused,
)

# Step 6: signed requests


def test_a_signed_request_with_a_wrong_key_is_401_and_a_strike() -> None:
    headers = [header if header is not KEY else WRONG_KEY for header in SIGNED]
    assert answer(refused(b"/exapps/hello/public", *headers)) == (401, True)


def test_a_signed_request_passes_without_routes_and_visitor_and_keeps_its_authorization() -> None:
    verdict = forwarded(b"/exapps/hello/anything/at/all", *SIGNED, SESSION)
    assert verdict.signed
    assert verdict.route is None
    assert verdict.authorization == b"Ym9iOnNlY3JldA=="
    assert verdict.aa_version == b"34.0.1"


def test_the_record_takes_precedence_over_the_headers_of_a_signed_request() -> None:
    assert forwarded(b"/exapps/hello/init", *SIGNED).record is HELLO


@pytest.mark.parametrize("fact", [UnknownApp(), DOWN])
def test_a_signed_request_brings_its_own_record_when_nextcloud_has_none(fact: RecordFact) -> None:
    record = forwarded(b"/exapps/hello/init", *SIGNED, facts=Facts({"hello": fact})).record
    assert (record.host, record.port, record.version, record.token) == ("10.0.0.9", 9999, "9.9.9", "")


@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost", b"::1", b"[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("port", [b"24000", b"24001", b"8200", b"2375"])
def test_a_signed_request_reaches_no_engine_no_listener_of_ours_and_no_stranger_on_loopback(
    host: bytes, port: bytes
) -> None:
    where = [(b"ex-app-host", host), (b"ex-app-port", port)]
    facts = Facts({"noneexist": UnknownApp()})
    verdict = ask(b"/exapps/noneexist/containers/create", *SIGNED, *where, facts=facts)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.strike) == (503, False)
    assert f"port {port.decode()}" in verdict.reason


def test_a_record_with_an_engines_port_is_refused_to_everybody() -> None:
    evil = ExApp("evil", "token", "1", "127.0.0.1", 24001, (Route(".*", Level.PUBLIC),))
    for headers in ([], SIGNED):
        verdict = ask(b"/exapps/evil/containers/json", *headers, facts=Facts({"evil": evil}))
        assert isinstance(verdict, Refuse)
        assert verdict.reason == "ExApp evil cannot be at 127.0.0.1:24001: port 24001 is an engine's, not an ExApp's"


def test_a_signed_request_asks_nextcloud_first() -> None:
    assert ask(b"/exapps/hello/init", *SIGNED, facts=Facts({})) == NeedRecord("hello")


@pytest.mark.parametrize("port", [b"", b"x", b"0", b"65536", b"-1", b"1e3"])
def test_a_bad_port_on_a_signed_request_without_a_record_is_400(port: bytes) -> None:
    headers = [*SIGNED, (b"ex-app-port", port)]
    assert answer(refused(b"/exapps/hello/init", *headers, facts=Facts({"hello": UnknownApp()}))) == (400, False)


def test_a_bad_host_on_a_signed_request_without_a_record_is_400() -> None:
    headers = [*SIGNED, (b"ex-app-host", b"a b")]
    assert answer(refused(b"/exapps/hello/init", *headers, facts=Facts({"hello": UnknownApp()}))) == (400, False)


def test_an_ipv6_host_of_a_signed_request_loses_its_brackets() -> None:
    headers = [*SIGNED, (b"ex-app-host", b"[fd00::1]")]
    assert forwarded(b"/exapps/hello/init", *headers, facts=Facts({"hello": UnknownApp()})).record.host == "fd00::1"


def test_a_signed_request_with_an_empty_authorization_is_checked_by_routes() -> None:
    headers = [*SIGNED, (b"authorization-app-api", b"")]
    verdict = forwarded(b"/exapps/hello/public", *headers)
    assert b64decode(verdict.authorization) == b":secret"
    assert verdict.aa_version == b"34.0.1"
    assert answer(refused(b"/exapps/hello/user", *headers)) == (403, False)


def test_a_request_with_five_of_the_six_headers_is_not_signed() -> None:
    assert answer(refused(b"/exapps/hello/undeclared", *SIGNED[:5])) == (404, False)


def test_the_id_in_the_headers_is_never_compared_with_the_path() -> None:
    assert forwarded(b"/exapps/hello/init", *SIGNED, (b"ex-app-id", b"other")).app_id == "hello"
