"""How one path is read in every way that an ExApp may read it."""

from __future__ import annotations

import pytest

from harp.policy.bans import Denial, Offence
from harp.policy.paths import Spot, locate


def spot(path: bytes) -> Spot:
    found = locate(path)
    assert isinstance(found, Spot)
    return found


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        (b"/a/b", b"/a/b"),
        (b"/a/b/", b"/a/b/"),
        (b"//a///b//", b"/a/b/"),
        (b"/./a/./b/.", b"/a/b/"),
        (b"/%61%2f%62", b"/a/b"),
        (b"/a%20b", b"/a b"),
        (b"/%c3%a9", "/é".encode()),
        (b"/\xff", b"/\xff"),
        (b"/100%", b"/100%"),
        (b"/%zz", b"/%zz"),
        (b"/%2561", b"/%61"),
        (b"/", b"/"),
        (b"//", b"/"),
        (b"/.", b"/"),
        (b"/.well-known/x", b"/.well-known/x"),
    ],
)
def test_a_target_is_decoded_once_and_loses_empty_and_dot_segments(target: bytes, plain: bytes) -> None:
    assert spot(b"/exapps/hello" + target).plain == plain


def test_an_ordinary_path_has_one_reading() -> None:
    found = spot(b"/exapps/hello/static/app.js")
    assert (found.others, found.doubtful) == ((), ())


def test_other_readings_are_the_raw_and_the_merely_decoded_path() -> None:
    assert spot(b"/exapps/hello/%61//b").others == (b"/%61//b", b"/a//b")


def test_path_parameters_may_be_taken_away() -> None:
    assert b"/admin/x" in spot(b"/exapps/hello/;v=1/admin;jsessionid=2/x").others
    assert b"/admin" in spot(b"/exapps/hello/.;/admin").others


@pytest.mark.parametrize("target", [b"//host/admin", b"///host/admin", b"/\\host/admin", b"//host//admin"])
def test_what_follows_two_slashes_may_be_taken_for_a_host(target: bytes) -> None:
    assert b"/admin" in spot(b"/exapps/hello" + target).others


def test_an_encoded_slash_has_two_meanings() -> None:
    assert spot(b"/exapps/hello/%61%2fb").doubtful == (b"/a%2fb",)


def test_a_backslash_may_be_a_slash() -> None:
    assert spot(b"/exapps/hello/a\\b").doubtful == (b"/a/b",)
    assert set(spot(b"/exapps/hello/a%5cb").doubtful) == {b"/a%5cb", b"/a/b"}


def test_the_first_app_in_the_path_wins() -> None:
    assert spot(b"/exapps/one/exapps/two/x").app == "one"
    assert spot(b"/myexapps/one/exapps/two").app == "two"


def test_a_long_path_is_read_like_a_short_one() -> None:
    long = b"/exapps/hello/" + b"a" * 5000 + b"/%2e%2e/"
    assert locate(long) == locate(b"/exapps/hello/%2e%2e/")
    assert spot(long[:-8]).target == b"/" + b"a" * 5000


def test_a_path_of_escapes_only_is_read_in_bounded_time() -> None:
    assert isinstance(locate(b"/exapps/hello/" + b"%25" * 10000 + b"2e"), Spot)


def test_every_single_byte_in_a_path_has_an_answer() -> None:
    for byte in range(256):
        for path in (b"/exapps/hello/%c", b"/exapps/%c/x", b"/%c/hello/x", b"/exapps/hello/%%%02x"):
            assert isinstance(locate(path % byte), Spot | Denial)


def test_a_parent_directory_is_an_attack_wherever_it_stands() -> None:
    for path in (b"/..", b"/a/../exapps/hello/", b"/exapps/../x", b"/%2E./x"):
        found = locate(path)
        assert isinstance(found, Denial)
        assert found.offence is Offence.ATTACK
