"""Sockets that were open before we started: those of systemd, and those of the HaRP before us."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harp.net.given import GivenSocket, GivenSockets, inherited, sockets_of_systemd
from harp.net.listen import ListenError
from harp.settings import Address
from harp.settings.model import Listen


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """One that somebody has opened for us; whoever takes it gets a duplicate."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def given(sock: socket.socket, name: str = "") -> GivenSocket:
    return GivenSocket(sock.dup(), name)


def place(sock: socket.socket) -> Address:
    return Address("127.0.0.1", sock.getsockname()[1])


def closed(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def listen(http: Address) -> Listen:
    return Listen((http,), (Address("0.0.0.0", 1),), (Address("0.0.0.0", 2),), (Address("127.0.0.1", 3),))


def test_a_socket_serves_the_address_it_is_bound_to(listener: socket.socket) -> None:
    sockets = GivenSockets([given(listener)])
    (found,) = sockets.bind((place(listener),))
    assert found.getsockname() == listener.getsockname()
    assert len(sockets) == 0
    found.close()


def test_other_addresses_are_opened_as_ever(listener: socket.socket) -> None:
    sockets = GivenSockets([given(listener)])
    found = sockets.bind((Address("127.0.0.1", 0),))
    assert found[0].getsockname() != listener.getsockname()
    assert len(sockets) == 1
    closed(found)
    sockets.close()


def test_any_address_of_one_family_is_any_address() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        one = given(sock)
        assert one.serves(Address("0.0.0.0", sock.getsockname()[1]))
        assert not one.serves(Address("127.0.0.1", sock.getsockname()[1]))
        one.sock.close()


def test_several_workers_share_a_socket_where_there_is_one(listener: socket.socket) -> None:
    (group,) = GivenSockets([given(listener)]).groups((place(listener),), 3)
    assert [sock.getsockname() for sock in group] == [listener.getsockname()] * 3
    closed(group)


def test_a_socket_that_no_variable_names_is_an_error(listener: socket.socket) -> None:
    sockets = GivenSockets([given(listener, "http")])
    other = Address("127.0.0.1", 4)
    with pytest.raises(ListenError, match=f"'http' on {place(listener)}; make HP_EXAPPS_ADDRESS, which says {other}"):
        sockets.check(listen(other), secure=False)
    sockets.check(listen(place(listener)), secure=False)
    sockets.close()


def test_a_name_of_systemds_own_stands_for_any_listener(listener: socket.socket) -> None:
    sockets = GivenSockets([given(listener, "harp.socket")])
    sockets.check(listen(place(listener)), secure=False)
    with pytest.raises(ListenError, match="make HP_EXAPPS_ADDRESS or HP_EXAPPS_HTTPS_ADDRESS or HP_FRP_ADDRESS or HP_"):
        sockets.check(listen(Address("127.0.0.1", 4)), secure=False)
    sockets.close()


def test_the_variables_of_systemd_are_read_and_removed(listener: socket.socket) -> None:
    number = os.dup(listener.fileno())
    env = {"LISTEN_PID": "4711", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "OTHER": "x"}
    (one,) = sockets_of_systemd(env, 4711, first=number)
    assert (one.name, one.place) == ("http", place(listener))
    assert not one.sock.get_inheritable()
    assert env == {"OTHER": "x"}
    one.sock.close()


def test_sockets_for_another_process_are_not_ours() -> None:
    assert sockets_of_systemd({"LISTEN_PID": "4711", "LISTEN_FDS": "1"}, 4712) == []


def test_what_does_not_listen_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as sock, (tmp_path / "file").open("w") as file:
        with pytest.raises(ListenError, match="does not listen"):
            list(inherited([("127.0.0.1:1", os.dup(sock.fileno()))]))
        with pytest.raises(ListenError, match="is not a socket"):
            list(inherited([("127.0.0.1:1", os.dup(file.fileno()))]))


def test_inherited_sockets_serve_the_address_that_they_were_opened_for(listener: socket.socket) -> None:
    (one,) = inherited([("harp.example.com:8780", os.dup(listener.fileno()))])
    assert one.serves(Address("harp.example.com", 8780))
    one.sock.close()
