"""Who may see the pages, and whose forms are taken."""

from __future__ import annotations

import pytest

from harp.status.doors import LIFETIME, MOST_SESSIONS, Doors, Guest, is_local
from harp.wire.requests import RequestHead, RequestReader
from tests.fakes.clock import Clock

PASSWORD = "the password"
READER = RequestReader(100, remembers=False)


class Bans:
    """Bans after two strikes."""

    def __init__(self) -> None:
        self.strikes: dict[str, int] = {}

    def banned(self, ban_key: str) -> float:
        return 60.0 if self.strikes.get(ban_key, 0) >= 2 else 0.0

    def strike(self, ban_key: str, reason: str, proxy_key: str = "") -> None:
        self.strikes[ban_key] = self.strikes.get(ban_key, 0) + 1


class Visitors:
    def __init__(self) -> None:
        self.clock = Clock()
        self.bans = Bans()
        self.doors = Doors(PASSWORD, self.bans, self.clock)

    def guest(self, *lines: str, peer: str = "192.0.2.1") -> Guest:
        return self.doors.guest_of(head(*lines), peer)

    def with_cookie(self, cookie: str | None) -> Guest:
        return self.guest(f"Cookie: other=1; harp_admin={cookie}")


def head(*lines: str, host: str = "localhost") -> RequestHead:
    text = "".join(f"{line}\r\n" for line in (f"Host: {host}", *lines))
    return READER.read(f"GET / HTTP/1.1\r\n{text}\r\n".encode())


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", ""])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8200", "[::1]:8200", "harp.localhost"])
def test_who_is_on_this_host_comes_in(peer: str, host: str) -> None:
    assert is_local(head(host=host), peer)


def test_who_is_not_does_not() -> None:
    assert not is_local(head(), "192.0.2.1")


@pytest.mark.parametrize("line", ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy"])
@pytest.mark.parametrize("peer", ["127.0.0.1", ""])
def test_what_a_proxy_passes_on_may_come_from_anywhere(line: str, peer: str) -> None:
    assert not is_local(head(line), peer)


def test_a_foreign_name_that_points_here_is_not_this_host() -> None:
    assert not is_local(head(host="evil.example"), "127.0.0.1")


def test_a_session_begins_with_the_password_and_lasts_for_half_a_day_after_the_last_visit() -> None:
    world = Visitors()
    assert not world.guest().admitted
    cookie = world.doors.log_in(world.guest(), PASSWORD)
    for _ in range(3):
        world.clock.now += LIFETIME - 1
        assert world.with_cookie(cookie).admitted
    world.clock.now += LIFETIME
    assert not world.with_cookie(cookie).admitted


def test_a_session_ends_when_one_logs_out() -> None:
    world = Visitors()
    cookie = world.doors.log_in(world.guest(), PASSWORD)
    world.doors.log_out(world.with_cookie(cookie))
    assert not world.with_cookie(cookie).admitted


def test_sessions_are_few_and_the_oldest_goes() -> None:
    world = Visitors()
    cookies = []
    for _ in range(MOST_SESSIONS + 1):
        world.clock.now += 1
        cookies.append(world.doors.log_in(world.guest(), PASSWORD))
    assert [world.with_cookie(cookie).admitted for cookie in (cookies[0], cookies[1], cookies[-1])] == [
        False,
        True,
        True,
    ]


def test_a_program_sends_the_password_as_a_bearer() -> None:
    world = Visitors()
    assert world.guest(f"Authorization: Bearer {PASSWORD}").admitted
    assert not world.guest("Authorization: Bearer wrong").admitted
    assert not world.guest(f"Authorization: Basic {PASSWORD}").admitted


def test_wrong_passwords_are_strikes_and_from_a_banned_address_no_password_is_right() -> None:
    world = Visitors()
    for _ in range(2):
        assert world.doors.log_in(world.guest(), "wrong") is None
    assert world.bans.strikes == {"192.0.2.1": 2}
    assert world.doors.log_in(world.guest(), PASSWORD) is None
    assert world.doors.banned_for(world.guest()) == 60.0
    assert world.bans.strikes == {"192.0.2.1": 2}, "a ban is not made longer by who is banned"


def test_a_form_is_taken_from_the_visitor_it_was_made_for() -> None:
    world = Visitors()
    mine, other = world.with_cookie("mine"), world.with_cookie("other")
    token = world.doors.form_token("mine")
    assert world.doors.is_own_form(mine, token)
    assert not world.doors.is_own_form(other, token)
    assert not world.doors.is_own_form(mine, "guessed")
    assert not world.doors.is_own_form(world.guest(), world.doors.form_token(""))
