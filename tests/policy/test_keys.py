"""The keys that ExApps' tunnels log in with."""

from __future__ import annotations

import pytest

from harp.policy.keys import key_owner, own_key, own_key_of

KEY = "a-shared-key-for-tests"


def test_an_apps_own_key_names_it_and_depends_on_key_and_app() -> None:
    token = own_key("shared", "Hello.App")
    assert token.startswith("hello.app.")
    assert key_owner(token) == "hello.app"
    assert len({token, own_key("other", "hello.app"), own_key("shared", "hello")}) == 3


@pytest.mark.parametrize("token", ["", "shared-key", "a.b", "x" * 64])
def test_other_tokens_are_nobodys(token: str) -> None:
    assert key_owner(token) == ""


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
