"""How one path is read in every way that an ExApp may read it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harp.policy.bans import Denial, Offence
from harp.policy.paths import ExAppPath, locate, read_carefully


def spot(path: bytes) -> ExAppPath:
    found = locate(path)
    assert isinstance(found, ExAppPath)
    return found


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        (b"/a/b", b"/a/b"),
        (b"/a/b/", b"/a/b/"),
        (b"/a///b//", b"/a/b/"),
        (b"/./a/./b/.", b"/a/b/"),
        (b"/%61%2f%62", b"/a/b"),
        (b"/a%20b", b"/a b"),
        (b"/%c3%a9", "/é".encode()),
        (b"/\xff", b"/\xff"),
        (b"/100%", b"/100%"),
        (b"/%zz", b"/%zz"),
        (b"/%2561", b"/%61"),
        (b"/", b"/"),
        (b"/.", b"/"),
        (b"/.well-known/x", b"/.well-known/x"),
    ],
)
def test_a_target_is_decoded_once_and_loses_empty_and_dot_segments(target: bytes, plain: bytes) -> None:
    assert spot(b"/exapps/hello" + target).plain == plain


def test_an_ordinary_path_has_one_reading() -> None:
    found = spot(b"/exapps/hello/static/app.js")
    assert (found.others, found.loose, found.doubtful) == ((), (), False)


def test_other_readings_are_the_raw_and_the_merely_decoded_path() -> None:
    assert set(spot(b"/exapps/hello/%61//b").others) == {b"/%61//b", b"/%61/b", b"/a//b"}


def test_an_escape_that_clients_need_may_be_kept_without_having_a_route() -> None:
    found = spot(b"/exapps/hello/my%20file")
    assert (found.plain, found.others, found.loose) == (b"/my file", (), (b"/my%20file",))


def test_an_escape_that_nobody_needs_is_a_reading_of_its_own() -> None:
    assert spot(b"/exapps/hello/%66ile").others == (b"/%66ile",)


def test_a_path_may_be_decoded_again() -> None:
    assert b"/admin" in spot(b"/exapps/hello/%2561dmin").others


def test_the_slash_at_the_end_may_be_taken_away() -> None:
    assert spot(b"/exapps/hello/admin/").loose == (b"/admin",)
    assert b"/admin" in spot(b"/exapps/hello/;x/admin/").loose


@pytest.mark.parametrize(
    "target",
    [
        b"/;v=1/admin;jsessionid=2/x",
        b"/.;/admin/x",
        b"/admin;x%2fy/x",  # cut before it is decoded
        b"/admin%3bv=1/x",
        b"/%3b/admin/x",
    ],
)
def test_path_parameters_may_be_taken_away(target: bytes) -> None:
    assert b"/admin/x" in spot(b"/exapps/hello" + target).others


@pytest.mark.parametrize("target", [b"/admin;x/y;z", b"/admin;%2f"])
def test_a_path_may_be_cut_at_its_first_semicolon(target: bytes) -> None:
    assert b"/admin" in spot(b"/exapps/hello" + target).others


@pytest.mark.parametrize("end", [b"%3f", b"%3fx=1", b"%23x", b"%253f", b"%2500", b"%20", b"+", b"%C2%A0", b"%a0"])
def test_what_ends_a_path_when_decoded_may_be_taken_away(end: bytes) -> None:
    assert b"/admin" in spot(b"/exapps/hello/admin" + end).others


@pytest.mark.parametrize("target", [b"/\xef\xbd\x81dmin", b"/%EF%BD%81dmin", b"/admin.", b"/admin./"])
def test_comparisons_may_ignore_width_and_dots_at_the_end(target: bytes) -> None:
    assert b"/admin" in spot(b"/exapps/hello" + target).loose


@pytest.mark.parametrize(
    "start",
    [b"//", b"///", b"/\\", b"/%2f", b"/%5C", b"/%2F/", b"/%252f", b"/%25255c", b"//h/", b"///h\\", b"//h%5c%5cx;@x/"],
)
@pytest.mark.parametrize("rest", [b"", b"admin", b"host/admin"])
def test_a_target_that_url_libraries_take_for_a_host_is_refused(start: bytes, rest: bytes) -> None:
    found = locate(b"/exapps/hello" + start + rest)
    assert isinstance(found, Denial)
    assert found.status == 400


@pytest.mark.parametrize("start", [b"/;//", b"/.//", b"/;x//"])
def test_a_host_that_shows_later_is_a_reading(start: bytes) -> None:
    assert b"/admin" in spot(b"/exapps/hello" + start + b"h/admin").others


@pytest.mark.parametrize(
    "piece", [b"%c0%af", b"%c1%9c", b"%C0%AE%C0%AE", b"%e0%80%af", b"%f0%80%80%af", b"%u002f", b"%U002e"]
)
def test_encodings_other_than_utf_8_are_refused(piece: bytes) -> None:
    found = locate(b"/exapps/hello/a" + piece + b"admin")
    assert isinstance(found, Denial)
    assert found.status == 400


def test_a_path_with_too_many_readings_is_refused() -> None:
    found = locate(b"/exapps/hello/a" + b"%25" + b"25" * 60 + b"41;%2541/;b//c%3f%2fd\\e")
    assert isinstance(found, Denial)
    assert (found.status, "too many ways" in found.reason) == (400, True)


@pytest.mark.parametrize("target", [b"/a%2fb", b"/a\\b", b"/a%5Cb"])
def test_an_encoded_slash_or_a_backslash_is_doubtful(target: bytes) -> None:
    found = spot(b"/exapps/hello" + target)
    assert found.doubtful
    assert {target, b"/a/b"} <= {found.plain, *found.others}


PIECES = [
    *(
        b"/",
        b"/",
        b"exapps",
        b"hello",
        b"init",
        b"a.b",
        b".",
        b"..",
        b"%2f",
        b"%61",
        b";",
        b"+",
        b"~",
        b"-",
        b"app_api",
    ),
    *(b"%20", b"%C3%A9", b"%EF%BC%8E", b"%e3%80%80", b"%ef%bd%81", b"%40", b"%25", b"%3f", b"%c0%af", b"%a0", b"\\"),
]
FRONTS = st.sampled_from([b"/", b"/exapps/hello/", b"/sub/exapps/hello/"])


@given(FRONTS, st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=9).map(b"".join))
@example(b"/exapps/hello/", b"init/")
@example(b"/nextcloud/exapps/one/", b"exapps/two/x.y/")
@example(b"/exapps/exapps/", b"exapps/x")
@example(b"/exapps/hello/", b"%ef%bd%89nit")
def test_the_quick_ways_read_a_path_as_the_careful_one_does(front: bytes, rest: bytes) -> None:
    quick, careful = locate(front + rest), read_carefully(front + rest)
    if isinstance(quick, ExAppPath) and isinstance(careful, ExAppPath):
        assert set(quick.loose) == set(careful.loose)
        careful = ExAppPath(
            careful.app,
            careful.app_id,
            careful.prefix,
            careful.target,
            careful.plain,
            careful.others,
            quick.loose,  # in another order
            careful.doubtful,
            careful.internal,
            careful.stripped,
        )
    assert quick == careful


def test_the_first_app_in_the_path_wins() -> None:
    assert spot(b"/exapps/one/exapps/two/x").app == "one"
    assert spot(b"/myexapps/one/exapps/two").app == "two"


def test_a_long_path_is_read_like_a_short_one() -> None:
    long = b"/exapps/hello/" + b"a" * 5000 + b"/%2e%2e/"
    assert locate(long) == locate(b"/exapps/hello/%2e%2e/")
    assert spot(long[:-8]).target == b"/" + b"a" * 5000


def test_a_path_of_escapes_only_is_read_in_bounded_time() -> None:
    assert isinstance(locate(b"/exapps/hello/" + b"%25" * 2500 + b"2e"), ExAppPath)


def test_a_long_path_is_served_only_if_it_is_ordinary_but_for_escapes() -> None:
    assert isinstance(locate(b"/exapps/hello/" + b"a/b.c" * 6000), ExAppPath)
    assert isinstance(locate(b"/exapps/hello/" + b"%C3%A9" * 5000), ExAppPath)
    refused = locate(b"/exapps/hello/" + b"a;" * 5000)
    assert isinstance(refused, Denial)
    assert (refused.status, refused.reason) == (400, "an unusual path of 10014 bytes, limit 8192")


def test_every_single_byte_in_a_path_has_an_answer() -> None:
    for byte in range(256):
        for path in (b"/exapps/hello/%c", b"/exapps/%c/x", b"/%c/hello/x", b"/exapps/hello/%%%02x"):
            assert isinstance(locate(path % byte), ExAppPath | Denial)


def test_a_parent_directory_is_a_probe_wherever_it_stands() -> None:
    for path in (
        b"/..",
        b"/a/../exapps/hello/",
        b"/exapps/../x",
        b"/%2E./x",
        b"/exapps/hello/%EF%BC%8E%EF%BC%8E/x",
        b"/exapps/hello/%e2%80%a5/x",
    ):
        found = locate(path)
        assert isinstance(found, Denial)
        assert found.offence is Offence.PROBE
