"""What people may see of header lines and queries."""

from __future__ import annotations

import pytest

from harp.logs import HIDDEN
from harp.status.redaction import LONGEST, MOST_LINES, Redaction, query_names, response_fields

redaction = Redaction(["the shared key"])


@pytest.mark.parametrize(
    "name",
    [
        b"Cookie",
        b"Authorization",
        b"AUTHORIZATION-APP-API",
        b"harp-shared-key",
        b"Set-Cookie",
        b"X-CSRF-Token",
        b"X-Api-Key",
        b"X-Amz-Signature",
        b"PHP-Session",
        b"X-Password",
    ],
)
def test_what_could_be_a_secret_is_hidden_by_its_name(name: bytes) -> None:
    assert redaction.lines([(name, b"secret")]) == ((name.decode().lower(), HIDDEN),)


def test_other_lines_are_shown() -> None:
    fields = [(b"accept", b"*/*"), (b"x-forwarded-for", b"192.0.2.1"), (b"sec-websocket-key", b"dGhl")]
    assert redaction.lines(fields) == (
        ("accept", "*/*"),
        ("x-forwarded-for", "192.0.2.1"),
        ("sec-websocket-key", "dGhl"),
    )


def test_a_secret_that_we_know_is_hidden_wherever_it_stands() -> None:
    assert redaction.lines([(b"x-debug", b"is the shared key right?")]) == (("x-debug", f"is {HIDDEN} right?"),)


def test_urls_are_shown_without_their_query() -> None:
    assert redaction.value("referer", "https://cloud/apps?token=1") == "https://cloud/apps?…"


def test_long_values_and_many_lines_are_cut() -> None:
    assert redaction.value("accept", "a" * 1000) == "a" * LONGEST + "…"
    assert len(redaction.lines([(b"a", b"b")] * 500)) == MOST_LINES + 1


def test_a_query_shows_the_names_of_its_parameters() -> None:
    assert query_names(b"?page=2&token=secret&flag") == "?page=…&token=…&flag=…"
    assert query_names(b"") == query_names(b"?") == ""


def test_the_lines_after_a_status_line_are_its_headers() -> None:
    assert response_fields(b"HTTP/1.1 200 OK\r\na: b\r\nc:d\r\n") == [(b"a", b"b"), (b"c", b"d")]
    assert response_fields(b"") == []
