"""Our tunnel client tries every address of every server it is given."""

from __future__ import annotations

import pytest

from harp.errors import Unreachable
from harp.net.targets import Tcp
from harp.tunnel.client.servers import Servers, servers_of

THREE = [Tcp("127.0.0.1", 1), Tcp("127.0.0.2", 2), Tcp("::1", 3)]


def in_order(found: list[object]) -> None:
    """As `random.shuffle`, for tests."""


def servers(*where: Tcp) -> Servers:
    return Servers(where or THREE, 5, in_order)


async def test_the_addresses_are_tried_one_after_another() -> None:
    tried = servers()
    assert [str(await tried.next()) for _ in range(3)] == ["127.0.0.1:1", "127.0.0.2:2", "::1:3"]
    assert not tried.others
    assert str(await tried.next()) != "::1:3"  # the next round ends with the one that was tried last


async def test_the_last_of_a_round_has_all_the_time_there_is() -> None:
    tried = servers()
    assert [(await tried.next()).alone for _ in range(3)] == [False, False, True]


async def test_the_one_that_was_lost_comes_last() -> None:
    tried = servers()
    lost = str(await tried.next())
    tried.begin_anew()
    assert [str(await tried.next()) for _ in range(3)][-1] == lost


async def test_all_addresses_of_a_name_are_tried() -> None:
    tried = servers(Tcp("localhost", 8782))
    first = await tried.next()
    assert first.server == Tcp("localhost", 8782)
    assert str(first).startswith("localhost:8782 (")


async def test_a_name_that_does_not_resolve_is_left_out() -> None:
    tried = servers(Tcp("harp.invalid", 1), Tcp("127.0.0.1", 2))
    assert str(await tried.next()) == "127.0.0.1:2"
    with pytest.raises(Unreachable, match=r"the name harp\.invalid does not resolve"):
        await servers(Tcp("harp.invalid", 1)).next()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("harp", [("harp", 7)]),
        ("harp:8782", [("harp", 8782)]),
        ("one, two:8782", [("one", 7), ("two", 8782)]),
        ("::1", [("::1", 7)]),
        ("[::1]", [("::1", 7)]),
        ("[::1]:8782,2001:db8::1", [("::1", 8782), ("2001:db8::1", 7)]),
    ],
)
def test_servers_are_written_with_commas_between(text: str, expected: list[tuple[str, int]]) -> None:
    assert servers_of(text, 7) == tuple(Tcp(*one) for one in expected)


@pytest.mark.parametrize("text", ["one,", "harp:0", "harp:port", "[::1]:70000", ":8782"])
def test_what_is_not_a_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a host nor"):
        servers_of(text, 7)
