"""Who the client is, behind none, one or several proxies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from harp.policy.client_address import Client, ClientAddresses, ban_key, client_address
from harp.settings import Network, Proxies

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
XFF = b"x-forwarded-for"


def find(peer: str, value: bytes | None, trusted: bool = True) -> Client:
    headers = [] if value is None else [(XFF, value)]
    return client_address(peer, headers, TRUSTED if trusted else (), XFF)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b"203.0.113.7", "203.0.113.7"),
        (b"6.6.6.6, 203.0.113.7", "203.0.113.7"),  # what the client claims stands on the left
        (b"203.0.113.7, 10.2.3.4", "203.0.113.7"),  # two trusted proxies
        (b"203.0.113.7,10.2.3.4 ,, 10.9.9.9", "203.0.113.7"),
        (b"10.5.5.5, 10.2.3.4", "10.5.5.5"),  # a client inside the trusted network
        (b"::ffff:203.0.113.7", "203.0.113.7"),
        (b"[2001:db8::7]", "2001:db8::7"),
        (b"[2001:db8::7]:4711", "2001:db8::7"),
        (b"2001:db8::7", "2001:db8::7"),
        (b"203.0.113.7:4711", "203.0.113.7"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"unknown", "10.0.0.1"),
        (b"203.0.113.7, unknown", "10.0.0.1"),  # nothing left of garbage can be believed
        (b"203.0.113.7, garbage, 10.2.3.4", "10.2.3.4"),
        (b"203.0.113.7, \xff\xfe", "10.0.0.1"),
        (b"1.2.3.4.5", "10.0.0.1"),
        (b"[]", "10.0.0.1"),
    ],
)
def test_behind_a_trusted_proxy_the_rightmost_untrusted_address_is_the_client(
    value: bytes | None, address: str
) -> None:
    assert find("10.0.0.1", value).address == address


def test_strikes_count_on_an_ipv4_address_and_on_the_64_of_an_ipv6_one() -> None:
    """A customer of any provider has a /64 of addresses to choose from."""
    assert find("8.8.4.4", b"").ban_key == ban_key("8.8.4.4") == "8.8.4.4"
    assert find("2001:db8:0:1::7", b"").ban_key == ban_key("2001:db8:0:1::9") == "2001:db8:0:1::/64"
    assert ban_key("::ffff:8.8.4.4") == "8.8.4.4"


def test_a_trusted_proxy_may_be_written_as_ipv4_in_ipv6() -> None:
    assert find("::ffff:10.0.0.1", b"203.0.113.7").address == "203.0.113.7"


def test_an_untrusted_peer_is_the_client_whatever_it_claims() -> None:
    assert find("203.0.113.9", b"6.6.6.6") == Client("203.0.113.9", "203.0.113.9")
    assert find("192.168.1.1", b"6.6.6.6") == Client("192.168.1.1", "192.168.1.1")


def test_several_lines_of_the_header_are_one_list() -> None:
    headers = [(XFF, b"6.6.6.6"), (b"host", b"x"), (XFF, b"203.0.113.7, 10.1.1.1")]
    assert client_address("10.0.0.1", headers, TRUSTED, XFF).address == "203.0.113.7"


@pytest.mark.parametrize("peer", ["127.0.0.1", "172.18.0.2", "::1", "fd12::1", "::ffff:192.168.1.5", ""])
def test_with_no_trusted_proxy_a_private_peer_names_the_ban_key_only(peer: str) -> None:
    client = find(peer, b"6.6.6.6, 203.0.113.7", trusted=False)
    assert client.ban_key == "203.0.113.7"
    assert client.address != "203.0.113.7"


def test_with_no_trusted_proxy_a_public_peer_is_itself() -> None:
    assert find("8.8.8.8", b"203.0.113.7", trusted=False) == Client("8.8.8.8", "8.8.8.8")


def test_with_no_trusted_proxy_and_a_useless_header_a_private_peer_is_its_own_ban_key() -> None:
    for value in (None, b"", b" , ", b"unknown"):
        assert find("172.18.0.2", value, trusted=False) == Client("172.18.0.2", "172.18.0.2")


def test_the_header_can_be_another_one() -> None:
    headers = [(XFF, b"6.6.6.6"), (b"cf-connecting-ip", b"203.0.113.7")]
    assert client_address("10.0.0.1", headers, TRUSTED, b"cf-connecting-ip").address == "203.0.113.7"
    assert client_address("10.0.0.1", [(b"x-real-ip", b"6.6.6.6")], TRUSTED, b"cf-connecting-ip").address == "10.0.0.1"


def test_x_real_ip_stands_in_for_a_missing_x_forwarded_for() -> None:
    assert client_address("10.0.0.1", [(b"x-real-ip", b"203.0.113.7")], TRUSTED, XFF).address == "203.0.113.7"
    headers = [(b"x-real-ip", b"6.6.6.6"), (XFF, b"203.0.113.7")]
    assert client_address("10.0.0.1", headers, TRUSTED, XFF).address == "203.0.113.7"


def test_answers_are_remembered_within_a_bound() -> None:
    addresses = ClientAddresses(Proxies(trusted=TRUSTED, header="x-forwarded-for"))
    for number in range(10000):
        value = b"203.0.%d.%d" % (number % 250, number // 250)
        assert addresses.find("10.0.0.1", [(XFF, value)]).address == value.decode()
    assert addresses.find("8.8.8.8", []) is addresses.find("8.8.8.8", [])


@pytest.mark.parametrize(
    ("peer", "trusted", "neighbour"),
    [
        ("10.0.0.1", TRUSTED, True),
        ("::ffff:10.0.0.1", TRUSTED, True),
        ("192.168.1.1", TRUSTED, False),
        ("127.0.0.1", TRUSTED, False),
        ("192.168.1.1", (), True),
        ("", (), True),
        ("8.8.8.8", (), False),
    ],
)
def test_a_neighbour_is_a_trusted_proxy_or_without_any_a_private_peer(
    peer: str, trusted: tuple[Network, ...], neighbour: bool
) -> None:
    addresses = ClientAddresses(Proxies(trusted=trusted, header="x-forwarded-for"))
    assert addresses.is_neighbour(peer) is neighbour
    assert addresses.is_neighbour(peer) is neighbour
