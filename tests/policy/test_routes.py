"""Route patterns by AppAPI's rules, and what a bad pattern may cost."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.policy.bans import Denial
from harp.policy.paths import ExAppPath, locate
from harp.policy.route import Level, Route
from harp.policy.routes import ROUTES, SLOW_MATCHES, RouteMatch, RouteTable


def spot(target: bytes) -> ExAppPath:
    found = locate(b"/exapps/hello" + target)
    assert isinstance(found, ExAppPath)
    return found


def table(*urls: str) -> RouteTable:
    return RouteTable(tuple(Route(url, Level.PUBLIC) for url in urls))


def hits(url: str, target: bytes) -> bool:
    return isinstance(table(url).match(spot(target)), RouteMatch)


def denial(routes: RouteTable, target: bytes) -> Denial:
    found = routes.match(spot(target))
    assert isinstance(found, Denial)
    return found


@pytest.mark.parametrize(
    ("url", "target", "fits"),
    [
        ("^/public$", b"/public", True),
        ("^/public$", b"/public/x", False),
        ("/public", b"/public/x", True),  # anchored at the start, open at the end
        ("public", b"/x/public", False),
        ("^/Public", b"/pUBLIC", True),  # case does not matter
        (r"^api\/w\/nextcloud\/jobs\/.*", b"/api/w/nextcloud/jobs/1", True),  # the bare path, for old manifests
        ("mcp", b"/mcp", True),
        ("search", b"/research", False),
        (".*", b"/", True),
        ("", b"/anything", True),
        ("^/a|^/b", b"/b", True),
        ("a|b", b"/b", True),
        ("^/dl/[A-Za-z0-9_-]{20,128}$", b"/dl/" + b"x" * 20, True),
        ("^/é", "/é".encode(), True),
        ("^/%61", b"/%61", False),  # patterns see the decoded path
        ("^/my file", b"/my%20file", True),
        (r"^/(?!private).*", b"/open", True),  # look-ahead: not for RE2
        (r"^/(?!private).*", b"/private", False),
        (r"^/(?P<part>a+)$", b"/aaa", True),
        ("^/x{1,2000}$", b"/xx", True),  # a repeat above RE2's limit
        ("(?i)^/a", b"/A", True),
    ],
)
def test_a_pattern_fits_as_in_appapi(url: str, target: bytes, fits: bool) -> None:
    assert hits(url, target) is fits


def test_the_first_route_that_fits_decides() -> None:
    first, second = Route("^/a", Level.ADMIN), Route("^/a/b", Level.PUBLIC)
    found = RouteTable((first, second)).match(spot(b"/a/b"))
    assert isinstance(found, RouteMatch)
    assert found.route is first


def test_each_route_is_tried_on_the_bare_path_before_the_next_one() -> None:
    first, second = Route("^a", Level.ADMIN), Route("^/a", Level.PUBLIC)
    found = RouteTable((first, second)).match(spot(b"/a"))
    assert isinstance(found, RouteMatch)
    assert found.route is first


def test_an_encoded_slash_is_refused_only_where_it_makes_a_difference() -> None:
    routes = table("^/files/[^/]+$", "^/tree/.*")
    assert denial(routes, b"/files/a%2fb").status == 400
    assert denial(routes, b"/files/a%5Cb").status == 400
    assert isinstance(routes.match(spot(b"/tree/a%2fb")), RouteMatch)
    assert isinstance(routes.match(spot(b"/tree/a%5cb\\c")), RouteMatch)


@pytest.mark.parametrize(
    "target",
    [b"/;/admin", b"/.;x/admin", b"/admin;x=1", b"/admin/", b"/admin%20", b"/admin;x/y", b"/%2561dmin", b"/admin%3f"],
)
def test_a_strict_route_cannot_be_left_by_what_url_libraries_pass_over(target: bytes) -> None:
    routes = RouteTable((Route("^/admin$", Level.ADMIN), Route(".*", Level.PUBLIC)))
    found = routes.match(spot(target))
    assert isinstance(found, RouteMatch)
    assert found.route.access_level is Level.ADMIN


def test_an_encoded_slash_cannot_leave_a_strict_route() -> None:
    routes = RouteTable((Route("^/admin/", Level.ADMIN), Route(".*", Level.PUBLIC)))
    assert denial(routes, b"/admin%2fusers").status == 400
    assert denial(routes, b"/admin\\users").status == 400


def test_no_route_is_the_strictest_answer_of_all_readings() -> None:
    routes = table("^/[a-z%]+/x$")
    assert isinstance(routes.match(spot(b"/public/x")), RouteMatch)
    assert denial(routes, b"/public;/x;y").status == 404  # "/public;/x", and cut at the first ";" just "/public"
    assert denial(routes, b"/p%2575blic/x").status == 404  # "/p%75blic/x" has a digit


def test_an_escape_that_clients_need_does_not_close_a_route() -> None:
    assert isinstance(table("^/my file$").match(spot(b"/my%20file")), RouteMatch)
    assert denial(table("^/file$"), b"/%66ile").status == 404


def test_a_slash_at_the_end_does_not_close_a_route_that_asks_for_it() -> None:
    assert isinstance(table("^/docs/.*$").match(spot(b"/docs/")), RouteMatch)


def levels(*routes: tuple[str, Level]) -> RouteTable:
    return RouteTable(tuple(Route(url, level) for url, level in routes))


def test_a_missing_slash_at_the_end_does_not_leave_a_strict_folder() -> None:
    found = levels(("^/admin/", Level.ADMIN), (".*", Level.PUBLIC)).match(spot(b"/admin"))
    assert isinstance(found, RouteMatch)
    assert found.route.access_level is Level.ADMIN


def test_a_route_may_tell_the_folder_from_its_name() -> None:
    found = levels(("^/api/", Level.USER), ("^/api$", Level.PUBLIC)).match(spot(b"/api"))
    assert isinstance(found, RouteMatch)
    assert found.route.access_level is Level.PUBLIC


def test_the_normalised_path_must_have_a_route() -> None:
    assert denial(table("^/b//a$"), b"/b//a").status == 404


@pytest.mark.parametrize("url", ["[", "(", "a**", "(?P<n", "\\", "(" * 400 + "(?=a)" + ")" * 400])
def test_what_is_no_regular_expression_is_skipped_and_reported(url: str) -> None:
    routes = table(url, "^/ok")
    assert isinstance(routes.match(spot(b"/ok")), RouteMatch)
    assert len(routes.problems) == 1
    assert routes.problems[0].isprintable()
    assert "skipped" in routes.problems[0]


def test_a_pattern_over_the_length_limit_is_not_run_and_lets_nothing_behind_it_decide() -> None:
    routes = table("^/early", "a" * 1025, ".*")
    assert isinstance(routes.match(spot(b"/early")), RouteMatch)
    assert denial(routes, b"/late").status == 403
    assert "1025 bytes" in denial(routes, b"/late").reason


def test_a_pattern_that_is_not_run_does_not_matter_to_a_path_that_a_route_before_it_takes() -> None:
    routes = levels(("^/early", Level.PUBLIC), ("a" * 1025, Level.ADMIN), (".*", Level.PUBLIC))
    assert isinstance(routes.match(spot(b"/early")), RouteMatch)
    assert denial(routes, b"/late").status == 403


def test_routes_over_the_limit_are_left_out_and_reported() -> None:
    routes = table(*["^/no"] * ROUTES, ".*")
    assert denial(routes, b"/x").status == 404
    assert routes.problems == (f"1 routes are left out, limit {ROUTES}",)


def test_an_exponential_pattern_is_harmless_in_re2() -> None:
    began = perf_counter()
    assert denial(table("^/(a+)+$"), b"/" + b"a" * 200 + b"!").status == 404
    assert perf_counter() - began < 0.5


SLOW = "^/(?=.)(?:(?:(?:a{1,999}){1,999}){1,999})(?=b)"


def test_an_exponential_pattern_that_re2_refuses_is_stopped_and_the_request_refused() -> None:
    refused = denial(table(SLOW, ".*"), b"/" + b"a" * 500 + b"!")
    assert refused.status == 403
    assert "20 ms" in refused.reason


def test_a_pattern_that_is_slow_again_and_again_is_not_run_any_more() -> None:
    routes = table(SLOW)
    for number in range(SLOW_MATCHES):
        assert "20 ms" in denial(routes, b"/" + b"a" * 500 + b"!%d" % number).reason
    assert "no longer used" in denial(routes, b"/short").reason


def test_a_route_has_one_match_for_all_paths() -> None:
    routes = table("^/ok")
    assert routes.match(spot(b"/ok/1")) is routes.match(spot(b"/ok/2"))


MANY = [f"^/api/v{number % 9}/things/[a-z0-9_-]+/items/{number}$" for number in range(ROUTES)]


def test_among_a_thousand_routes_the_first_that_fits_decides() -> None:
    for urls in (MANY, [*MANY[:500], "items", *MANY[501:]], [*MANY[:9], "(?P<a>x)", "(?P<a>y)", "(?!x)y", *MANY[12:]]):
        routes = table(*urls)
        for number in (0, 7, 8, 63, 64, 499, 511, 512, 998, 999):
            found = routes.match(spot(b"/api/v%d/things/a/items/%d" % (number % 9, number)))
            assert isinstance(found, RouteMatch)
            assert found.route.url == urls[number]
        assert denial(routes, b"/api/v1/things/a/items/x").status == 404


ATOMS = ["/", "a", "b", "^", "$", "|", "(", ")", ".", "*", "?", "\\/", "[ab]", "(?!a)", "(?i)", "{2}", "(?P<n>a)"]
urls = st.lists(st.lists(st.sampled_from(ATOMS), max_size=5).map("".join), max_size=20)


@given(urls, st.lists(st.sampled_from(["/", "a", "b"]), max_size=4).map(lambda parts: ("/" + "".join(parts)).encode()))
def test_routes_in_groups_decide_as_one_by_one(urls: list[str], path: bytes) -> None:
    expected = None
    for url in urls:
        alone = table(url)
        if isinstance(alone.match(ExAppPath("a", "a", b"", path, path)), RouteMatch):
            expected = url
            break
    found = table(*urls).match(ExAppPath("a", "a", b"", path, path))
    assert (found.route.url if isinstance(found, RouteMatch) else None) == expected


def test_a_table_is_compiled_in_steps_and_forgets() -> None:
    routes = table(*MANY, "[")
    assert not routes.ready
    assert sum(1 for _ in routes.compiling()) >= ROUTES
    assert routes.ready
    assert len(routes.problems) == 1
    routes.forget()
    assert not routes.ready
    assert isinstance(routes.match(spot(b"/api/v1/things/a/items/1")), RouteMatch)


def test_where_re2_is_missing_everything_runs_in_the_guarded_engine() -> None:
    program = """
import sys
sys.modules["re2"] = None  # as on a platform without a wheel: importing it fails
from harp.policy.paths import locate
from harp.policy.route import Level, Route
from harp.policy.routes import RouteTable
routes = RouteTable((Route("^/Public$", Level.PUBLIC), Route("^/(x+x+)+y", Level.PUBLIC), Route("[", Level.USER)))
print(routes.match(locate(b"/exapps/hello/public")).route.url)
print(routes.match(locate(b"/exapps/hello/nothing")).status)
print(len(routes.problems))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["^/Public$", "404", "1"]


LITERALS = st.lists(st.sampled_from(["/", "a", "K", "9", "_", "-", r"\/", r"\.", r"\-", "user"]), max_size=4).map(
    "".join
)
LITERAL_ROUTES = st.builds("{}{}{}".format, st.sampled_from(["", "^"]), LITERALS, st.sampled_from(["", ".*"]))
TARGETS = st.text("/aAkK9_-.", max_size=6).map(lambda text: f"/{text}".encode())


@given(st.lists(LITERAL_ROUTES, min_size=1, max_size=4), TARGETS)
def test_routes_that_need_no_engine_fit_what_they_would_fit_with_one(urls: list[str], target: bytes) -> None:
    path = locate(b"/exapps/hello" + target)
    if isinstance(path, ExAppPath):
        levels = [Level.ADMIN, Level.USER, Level.PUBLIC, Level.USER]
        literal = RouteTable(tuple(Route(url, level) for url, level in zip(urls, levels, strict=False)))
        engine = RouteTable(tuple(Route(f"(?:{url})", level) for url, level in zip(urls, levels, strict=False)))
        one, other = literal.match(path), engine.match(path)
        if isinstance(one, RouteMatch) and isinstance(other, RouteMatch):
            assert other.route.url == f"(?:{one.route.url})"
            assert other.route.access_level is one.route.access_level
        else:
            assert one == other


@pytest.mark.parametrize("url", ["^/kiosk", "^/sk"])
def test_letters_beyond_ascii_that_are_the_same_in_another_case_are_left_to_the_engine(url: str) -> None:
    assert hits(url, b"/KIOSK") is (url == "^/kiosk")
    pattern = table(f"(?:{url})")
    for target in (b"/%e2%84%aaiosk", b"/%c5%bfk", b"/s%e2%84%aa"):
        assert type(table(url).match(spot(target))) is type(pattern.match(spot(target)))
