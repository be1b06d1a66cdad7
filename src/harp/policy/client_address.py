"""Who is the client: the peer, or the address that the proxies in front of us report.

Each proxy appends the address it was called from, so an entry is worth as much as the proxy to its right. Reading
starts at the right and stops at the first address that is not a trusted proxy; everything to its left is unreliable.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from msgspec import Struct

from harp.recent import remember
from harp.settings import Network, Proxies

REMEMBERED = 16384  # pairs of peer and header value
REMEMBERED_VALUE = 256  # bytes of header value

_LOOPBACK = ip_address("127.0.0.1")
_DECORATED = re.compile(r"\[([^\]]+)\](?::\d{1,5})?\Z|([0-9.]+):\d{1,5}\Z")  # [v6], [v6]:port, v4:port


class Client(Struct, frozen=True):
    """Where a request comes from."""

    address: str  # for the log, limits and X-Forwarded-For
    ban_key: str  # whom strikes are counted on
    proxy_key: str = ""  # the peer, where `ban_key` is only what it says: strikes are counted on it as well


def client_address(
    peer: str, headers: list[tuple[bytes, bytes]], trusted: tuple[Network, ...], header: bytes
) -> Client:
    """Return the true client of one request.

    `peer` is the address of the connection's other end, "" on a unix socket; header names are lower-cased. Where no
    proxy is trusted and the peer is private or loopback, it is most likely a proxy that was not configured: then the
    header's last address is the key of bans, so that one bad client does not lock out all, and nothing else. Because
    anybody else on a private network can send that header as well, strikes count on the peer, too.
    """
    return _read(peer, told_addresses(headers, header), trusted)


class ClientAddresses:
    """`client_address` for one configuration, with a bounded memory: proxies and clients come back."""

    def __init__(self, proxies: Proxies) -> None:
        self._trusted = proxies.trusted
        self._header = proxies.header.encode("ascii")
        self._known: dict[tuple[str, bytes], Client] = {}
        self._neighbours: dict[str, bool] = {}

    def find(self, peer: str, headers: list[tuple[bytes, bytes]], by_name: dict[bytes, bytes] | None = None) -> Client:
        """As `client_address`. `by_name` is given where no header came twice."""
        value = b"" if by_name is None else by_name.get(self._header, b"")
        if not value:
            value = told_addresses(headers, self._header)
        client = self._known.get((peer, value))
        if client is None:
            client = _read(peer, value, self._trusted)
            if len(value) <= REMEMBERED_VALUE:
                remember(self._known, (peer, value), client, REMEMBERED)
        return client

    def is_neighbour(self, peer: str) -> bool:
        """Return whether `peer` may speak for clients: a trusted proxy; with none configured, a private peer."""
        known = self._neighbours.get(peer)
        if known is None:
            address = _parse(peer) or _LOOPBACK
            known = _within(address, self._trusted) if self._trusted else address.is_private
            remember(self._neighbours, peer, known, REMEMBERED)
        return known


def told_addresses(headers: list[tuple[bytes, bytes]], header: bytes) -> bytes:
    """Return the addresses that the proxies report, comma separated; X-Real-IP where the usual one is not sent."""
    lines = [value for name, value in headers if name == header]
    if not lines and header == b"x-forwarded-for":
        lines = [value for name, value in headers if name == b"x-real-ip"]
    return lines[0] if len(lines) == 1 else b",".join(lines)


def _read(peer: str, value: bytes, trusted: tuple[Network, ...]) -> Client:
    address = _parse(peer) or _LOOPBACK
    told = [entry for part in value.decode("latin-1").split(",") if (entry := part.strip())]
    if _within(address, trusted):
        for entry in reversed(told):
            previous = _parse(entry)
            if previous is None:  # "unknown" or worse: the proxy that wrote it is the last one we can name
                break
            address = previous
            if not _within(address, trusted):
                break
    elif not trusted and address.is_private and told:
        named = _parse(told[-1])
        if named is not None and named != address:
            return Client(str(address), _ban_key(named), f"proxy {_ban_key(address)}")
    return Client(str(address), _ban_key(address))


def may_be_proxy(key: str) -> bool:
    """Return whether a banned key is a private address, and so perhaps that of a reverse proxy."""
    address = _parse(key.removeprefix("proxy ").partition(" ")[0].partition("/")[0])
    return address is not None and address.is_private


def ban_key(address: str) -> str:
    """Return what strikes of this address count on: itself, or the /64 of an IPv6 one, which is one customer's."""
    parsed = _parse(address)
    return _ban_key(parsed) if parsed is not None else address


def _ban_key(address: IPv4Address | IPv6Address) -> str:
    return str(address) if isinstance(address, IPv4Address) else str(IPv6Network((address, 64), strict=False))


def _within(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=1024)  # peers come back more often than clients
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, perhaps with brackets, port or zone. IPv4 mapped into IPv6 is IPv4."""
    found = _DECORATED.match(text)
    if found is not None:
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
