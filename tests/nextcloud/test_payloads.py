"""JSON about ExApps and visitors, with the leniency that databases need (A 5.1, A 5.2)."""

from __future__ import annotations

import json

import pytest

from harp.nextcloud.payloads import read_record, read_visitor
from harp.policy.exapp import ANONYMOUS, ExApp, Level, Route, Visitor
from tests.fakes.nextcloud import RECORD


def record(**changes: object) -> ExApp:
    return read_record("hello", json.dumps({**RECORD, **changes}).encode())


def test_a_record_is_read() -> None:
    assert record() == ExApp(
        "hello", "secret", "1.2.3", "127.0.0.1", 23001, (Route("^/public", Level.PUBLIC, frozenset({401})),)
    )


def test_numbers_may_arrive_as_text_and_whole_numbers_as_floats() -> None:
    route = {"url": "a", "access_level": "2", "bruteforce_protection": ["401", 403]}
    app = record(port="23002", routes=[route])
    assert app.port == 23002
    assert app.routes == (Route("a", Level.ADMIN, frozenset({401, 403})),)
    assert record(port=23003.0).port == 23003


def test_routes_and_their_statuses_may_be_missing_and_unknown_keys_are_ignored() -> None:
    body = {key: value for key, value in RECORD.items() if key != "routes"}
    assert read_record("hello", json.dumps(body).encode()).routes == ()
    assert record(routes=[{"url": "a", "access_level": 0}]).routes[0].bruteforce_protection == frozenset()
    assert record(start_container=True, verb="GET").app_id == "hello"


def test_an_ipv6_host_loses_its_brackets() -> None:
    assert record(host="[fd00::1]").host == "fd00::1"


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "x"},
        {"port": None},
        {"port": 1.5},
        {"host": ""},
        {"host": "a\r\nb"},
        {"host": None},
        {"exapp_version": "1\n2"},
        {"exapp_version": 1},
        {"exapp_token": None},
        {"routes": None},
        {"routes": [{"url": "a"}]},
        {"routes": [{"url": "a", "access_level": 3}]},
        {"routes": [{"url": 1, "access_level": 0}]},
        {"routes": [{"url": "a", "access_level": 0, "bruteforce_protection": "401"}]},
    ],
)
def test_what_fits_no_record_is_a_value_error_without_the_token(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        record(**change)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'"\xff"', b"[]", b"null", b'{"a":' + b"[" * 100000])
def test_what_is_no_json_object_is_a_value_error(body: bytes) -> None:
    for read in (lambda: read_record("hello", body), lambda: read_visitor(body)):
        with pytest.raises(ValueError, match=r"."):
            read()


@pytest.mark.parametrize(
    ("body", "visitor"),
    [
        (b'{"user_id": "bob", "access_level": 1}', Visitor("bob", Level.USER)),
        (b'{"user_id": "bob", "access_level": "2"}', Visitor("bob", Level.ADMIN)),
        (b'{"user_id": "gone", "access_level": 0}', Visitor("gone", Level.PUBLIC)),
        (b'{"user_id": "", "access_level": 0}', ANONYMOUS),
        (b'{"user_id": null, "access_level": 0}', ANONYMOUS),
        (b'{"user_id": "", "access_level": 2}', ANONYMOUS),
        ('{"user_id": "ö:x", "access_level": 1}'.encode(), Visitor("ö:x", Level.USER)),
    ],
)
def test_a_visitor_is_read(body: bytes, visitor: Visitor) -> None:
    assert read_visitor(body) == visitor


@pytest.mark.parametrize("body", [b"{}", b'{"user_id": "bob"}', b'{"user_id": "bob", "access_level": 3}'])
def test_what_fits_no_visitor_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_visitor(body)
