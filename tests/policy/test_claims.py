"""Whose tunnel may offer which port."""

from __future__ import annotations

import pytest

from harp.policy.claims import key_objection, own_key_of, record_objection
from harp.policy.container import own_key
from harp.policy.exapp import ExApp, Trouble, UnknownApp

KEY = "a-shared-key-for-tests"
HELLO = ExApp("hello", "t", "1", "127.0.0.1", 23001)


def test_an_own_key_is_known_by_itself() -> None:
    assert own_key_of(own_key(KEY, "Hello"), KEY) == "hello"


@pytest.mark.parametrize(
    "token",
    [
        "",
        KEY,
        own_key("another key", "hello"),
        own_key(KEY, "hello").replace("hello", "other"),
        own_key(KEY, "hello").upper(),
        own_key(KEY, "hello")[:-1] + "ä",
        "." + "0" * 64,
    ],
)
def test_what_is_made_up_is_nobodys_key(token: str) -> None:
    assert own_key_of(token, KEY) == ""


def test_an_own_key_opens_the_tunnel_of_its_exapp_alone() -> None:
    assert key_objection("hello", "hello", exapp_port=True) == ""
    assert key_objection("hello", "Hello", exapp_port=True) == ""
    assert "hello only" in key_objection("hello", "other", exapp_port=True)
    assert "hello only" in key_objection("hello", "hello", exapp_port=False)


def test_a_claim_must_be_what_nextcloud_says() -> None:
    assert record_objection(HELLO, "hello", 23001) == ""
    assert record_objection(HELLO, "hello", 23002) == "Nextcloud gave the ExApp hello port 23001, not 23002"
    assert "knows no ExApp x" in record_objection(UnknownApp(), "x", 23001)
    assert "connection refused" in record_objection(Trouble("connection refused"), "hello", 23001)
