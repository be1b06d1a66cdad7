"""Records, internal endpoints, visitors and routes."""

from __future__ import annotations

from base64 import b64decode

import pytest

from harp.policy.decide import Learned, decide
from harp.policy.exapp import ANONYMOUS, ExApp, Level, Route, UnknownApp, Visitor
from harp.policy.question import VisitorLogin, by_name, login_of
from harp.policy.verdict import Forward, NeedRecord, NeedVisitor, Refuse
from tests.policy.decide_facts import (
    DOWN,
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

BASIC = (b"authorization", b"Basic Ym9iOnNlc2FtZQ==")

BEARER = (b"authorization", b"Bearer of-the-app-itself")

BOB = Visitor("bob", Level.USER)

ROOT = Visitor("root", Level.ADMIN)

REFUSED = Visitor("", Level.PUBLIC, refused=True)


# Step 7: the record


def test_an_unknown_exapp_is_404_and_counts_in_strict_mode_only() -> None:
    facts = Facts({"nope": UnknownApp()})
    assert answer(refused(b"/exapps/nope/x", facts=facts)) == (404, False)
    assert answer(refused(b"/exapps/nope/x", facts=facts, strikes="all")) == (404, True)
    assert answer(refused(b"/exapps/nope/x", KEY, facts=facts, strikes="all")) == (404, False)


def test_trouble_with_the_metadata_is_503_with_its_reason_and_never_a_strike() -> None:
    refuse = refused(b"/exapps/hello/public", facts=Facts({"hello": DOWN}), strikes="all")
    assert answer(refuse) == (503, False)
    assert (refuse.reason, refuse.retry_after) == ("Nextcloud cannot be reached", 7)


def test_a_missing_record_is_asked_for_by_its_lower_cased_id() -> None:
    assert ask(b"/exapps/Other/x", facts=Facts({})) == NeedRecord("other")


def test_a_record_fetched_for_this_request_is_used() -> None:
    facts = Learned(Facts({}))
    facts.learn_record("hello", HELLO)
    assert isinstance(decide(question(b"/exapps/hello/public"), facts, rules()), Forward)


# Step 8: internal endpoints


@pytest.mark.parametrize(
    "target",
    [
        b"/heartbeat",
        b"/init",
        b"/enabled",
        b"/init/",
        b"/%69nit",
        b"/%2569nit",
        b"/./init",
        b"/%2e/init",
        b"/INIT",
        b"/init;a=b",
        b"/init%3fx",
        b"/init%23",
        b"/init%20",
        b"/init.",
        b"/init+",
        b"/init%c2%a0",
        b"/init%2500",
        b"/init;x=/y",
        b"/%ef%bd%89nit",
        b"/init%2f",
    ],
)
def test_an_unsigned_internal_endpoint_in_any_spelling_is_403_and_a_strike_with_a_key(target: bytes) -> None:
    open_to_all = ExApp("hello", "t", "1", "h", 80, (Route(".*", Level.PUBLIC),))
    refuse = refused(b"/exapps/hello" + target, SESSION, facts=Facts({"hello": open_to_all}, ROOT))
    assert answer(refuse) == (403, False)
    facts = Facts({"hello": open_to_all}, ROOT)
    assert answer(refused(b"/exapps/hello" + target, SESSION, WRONG_KEY, facts=facts)) == (403, True)


@pytest.mark.parametrize("target", [b"/initial", b"/api/init", b"/init/x", b"/heartbeat.js"])
def test_what_only_looks_like_an_internal_endpoint_passes(target: bytes) -> None:
    open_to_all = ExApp("hello", "t", "1", "h", 80, (Route(".*", Level.PUBLIC),))
    assert forwarded(b"/exapps/hello" + target, facts=Facts({"hello": open_to_all})).target == target


# Step 9: who is it


def test_a_request_without_credentials_is_anonymous_and_asks_nobody() -> None:
    verdict = forwarded(b"/exapps/hello/public", (b"cookie", b"theme=dark"))
    assert b64decode(verdict.authorization) == b":secret"
    assert verdict.user == ""


@pytest.mark.parametrize("headers", [[SESSION], [BASIC], [BEARER], [SESSION, BASIC]])
def test_a_session_or_an_authorization_needs_a_visitor_on_public_routes_too(headers: Headers) -> None:
    assert ask(b"/exapps/hello/public", *headers) == NeedVisitor("hello", optional=True)


@pytest.mark.parametrize(
    "cookie", [b"oc_sessionPassphrase=", b"oc_sessionPassphrase=; oc_sessionPassphrase=x", b"xoc_sessionPassphrase=1"]
)
def test_an_empty_first_passphrase_is_no_session(cookie: bytes) -> None:
    assert forwarded(b"/exapps/hello/public", (b"cookie", cookie)).user == ""


def test_several_cookie_lines_are_one() -> None:
    found = by_name([(b"cookie", b"a=1"), (b"cookie", b"oc_sessionPassphrase=x")])
    assert login_of(found) == VisitorLogin(b"a=1; oc_sessionPassphrase=x")


def test_no_route_means_no_question_about_the_visitor() -> None:
    assert answer(refused(b"/exapps/hello/undeclared", SESSION)) == (404, False)


def test_public_routes_stay_open_to_anonymous_while_nextcloud_is_down() -> None:
    verdict = forwarded(b"/exapps/hello/public", SESSION, facts=Facts(visitor=DOWN))
    assert b64decode(verdict.authorization) == b":secret"
    assert "Nextcloud cannot be reached" in verdict.reason


def test_other_routes_are_503_while_nextcloud_is_down() -> None:
    refuse = refused(b"/exapps/hello/user", SESSION, facts=Facts(visitor=DOWN), strikes="all")
    assert answer(refuse) == (503, False)
    assert refuse.retry_after == 7


def test_an_authorization_that_nextcloud_refuses_is_a_strike_where_it_is_needed() -> None:
    for header in (BASIC, BEARER):
        refuse = refused(b"/exapps/hello/user", header, facts=Facts(visitor=REFUSED))
        assert answer(refuse) == (403, True)
        assert "refuses the Authorization" in refuse.reason


def test_a_refused_password_counts_on_public_routes_too_but_a_token_may_be_the_apps_own() -> None:
    assert forwarded(b"/exapps/hello/public", BASIC, facts=Facts(visitor=REFUSED)).strike
    assert not forwarded(b"/exapps/hello/public", BEARER, facts=Facts(visitor=REFUSED)).strike


def test_an_expired_cookie_is_never_a_strike() -> None:
    assert answer(refused(b"/exapps/hello/user", SESSION, facts=Facts(visitor=ANONYMOUS))) == (403, False)


def test_a_visitor_fetched_for_this_request_is_used() -> None:
    asked = question(b"/exapps/hello/user", SESSION)
    facts = Learned(Facts())
    facts.learn_visitor(asked.asker.credentials.digest, BOB)
    assert isinstance(decide(asked, facts, rules()), Forward)


# Steps 10 and 11: routes and token


@pytest.mark.parametrize(
    ("path", "visitor", "status"),
    [
        (b"/exapps/hello/public", ANONYMOUS, 0),
        (b"/exapps/hello/user", ANONYMOUS, 403),
        (b"/exapps/hello/user", BOB, 0),
        (b"/exapps/hello/user", Visitor("gone", Level.PUBLIC), 403),
        (b"/exapps/hello/admin", BOB, 403),
        (b"/exapps/hello/admin", ROOT, 0),
        (b"/exapps/hello/user", ROOT, 0),
        (b"/exapps/hello/other", ROOT, 404),
    ],
)
def test_a_route_is_open_to_its_level_and_above(path: bytes, visitor: Visitor, status: int) -> None:
    verdict = ask(path, SESSION, facts=Facts(visitor=visitor))
    assert (verdict.status if isinstance(verdict, Refuse) else 0) == status


def test_a_level_too_low_is_403_and_counts_in_strict_mode_only() -> None:
    assert answer(refused(b"/exapps/hello/user")) == (403, False)
    assert answer(refused(b"/exapps/hello/user", strikes="all")) == (403, True)


def test_no_matching_route_is_404_and_counts_in_strict_mode_only() -> None:
    assert answer(refused(b"/exapps/hello/x")) == (404, False)
    assert answer(refused(b"/exapps/hello/x", strikes="all")) == (404, True)


def test_the_token_names_the_user_and_the_old_version_of_appapi() -> None:
    verdict = forwarded(b"/exapps/hello/user", SESSION, facts=Facts(visitor=Visitor("b\u00f6b", Level.USER)))
    assert b64decode(verdict.authorization).decode() == "b\u00f6b:secret"
    assert (verdict.user, verdict.aa_version, verdict.signed) == ("b\u00f6b", b"32", False)


def test_a_disabled_user_reaches_public_routes_by_name() -> None:
    verdict = forwarded(b"/exapps/hello/public", SESSION, facts=Facts(visitor=Visitor("gone", Level.PUBLIC)))
    assert b64decode(verdict.authorization) == b"gone:secret"


def test_the_verdict_carries_the_route_with_the_statuses_that_count() -> None:
    route = forwarded(b"/exapps/hello/public").route
    assert route is not None
    assert route.bruteforce_protection == {401}


def test_the_stricter_route_wins_when_raw_and_normalised_path_differ() -> None:
    facts = Facts(
        {"hello": ExApp("hello", "t", "1", "h", 80, (Route("^/admin", Level.ADMIN), Route(".*", Level.PUBLIC)))}
    )
    for target in (b"/%61dmin", b"/;/admin", b"/./admin", b"/admin", b"/ADMIN", b"/%2e//%41dmin"):
        assert answer(refused(b"/exapps/hello" + target, facts=facts)) == (403, False), target


# Bytes and secrets


def test_bytes_outside_ascii_pass_anywhere() -> None:
    headers = [(b"x-name", b"\xff\xfe"), (b"cookie", b"a=\xe9"), (b"authorization", b"Basic \xff")]
    verdict = ask(b"/exapps/hello/public/\xff\xe9", *headers, facts=Facts(visitor=BOB))
    assert isinstance(verdict, Forward)
    assert answer(refused(b"/exapps/h\xe9llo/x")) == (404, False)
    assert answer(refused(b"/exapps/app_api/x", (b"harp-shared-key", b"\xff"))) == (401, True)


def test_nothing_shows_a_secret() -> None:
    asked = question(b"/exapps/hello/public", *SIGNED, SESSION, BASIC)
    verdict = decide(asked, Facts(), rules())
    login = login_of(by_name([SESSION, BASIC]))
    shown = f"{asked!r} {asked.asker.credentials.signature!r} {login!r} {verdict!r} {rules()!r} {HELLO!r}"
    for secret in ("the key", "abc", "Ym9iOnN", "secret"):
        assert secret not in shown
