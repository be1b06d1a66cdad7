"""Which ExApp a path names, what is refused before anybody is asked, and the control API."""

from __future__ import annotations

import pytest

from harp.policy.decide import decide
from harp.policy.exapp import ExApp, Level, Route, UnknownApp
from harp.policy.question import Asker, Question
from harp.policy.verdict import Control, Engine, Forward, NeedRecord, Refuse
from tests.policy.decide_facts import (
    ADDRESS,
    HELLO,
    KEY,
    SESSION,
    SIGNED,
    WRONG_KEY,
    Facts,
    Headers,
    answer,
    ask,
    forwarded,
    question,
    refused,
    rules,
)

HELLO_OTHER = ExApp("other", "secret", "1", "127.0.0.1", 23002, HELLO.routes)


# Step 2: bans


def test_a_banned_address_gets_429_and_when_to_come_back() -> None:
    refuse = refused(b"/exapps/hello/public", facts=Facts(banned={ADDRESS: 12.3}))
    assert answer(refuse) == (429, False)
    assert (refuse.banned, refuse.retry_after) == (True, 13)


def test_who_is_banned_from_one_exapp_may_use_the_others() -> None:
    facts = Facts({"hello": HELLO, "other": HELLO_OTHER}, banned={f"{ADDRESS} (hello)": 60.0})
    assert refused(b"/exapps/hello/public", facts=facts).banned
    assert refused(b"/exapps/Hello/public", facts=facts).banned
    assert forwarded(b"/exapps/other/public", facts=facts).app_id == "other"
    assert forwarded(b"/exapps/hello/public", *SIGNED, facts=facts).signed


def test_a_peer_that_is_banned_for_what_it_names_is_banned_whomever_it_names() -> None:
    asked = Question(b"/exapps/hello/public", Asker(ADDRESS, proxy_key="proxy 10.0.0.1"))
    verdict = decide(asked, Facts(banned={"proxy 10.0.0.1": 60.0}), rules())
    assert isinstance(verdict, Refuse)
    assert verdict.banned


@pytest.mark.parametrize("before", [b"//evil.example", b"/\\evil.example", b"/a//b", b"/a%0d", b"/./a", b"/a/.%2e"])
def test_what_stands_before_exapps_is_no_prefix_unless_it_looks_like_one(before: bytes) -> None:
    verdict = ask(before + b"/exapps/hello/public")
    assert isinstance(verdict, Refuse) or (isinstance(verdict, Forward) and verdict.prefix == b"/exapps/hello")
    assert forwarded(b"/next.cloud/exapps/hello/public").prefix == b"/next.cloud/exapps/hello"


def test_a_valid_shared_key_is_never_banned() -> None:
    facts = Facts(banned={ADDRESS: 300.0})
    assert isinstance(ask(b"/exapps/app_api/info", KEY, facts=facts), Control)
    assert forwarded(b"/exapps/hello/init", *SIGNED, facts=facts).signed


def test_a_wrong_shared_key_does_not_help_a_banned_address() -> None:
    assert refused(b"/exapps/app_api/info", WRONG_KEY, facts=Facts(banned={ADDRESS: 300.0})).banned


# Step 3: paths


@pytest.mark.parametrize(
    "path",
    [
        b"/exapps/hello/../app_api/info",
        b"/exapps/hello/..",
        b"/exapps/hello/%2e%2e/x",
        b"/exapps/hello/.%2E",
        b"/exapps/hello%2f..%2fx",
        b"/exapps/hello/%252e%252e/x",
        b"/exapps/hello/..\\x",
        b"/exapps/hello/..%5cx",
        b"/exapps/hello/..;/x",
        b"../exapps/hello/",
    ],
)
def test_a_parent_directory_segment_in_any_encoding_is_400_and_a_strike_with_a_key(path: bytes) -> None:
    """Without one, any web page could ban its visitors by an image."""
    assert answer(refused(path, WRONG_KEY)) == (400, True)
    assert answer(refused(path, SESSION)) == (400, False)
    assert answer(refused(path, SESSION, strikes="all")) == (400, True)


@pytest.mark.parametrize(
    "path", [b"/exapps/hello/public/...", b"/exapps/hello/public/a..b", b"/exapps/hello/public/..a"]
)
def test_dots_that_are_no_parent_directory_pass(path: bytes) -> None:
    assert forwarded(path).target == path.removeprefix(b"/exapps/hello")


def test_a_parent_directory_segment_with_the_right_key_is_400_without_a_strike() -> None:
    assert answer(refused(b"/exapps/app_api/../x", KEY)) == (400, False)


@pytest.mark.parametrize(
    "path", [b"/exapps/hello/public%00", b"/exapps/hello/public\x01", b"/exapps/hello/public%0d%0a"]
)
def test_a_control_character_in_the_path_is_400(path: bytes) -> None:
    assert answer(refused(path, strikes="all")) == (400, False)


# Step 4: the app id


def test_a_path_without_an_app_is_404_and_names_the_likely_mistake() -> None:
    refuse = refused(b"/")
    assert answer(refuse) == (404, False)
    assert "reverse proxy" in refuse.reason
    assert answer(refused(b"/exapps")) == (404, False)
    assert answer(refused(b"/exapps/")) == (404, False)
    assert answer(refused(b"*")) == (404, False)
    assert answer(refused(b"/", strikes="all")) == (404, True)


def test_everything_up_to_the_app_is_removed_wherever_it_stands() -> None:
    for path, prefix, target in [
        (b"/exapps/hello/public/a", b"/exapps/hello", b"/public/a"),
        (b"/nextcloud/exapps/hello/public", b"/nextcloud/exapps/hello", b"/public"),
        (b"//exapps/hello/public", b"/exapps/hello", b"/public"),
        (b"/exapps/hello/public/exapps/other/x", b"/exapps/hello", b"/public/exapps/other/x"),
    ]:
        verdict = forwarded(path)
        assert (verdict.prefix, verdict.target) == (prefix, target)


def test_the_target_is_the_raw_path_byte_for_byte() -> None:
    assert forwarded(b"/exapps/hello/public//%41/\xe9/%c3%a9").target == b"/public//%41/\xe9/%c3%a9"


def test_an_empty_target_becomes_a_slash() -> None:
    app = ExApp("open", "t", "1", "h", 80, (Route("^/$", Level.PUBLIC),))
    assert forwarded(b"/exapps/open", facts=Facts({"open": app})).target == b"/"


def test_the_lookup_is_lower_cased_and_the_spelling_of_the_url_is_kept_for_the_exapp() -> None:
    assert forwarded(b"/exapps/Hello/public").app_id == "Hello"


@pytest.mark.parametrize("path", [b"/exapps/open;x=1/b", b"/exapps/%6fpen/b", b"/exapps/-/b", b"/exapps/" + b"a" * 65])
def test_an_impossible_id_is_404_and_never_asked_for(path: bytes) -> None:
    assert answer(refused(path, facts=Facts({}))) == (404, False)
    assert answer(refused(path, facts=Facts({}), strikes="all")) == (404, True)


@pytest.mark.parametrize("path", [b"/exapps/hello%2fpublic", b"/exapps/hello%5Cpublic", b"/exapps/hello\\public"])
def test_an_encoded_slash_in_the_id_is_400(path: bytes) -> None:
    assert answer(refused(path)) == (400, False)


# A reverse proxy that strips /exapps


def test_a_stripped_prefix_works_for_a_known_exapp_and_says_how_to_mend_it() -> None:
    verdict = forwarded(b"/hello/public")
    assert (verdict.target, verdict.prefix, verdict.stripped) == (b"/public", b"/exapps/hello", True)
    assert "strips /exapps" in verdict.reason


def test_a_stripped_prefix_never_costs_a_call_to_nextcloud() -> None:
    assert answer(refused(b"/wp-login.php", facts=Facts({}))) == (404, False)
    assert answer(refused(b"/hello/public", facts=Facts({"hello": UnknownApp()}))) == (404, False)


def test_a_stripped_prefix_with_the_right_key_may_cost_one() -> None:
    assert ask(b"/hello/init", *SIGNED, facts=Facts({})) == NeedRecord("hello")


def test_a_stripped_control_call_needs_the_right_key_even_to_be_seen() -> None:
    assert isinstance(ask(b"/app_api/info", KEY), Control)
    assert answer(refused(b"/app_api/info")) == (404, False)


# Step 5: the reserved id


def test_a_control_call_with_the_right_key_goes_to_the_control_api() -> None:
    assert ask(b"/exapps/app_api/docker/exapp/create", KEY) == Control(b"/docker/exapp/create", "control call")
    assert ask(b"/exapps/app_api/info/", KEY) == Control(b"/info/", "control call")


def test_a_control_call_without_any_key_is_401_and_no_strike() -> None:
    assert answer(refused(b"/exapps/app_api/info")) == (401, False)


@pytest.mark.parametrize("headers", [[WRONG_KEY], [(b"harp-shared-key", b"")], [KEY, WRONG_KEY]])
def test_a_control_call_with_a_wrong_key_is_401_and_a_strike(headers: Headers) -> None:
    assert answer(refused(b"/exapps/app_api/info", *headers)) == (401, True)


def test_the_last_of_several_keys_counts() -> None:
    assert isinstance(ask(b"/exapps/app_api/info", WRONG_KEY, KEY), Control)


def test_the_reserved_id_is_reserved_in_one_spelling_only() -> None:
    assert ask(b"/exapps/APP_API/info", KEY) == NeedRecord("app_api")


def test_an_empty_shared_key_is_never_right() -> None:
    asked = question(b"/exapps/app_api/info", (b"harp-shared-key", b""), key=b"")
    verdict = decide(asked, Facts(), rules(key=b""))
    assert isinstance(verdict, Refuse)
    assert verdict.status == 401


def test_the_engine_port_passes_a_control_call_through_to_that_engine() -> None:
    verdict = ask(b"/exapps/app_api/v1.44/_ping", KEY, (b"docker-engine-port", b"24001"))
    assert isinstance(verdict, Engine)
    assert (verdict.port, verdict.target) == (24001, b"/v1.44/_ping")


def test_the_engine_port_stays_with_the_control_api_below_docker() -> None:
    assert isinstance(ask(b"/exapps/app_api/docker/exapp/start", KEY, (b"docker-engine-port", b"24001")), Control)


@pytest.mark.parametrize("key", [(), (WRONG_KEY,)])
def test_an_engine_port_without_the_right_key_makes_no_other_caller(key: tuple[tuple[bytes, bytes], ...]) -> None:
    said = (b"docker-engine-port", b"1" * 1000)
    assert question(b"/exapps/hello/public", *key, said) == question(b"/exapps/hello/public", *key)


def test_an_engine_port_that_is_not_configured_is_403_without_a_strike() -> None:
    assert answer(refused(b"/exapps/app_api/_ping", KEY, (b"docker-engine-port", b"8200"), strikes="all")) == (
        403,
        False,
    )


@pytest.mark.parametrize("port", [b"x", b"+24000", b"24_000", b"240001", b"-1", b"2 4000", "\u0662".encode()])
def test_an_engine_port_that_is_no_number_is_400(port: bytes) -> None:
    assert answer(refused(b"/exapps/app_api/_ping", KEY, (b"docker-engine-port", port))) == (400, False)
