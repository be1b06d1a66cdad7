"""Listening sockets and the certificates they serve."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import NoReturn

import pytest
import trustme

from harp.net.listen import ListenError, bound_socket, https_context, listen, load_certificate, ports_of
from harp.settings import Address


def served_by(context: ssl.SSLContext) -> bytes:
    """The certificate a client gets in a handshake with `context`, done in memory."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="cloud.example.com")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.getpeercert(binary_form=True) or b""


def put_certificate(path: Path, authority: trustme.CA) -> None:
    authority.issue_cert("cloud.example.com").private_key_and_cert_chain_pem.write_to_path(path)


def test_a_renewed_certificate_is_served(tmp_path: Path) -> None:
    path, authority = tmp_path / "cert.pem", trustme.CA()
    put_certificate(path, authority)
    context = https_context(path)
    old = served_by(context)
    put_certificate(path, authority)
    load_certificate(context, path)
    assert served_by(context) not in (old, b"")


def test_a_certificate_without_its_key_leaves_the_old_one_in_service(tmp_path: Path) -> None:
    path, authority = tmp_path / "cert.pem", trustme.CA()
    put_certificate(path, authority)
    context = https_context(path)
    old = served_by(context)
    authority.issue_cert("cloud.example.com").cert_chain_pems[0].write_to_path(path)
    with pytest.raises(ListenError, match="is not a PEM file with certificate chain and key"):
        load_certificate(context, path)
    assert served_by(context) == old


def nobody() -> NoReturn:
    """What serves where nobody comes."""
    raise AssertionError


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bound_socket(Address("127.0.0.1", port))


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_a_unix_socket_takes_the_place_of_nothing_but_a_socket(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "precious", tmp_path / "other"
    if kind == "file":
        path.write_text("data")
    elif kind == "directory":
        path.mkdir()
    else:
        bound_socket(Address("", 0, path=str(other))).close()
        path.symlink_to(other)
    with pytest.raises(ListenError, match="in use"):
        bound_socket(Address("", 0, path=str(path)))
    assert path.exists()


def test_a_unix_socket_takes_the_place_of_one_that_was_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    bound_socket(Address("", 0, str(path))).close()
    assert path.is_socket()


def test_both_families_share_a_port_unless_ipv6_is_asked_for_alone() -> None:
    with bound_socket(Address("::", 0)) as both, bound_socket(Address("::", 0, v6only=True)) as alone:
        assert not both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert alone.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


async def test_the_ports_are_those_of_tcp_listeners(tmp_path: Path) -> None:
    addresses = (Address("127.0.0.1", 0), Address("", 0, str(tmp_path / "http.sock")))
    servers = listen([bound_socket(address) for address in addresses], nobody)
    assert ports_of(servers) == [servers[0].sockets[0].getsockname()[1]]
    for server in servers:
        server.close()


async def test_the_file_of_a_unix_socket_stays_for_the_process_that_serves_there_next(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    for server in listen([bound_socket(Address("", 0, str(path)))], nobody):
        server.close()
    assert path.is_socket()
