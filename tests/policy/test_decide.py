"""The access decision, line by line of the contract's tables of refusals and failures (A 2.2 to 2.4)."""

from __future__ import annotations

from base64 import b64decode

import pytest

from harp.policy.bans import lowest_counted
from harp.policy.decide import Learned, Rules, decide
from harp.policy.exapp import ANONYMOUS, ExApp, Level, RecordFact, Route, Trouble, UnknownApp, Visitor, VisitorFact
from harp.policy.exapp_target import ExAppTargets
from harp.policy.question import Login, Question, by_name, credentials_of, login_of
from harp.policy.verdict import Control, Engine, Forward, Missing, NeedRecord, NeedVisitor, Refuse, Verdict

Headers = list[tuple[bytes, bytes]]

ADDRESS = "203.0.113.7"
TARGETS = ExAppTargets(engine_ports=frozenset({24000, 24001}), listeners=frozenset({8200}), local=(range(9000, 9100),))
KEY = (b"harp-shared-key", b"the key")
WRONG_KEY = (b"harp-shared-key", b"a guess")
BASIC = (b"authorization", b"Basic Ym9iOnNlc2FtZQ==")
BEARER = (b"authorization", b"Bearer of-the-app-itself")
SESSION = (b"cookie", b"oc_sessionPassphrase=abc; ocinstance=def")
SIGNED: Headers = [
    KEY,
    (b"ex-app-version", b"9.9.9"),
    (b"ex-app-id", b"hello"),
    (b"ex-app-host", b"10.0.0.9"),
    (b"ex-app-port", b"9999"),
    (b"authorization-app-api", b"Ym9iOnNlY3JldA=="),
    (b"aa-version", b"34.0.1"),
]

HELLO = ExApp(
    "hello",
    token="secret",
    version="1.2.3",
    host="127.0.0.1",
    port=23001,
    routes=(
        Route("^/public", Level.PUBLIC, frozenset({401})),
        Route("^/user", Level.USER),
        Route("^/admin", Level.ADMIN),
    ),
)
HELLO_OTHER = ExApp("other", "secret", "1", "127.0.0.1", 23002, HELLO.routes)
BOB = Visitor("bob", Level.USER)
ROOT = Visitor("root", Level.ADMIN)
REFUSED = Visitor("", Level.PUBLIC, refused=True)
DOWN = Trouble("Nextcloud cannot be reached", retry_after=7)


class Facts:
    """What is known in a test: one visitor for every credential, and no Nextcloud behind it."""

    def __init__(
        self,
        records: dict[str, RecordFact] | None = None,
        visitor: VisitorFact | None = None,
        banned: dict[str, float] | None = None,
    ) -> None:
        self.records = {"hello": HELLO} if records is None else records
        self.who = visitor
        self.bans = banned or {}

    def banned(self, address: str) -> float:
        return self.bans.get(address, 0.0)

    def record(self, app_id: str) -> RecordFact | None:
        return self.records.get(app_id)

    def visitor(self, digest: bytes) -> VisitorFact | None:
        return self.who


def rules(strikes: str = "auth", key: bytes = b"the key") -> Rules:
    return Rules(
        shared_key=key, engine_ports=frozenset({24000, 24001}), targets=TARGETS, counted=lowest_counted(strikes)
    )


def question(path: bytes, *headers: tuple[bytes, bytes], key: bytes = b"the key") -> Question:
    found = by_name(list(headers))
    login = login_of(found)
    return Question(path, ADDRESS, credentials_of(found, login, digest, rules(key=key).accept))


def digest(cookie: bytes, authorization: bytes | None) -> bytes:
    return b"%b %b" % (cookie, authorization or b"")


def ask(
    path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None, strikes: str = "auth"
) -> Verdict | Missing:
    return decide(question(path, *headers), facts or Facts(), rules(strikes))


def forwarded(path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None) -> Forward:
    verdict = ask(path, *headers, facts=facts)
    assert isinstance(verdict, Forward)
    return verdict


def refused(path: bytes, *headers: tuple[bytes, bytes], facts: Facts | None = None, strikes: str = "auth") -> Refuse:
    verdict = ask(path, *headers, facts=facts, strikes=strikes)
    assert isinstance(verdict, Refuse)
    assert len(verdict.reason) <= 160
    assert verdict.reason.isprintable()
    return verdict


def answer(refuse: Refuse) -> tuple[int, bool]:
    return refuse.status, refuse.strike


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
    asked = Question(b"/exapps/hello/public", ADDRESS, proxy_key="proxy 10.0.0.1")
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


def test_an_engine_port_that_is_not_configured_is_403_without_a_strike() -> None:
    assert answer(refused(b"/exapps/app_api/_ping", KEY, (b"docker-engine-port", b"8200"), strikes="all")) == (
        403,
        False,
    )


@pytest.mark.parametrize("port", [b"x", b"+24000", b"24_000", b"240001", b"-1", b"2 4000", "\u0662".encode()])
def test_an_engine_port_that_is_no_number_is_400(port: bytes) -> None:
    assert answer(refused(b"/exapps/app_api/_ping", KEY, (b"docker-engine-port", port))) == (400, False)


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
    assert login_of(found) == Login(b"a=1; oc_sessionPassphrase=x")


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
    facts.learn_visitor(asked.credentials.digest, BOB)
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
    shown = f"{asked!r} {asked.credentials.signature!r} {login!r} {verdict!r} {rules()!r} {HELLO!r}"
    for secret in ("the key", "abc", "Ym9iOnN", "secret"):
        assert secret not in shown
